"""Places of a reading, computed again with one more override: from where that acts to the quantity that is looked at.

To solve for a factor, a reading is computed some ten times for each target, and almost all of it is the same each time:
what stands before the target does not change, and what comes after the quantity is not asked for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.judging.drive import Observation
from amos_ref.conformance.judging.paper import Override
from amos_ref.conformance.judging.reading import Reading, Step, is_opposite, take

Place = tuple[str, int]  # a leaf and a step


class Replay:
    """One quantity at some places of a reading whose every step started from what a port had shown.

    Parameters
    ----------
    overrides : sequence of mappings
        The reading's.
    further : mapping of str to callable
        The override that is laid over them.
    stage : str
        The quantity.
    steps : dict of Place to Step
        The places, as the reading computed them.
    seen : Observation
    """

    def __init__(
        self,
        overrides: Sequence[Mapping[str, Override]],
        further: Mapping[str, Override],
        stage: str,
        steps: Mapping[Place, Step],
        seen: Observation,
    ) -> None:
        algorithm = next(iter(steps.values())).algorithm
        stages = Reading([*overrides, further]).stages(algorithm)
        order = list(stages)
        first, last = min(order.index(name) for name in further), order.index(stage)
        self._again = {name: stages[name] for name in order[first : last + 1]}
        later = frozenset(order[first:])
        self._stage, self._steps, self._seen = stage, steps, seen
        self._change = algorithm.change if algorithm.change in self._again else None
        self._before = {
            place: {name: x for name, x in step.__dict__.items() if name not in later} for place, step in steps.items()
        }

    def at(self, place: Place) -> np.ndarray | None:
        """Return the quantity at a place; None if it hangs on other places, or they on it.

        That is so if the override remembers something, or if the momentum takes the other sign.
        """
        if not self._again:
            return np.asarray(getattr(self._steps[place], self._stage)).reshape(-1)
        memory: dict[str, Any] = {}
        step = Step(**self._before[place] | {"memory": memory, "tree": memory})
        take(self._again, step)
        if memory or self._sign(step, place) != self._sign(self._steps[place], place):
            return None
        return np.asarray(getattr(step, self._stage)).reshape(-1)

    def _sign(self, step: Step, place: Place) -> bool:
        leaf, t = place
        if self._change is None:
            return False
        shown, own = self._seen.shown[t - 1].get(self._change, {}).get(leaf), getattr(step, self._change)
        if shown is None or own is None or np.shape(own) != np.shape(shown):
            return False
        return is_opposite(own, shown)


def are_apart(seen: Observation, steps: Mapping[Place, Step], first: int) -> bool:
    """Whether each step of a reading, from the first on, hangs on nothing of another but on what the port showed.

    A reading that remembers something goes on from its own numbers, and so does one whose state has another shape than
    the port's, or a part that the port does not show.
    """
    last = max((t for _, t in steps), default=0)
    return not any(step.memory or step.tree for step in steps.values()) and all(
        (shown := seen.shown[t - 1].get(what, {}).get(leaf)) is not None and np.shape(own) == np.shape(shown)
        for (leaf, t), step in steps.items()
        if first <= t < last
        for what in step.algorithm.quantities
        if (own := getattr(step, what)) is not None
    )
