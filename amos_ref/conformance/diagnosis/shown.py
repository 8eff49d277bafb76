"""What a port shows, held against what it would show if it were a reading: the page, say."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from amos_ref.conformance.judging.drive import Observation


def shown_by(steps: Sequence[Any], one: Observation) -> list[dict[str, Any]]:
    """Return what a port would show, of what this one does, if it took a reading's steps."""
    return [
        {
            what: {k: np.asarray(x) for k, m in now.items() if (x := getattr(m.step, what)) is not None and k in of}
            for what, of in shown.items()
        }
        for now, shown in zip(steps, one.shown, strict=False)
    ]


def numbers_of(one: Observation, page: Sequence[Any]) -> list[dict[str, Any]]:
    """Return what a port shows, with the page's numbers in the place of NaN and infinity."""
    return [
        {what: {leaf: _finite(a, of_page[what].get(leaf, a)) for leaf, a in of.items()} for what, of in now.items()}
        for now, of_page in zip(one.shown, shown_by(page, one), strict=False)
    ]


def _finite(a: Any, page: Any) -> Any:
    return np.where(np.isfinite(a), a, page) if np.shape(page) == np.shape(a) else a
