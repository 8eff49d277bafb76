"""All deviations by name, for each algorithm: those of its catalogue, and what the grammar makes on demand."""

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from amos_ref.conformance.closed_form import factors as closed_form
from amos_ref.conformance.diagnosis import factors as paper
from amos_ref.conformance.diagnosis import formulas  # noqa: F401 (adds its entries)
from amos_ref.conformance.diagnosis.deviation import Catalogue, Deviation
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.diagnosis.grammar import Grammar
from amos_ref.conformance.judging.reading import Reading

Names = tuple[str, ...]  # of deviations, in the order in which their overrides are laid over each other


class Knowledge(NamedTuple):
    """What is known of the ways to depart from an algorithm.

    Attributes
    ----------
    catalogue : Catalogue
    grammar : Grammar
    upstream : dict of str to collection of str
        For parts of the state, the stages that have an influence on them; all have on any other and on theta.
    """

    catalogue: Catalogue
    grammar: Grammar
    upstream: Mapping[str, Collection[str]]


_V = frozenset(("event", "grad", "g", "g2", "v", "slot", "clip_value", "beta", "old_v"))
_B = _V | frozenset(("t", "xi", "epsilon", "q", "r", "c", "c_coef", "gamma", "b", "old_b"))
_MOMENT_STAGES = frozenset(("event", "grad", "g", "clip_value", "direction", "t", "n", "m", "v", "old_m", "old_v"))

#: By the algorithm's name.
KNOWN: Mapping[str, Knowledge] = {
    "paper": Knowledge(CATALOGUE, paper.GRAMMAR, {"v": _V, "b": _B}),
    "closed-form": Knowledge(
        closed_form.CATALOGUE, closed_form.GRAMMAR, {"m": _MOMENT_STAGES | {"beta1"}, "v": _MOMENT_STAGES | {"beta2"}}
    ),
}


def deviation(name: str, algorithm: str = "paper") -> Deviation:
    """Return a deviation of the catalogue, or one that the grammar makes of its name; KeyError if there is none."""
    known = KNOWN[algorithm]
    return known.catalogue.get(name) or known.grammar.singles.get(name) or known.grammar.parse(name)


@functools.cache
def _order(algorithm: str) -> dict[str, int]:
    known = KNOWN[algorithm]
    return {name: i for i, name in enumerate((*known.catalogue, *known.grammar.singles))}


def in_order(names: Sequence[str], algorithm: str = "paper") -> Names:
    """Return names in the catalogue's order, then the grammar's, then by the alphabet."""
    order = _order(algorithm)
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))


def reading_of(names: Sequence[str], algorithm: str = "paper") -> Reading:
    """Return the page with these deviations."""
    return Reading(deviation(name, algorithm).overrides for name in names)
