"""The roof: it moves every byte of a step once."""

from dataclasses import replace

import numpy as np
import pytest

from amos_ref.bench import roof, workloads
from amos_ref.bench.measure import describe_streams, limit_threads

ROOFS = [
    dict(),
    dict(slot="element"),
    dict(slot="row", momentum=True),
    dict(slot="element", state="float64", momentum=True),
    dict(dtype="float16", slot="column"),
    dict(direction="gradient", slot="element"),
    dict(direction="adam", dtype="bfloat16"),
]


def moves_all(work, run=roof.Roof.run):
    """Whether each variant reads and writes every word of every array once."""
    with limit_threads(work.threads):
        r = roof.Roof(work)
        for variant in roof.VARIANTS:
            r.choose(variant)
            theta, others = r.theta.copy(), [a.copy() for a in r.others]
            read = np.bitwise_xor.reduce([np.bitwise_xor.reduce(words) for words in r.summed])
            run(r)
            if read != np.bitwise_xor.reduce(r.out):
                return False
            if not np.array_equal(r.theta, theta ^ r.g):
                return False
            if not all(np.array_equal(a, b ^ np.uint64(1)) for a, b in zip(r.others, others, strict=True)):
                return False
    return True


@pytest.mark.parametrize("changed", ROOFS)
@pytest.mark.parametrize("size", ["1", "7", "1e3", "100003"])
def test_the_roof_moves_every_byte_once(changed, size):
    work = replace(workloads.parse_size(size), threads=2, **changed)
    assert moves_all(work)
    r = roof.Roof(work)
    moved = r.g.nbytes + 2 * (r.theta.nbytes + sum(a.nbytes for a in r.others))
    moved += sum(a.nbytes for a in r.summed)
    assert 0 <= moved - work.bytes < 3 * 8 * (2 + len(r.others))  # arrays of whole words


def leave_out_tail(r):
    roof.launch(roof.read, r.tasks, r.in_use, (r.g[:-1],), r.out)
    roof.launch(roof.write, r.tasks, r.backward, r.in_use, r.g[:-1], r.theta[:-1], r.others)


def test_a_roof_that_leaves_something_out_would_be_seen():
    work = replace(workloads.parse_size("100003"), threads=2)
    assert not moves_all(work, leave_out_tail)
    assert not moves_all(work, lambda r: None)


def test_one_stream_and_several_are_both_told():
    with limit_threads(2):
        r = roof.Roof(replace(workloads.parse_size("1e4"), threads=2))
    assert set(r.streams) == {streams for *_, streams in roof.VARIANTS}
    assert describe_streams({1: 3.0, 2: 2.0, 4: 2.5}) == dict(used=2, one_over_several=1.5)
    assert describe_streams({1: 1.0, 2: 2.0, 4: 2.5}) == dict(used=1, one_over_several=0.5)
