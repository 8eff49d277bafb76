"""Every intermediate of one step, to look at."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref.terminal import Printed, counted

Lines = tuple[tuple[str, str], ...]


class Trace(Printed, Mapping[str, dict[str, Any]]):
    """The intermediates of one step, by the name of the leaf and then by symbol.

    ``str()`` prints the algorithm with its numbers.

    Attributes
    ----------
    t : int
        The step. Amos counts from 1, and ClosedFormAmos from 0.
    rates : NamedTuple
        The numbers that all leaves share: for Amos q = 1 - beta^t, xi and the hyper-parameters, for ClosedFormAmos
        exp(-2 S_t) and its hyper-parameters.
    """

    t: int
    rates: Any

    def __init__(self, t: int, rates: Any, steps: dict[str, tuple[Any, dict[str, Any]]], lines: Lines) -> None:
        self.t, self.rates = t, rates
        self._steps, self._lines = steps, lines

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._steps[name][1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._steps)

    def __len__(self) -> int:
        return len(self._steps)

    def __repr__(self) -> str:
        return f"<Trace of step {self.t}, {counted(len(self), 'leaf', 'leaves')}; print() shows the numbers>"

    def __str__(self) -> str:
        lines = [f"step t={self.t}: {', '.join(f'{key}={value:.6g}' for key, value in _shared(self.rates))}"]
        for name, (leaf, after) in self._steps.items():
            lines += ["", f"leaf {name!r}: {leaf.describe()}"]
            lines += [f"  {symbol:39} {_numbers(a)}" for symbol, a in leaf.before().items() if a is not None]
            lines += [f"  {text:39} {_numbers(after[key])}" for key, text in self._lines if after[key] is not None]
        return "\n".join(lines)


def _shared(rates: Any) -> Iterator[tuple[str, float]]:
    """Yield what all leaves share, with what directions are made by."""
    for key, value in rates._asdict().items():
        if isinstance(value, tuple):
            yield from _shared(value)
        elif value is not None:
            yield key, value


def _numbers(a: Any) -> str:
    a = np.asarray(a, dtype=np.float64)
    flat = " ".join(f"{x:.6g}" for x in a.reshape(-1)[:6])
    return flat + (f" ... ({a.size} numbers)" if a.size > 6 else "")
