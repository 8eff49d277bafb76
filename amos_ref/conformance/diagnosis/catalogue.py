"""All deviations by name: the formulas' (deviations.py, formulas.py), and what the grammar makes on demand."""

from collections.abc import Sequence

from amos_ref.conformance.diagnosis import formulas  # noqa: F401 (adds its entries)
from amos_ref.conformance.diagnosis.deviations import CATALOGUE, Deviation
from amos_ref.conformance.diagnosis.grammar import GRAMMAR, parse
from amos_ref.conformance.judging.reading import Reading

__all__ = ["CATALOGUE", "Names", "deviation", "in_order", "reading_of"]

Names = tuple[str, ...]  # of deviations, in the order in which their overrides are laid over each other

_ORDER = {name: i for i, name in enumerate((*CATALOGUE, *GRAMMAR))}


def deviation(name: str) -> Deviation:
    """Return a deviation of the catalogue, or one that the grammar makes of its name; KeyError if there is none."""
    return CATALOGUE.get(name) or GRAMMAR.get(name) or parse(name)


def in_order(names: Sequence[str]) -> Names:
    """Return names in the catalogue's order, then the grammar's, then by the alphabet."""
    return tuple(sorted(names, key=lambda name: (_ORDER.get(name, len(_ORDER)), name)))


def reading_of(names: Sequence[str]) -> Reading:
    """Return the page with these deviations."""
    return Reading(deviation(name).overrides for name in names)
