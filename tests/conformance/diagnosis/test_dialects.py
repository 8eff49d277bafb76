"""Published readings: they are made of the catalogue's deviations."""

from amos_ref.conformance.diagnosis.catalogue import CATALOGUE
from amos_ref.conformance.diagnosis.dialects import dialects


def test_dialects_are_of_the_catalogue_and_recognised(departing):
    for dialect in dialects():
        assert set(dialect.deviations) <= set(CATALOGUE), dialect.name
        assert len(dialect.names) == len(dialect.deviations)
    found = departing.diagnosis
    assert found is not None
    assert (found.deviations, found.dialect) == (["extra_l2-sign"], None)
