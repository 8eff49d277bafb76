"""What the compile check reads from machine code, by code whose use is known."""

import pytest
from helpers import occupancy
from helpers.occupancy import Use, bytes_in_flight, measure, worse

TOGETHER = """
.L_x_1:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.64 R8, desc[UR4][R2.64+0x10] ;
        /*0030*/                   IADD3 R20, R2, R21, RZ ;
        /*0040*/              @!P0 LDG.E.U16 R10, desc[UR4][R20.64] ;
        /*0050*/                   DADD R12, R4, R6 ;
"""
APART = TOGETHER.replace("IADD3 R20, R2, R21", "IADD3 R20, R8, R21")
ACROSS = TOGETHER.replace("        /*0030*/", ".L_x_2:\n        /*0030*/")


@pytest.mark.parametrize(("code", "wanted"), [(TOGETHER, 26), (APART, 24), (ACROSS, 24), ("", 0)])
def test_bytes_in_flight_end_where_one_is_read_or_another_stretch_begins(code, wanted):
    assert bytes_in_flight(code) == wanted


@pytest.mark.parametrize(
    ("registers", "shared", "blocks"),
    [(64, 0, 4), (65, 0, 3), (80, 0, 3), (128, 0, 2), (129, 0, 1), (32, 0, 8), (32, 65536, 2)],
)
def test_blocks_are_counted_as_registers_and_shared_memory_allow(registers, shared, blocks):
    words = f"ptxas info : Used {registers} registers, used 1 barriers, {shared} bytes smem, 408 bytes cmem[0]"
    assert measure(words, TOGETHER, (8, 0), 256) == Use(registers, shared, blocks, 26)


def test_only_what_became_worse_is_a_fault():
    kept = Use(64, 1024, 4, 64)
    assert worse(kept, kept) == worse(Use(60, 0, 5, 128), kept) == []
    assert worse(Use(65, 1024, 3, 32), kept) == ["registers 65, was 64", "blocks 3, was 4", "in_flight 32, was 64"]
    assert worse(kept, None) == ["not in the table: run with --write"]


def test_a_table_that_forgives_is_seen(monkeypatch):
    monkeypatch.setattr(occupancy, "_LOAD", occupancy.re.compile("never"))
    with pytest.raises(AssertionError):
        test_bytes_in_flight_end_where_one_is_read_or_another_stretch_begins(TOGETHER, 26)
