"""The scale of a leaf's entries, read off what they start with: eta="init" and sigma="init"."""

import math
import warnings
from typing import Any

from amos_ref.errors import list_some
from amos_ref.optimizers.extent import Entries
from amos_ref.optimizers.state import EtaWarning, SigmaWarning
from amos_ref.outside import level_of_caller
from amos_ref.rules import Preset, positive, resolve

#: How far entries may be from the default eta before `init` warns: a layer of 64 inputs that starts at sqrt(2/64) is
#: farther, and noise of size 1 is not as far.
FARTHEST = 2.5
FEWEST_ENTRIES = 16  # entries: of fewer the root mean square says little


class DefaultEta(float):
    """The eta of whoever gives none."""


def measures(rule: Any) -> bool:
    """Whether a rule, or one of a mapping's values, is "init"."""
    if isinstance(rule, Preset):
        rule = rule.eta
    values = rule.values() if isinstance(rule, dict) else (rule,)
    return any(isinstance(value, str) and value == "init" for value in values)


def scale_at_start(rule: Any, option: str, name: str, entries: Entries, warned: set[str]) -> float:
    """Return eta or sigma of a leaf: what the rule gives, or, of "init", the root mean square of its entries.

    Raise RuleError if that is no finite number > 0. Warn, unless the leaf is among the `warned`, of a size that is that
    of one constant.
    """
    value, where = resolve(rule, option, name, entries.shape), f"{option} of leaf {name!r}"
    if not isinstance(value, str) or value != "init":
        return positive(value, where)
    scale = positive(entries.initial_sigma(), f"{where}, the root mean square of its entries,")
    _warn_of_constant(warned, option, name, scale, entries)
    return scale


def _warn_of_constant(warned: set[str], option: str, name: str, scale: float, entries: Entries) -> None:
    """Warn of a leaf whose scale is the size of one constant, such as 1e-6.

    A single number is always constant, and a constant of 0.5 has the scale that it would be told to have.
    """
    asked = math.prod(entries.shape) > 1 and scale != 0.5 and name not in warned
    if asked and (constant := entries.constant()) is not None:
        warned.add(name)
        step = {"sigma": "alpha_0", "eta": "xi"}[option]
        warnings.warn(
            f"{option} of leaf {name!r} is {scale:.6g}, as all its entries start at {constant:.6g}: its "
            f"first steps are {step} times that; if entries go further, give {option}=0.5, as zeros and ones have, or "
            "a rule",
            SigmaWarning,
            stacklevel=level_of_caller(),
        )


def warn_of_default(eta: float, leaves: dict[str, Entries]) -> None:
    """Warn of leaves of two or more dimensions whose entries are far from the default eta."""
    far = {}
    for name, entries in leaves.items():
        if len(entries.shape) > 1 and math.prod(entries.shape) >= FEWEST_ENTRIES:
            size = entries.root_mean_square()
            if size and not eta / FARTHEST <= size <= eta * FARTHEST:
                far[name] = size
    if far:
        listed = list_some((f"{name!r} ({size:.2g})" for name, size in far.items()), most=4)
        warnings.warn(
            f"eta was not given, and is {float(eta)} for all leaves, but the entries of {listed} are of another "
            "size: give eta=amos_ref.choose(params), eta='init', or a number to go without this warning",
            EtaWarning,
            stacklevel=level_of_caller(),
        )
