"""The closed form's deviations that act only where something happens to the optimizer (docs/life.md)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import closed_form
from amos_ref.conformance.algorithms import CLOSED_FORM
from amos_ref.conformance.closed_form.deviations import along_all_leaves
from amos_ref.conformance.closed_form.formulas import OPTIONS
from amos_ref.conformance.diagnosis import life, ways


def add_all(add: Callable[..., None]) -> None:
    """Add the entries; ``add(stage, name, does, effect, only=..., **overrides)`` takes one."""
    one = life.lives(add)
    parts = {"m": "the direction is that of one gradient", "v": "entries do not step alike for a while"}
    anew = "steps and decay jump up to their first size"
    losses = life.Losses(parts, anew, "Adam starts again", "the decay of a whole run is lost", _measuring)
    life.add_kept(add, CLOSED_FORM, losses)
    # A table: an entry reads best in two or three lines.
    # fmt: off
    for event, after in life.WORDS.items():
        one(f"{event.replace('_', '-')}-measures-sigma-anew", event,
            f"measures sigma in the entries as they are after {after}; the page in the first ones",
            "steps follow the weights from there on", **_measuring(event))
    others = [name for name in OPTIONS if name != "alpha_0"]
    for name, leaf, words in life.groups_of():
        one(f"groups-alpha_0-{name}", "groups", f"gives all parameter groups the alpha_0 of {words}",
            "the alpha_0 of a group does nothing", **life.options_of(leaf, ["alpha_0"]))
        one(f"groups-options-{name}", "groups", f"gives all parameter groups the half-life, q, ... of {words}",
            "the options of a group do nothing", **life.options_of(leaf, others))
    life.add_common(add)
    for option, words in (("alpha_0", "alpha_0"), ("half_life", "half-life")):
        one(f"loaded-state-dict-keeps-{option}", "state_dict-otherwise",
            f"goes on with the {words} of the optimizer into which a state_dict is loaded",
            f"a resumed run has another {words}", **{option: life.loaded_into(option, CLOSED_FORM)})
    for path in life.PATHS:
        one(f"{path}-along-the-gradient", path, f"steps along the gradient, whatever direction says, where {path}=True",
            "Adam's scaling is lost on that path", direction=lambda s, page: "gradient")
        one(f"{path}-without-decay", path, f"does not decay where {path}=True", "no decay on that path",
            rho=lambda s, page: 0.0 * page(s))
    # fmt: on
    life.add_of_mean(add, "u2", along_all_leaves)
    ways.add_common(add, "mv", old_m="beta1", old_v="beta2")


def _measuring(event: str) -> dict[str, Any]:
    """Measure sigma in the entries that there are after an event."""

    def measured(s: Any, page: Callable[[Any], Any]) -> Any:
        if "sigma" not in s.asked or not life.last(s, event):
            return page(s)
        return s.memory.setdefault(event, closed_form.initial_sigma(np.asarray(s.old_theta)))

    return {"sigma": measured}
