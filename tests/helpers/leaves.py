"""Leaves of a step, with numbers of mixed magnitude, and the page's answer for them."""

import numpy as np
import pytest
from numba.core import config

from amos_ref import spec
from amos_ref.kernels import load_backend
from amos_ref.optimizers.amos import Amos, Rates
from amos_ref.optimizers.leaf import Leaf, refuse_gradient
from helpers import strategies as own

LONG = [(n,) for n in (0, 1, 2, 127, 128, 129, 1023, 1024, 1025, 8191, 8192, 8193)]


PYTHON = bool(config.DISABLE_JIT)


HYPER = dict(q=0.4, xi=0.3, beta=0.75, clip_value=None, extra_l2=0.05, c_coef=0.3, d_coef=0.4, epsilon=2.0**-125)


def make_leaf(rng, combination, shape, slot, layouts=("C",) * 4, name="w", eta=0.6):
    """theta, g, state and momentum in the given layouts, of mixed magnitude."""
    state_dtype = combination.theta if combination.state == "param" else combination.state
    theta = own.numbers(rng, shape, combination.theta, middle=0, spread=3)
    g = own.numbers(rng, shape, combination.g)
    v, b = own.state_arrays(rng, slot, state_dtype)
    m = own.numbers(rng, shape, state_dtype, middle=-2, spread=3) if combination.momentum else None
    theta, g, v, b = (own.laid_out(a, layout) for a, layout in zip((theta, g, v, b), layouts, strict=True))
    return Leaf(name, theta, g, v, b, None if m is None else own.laid_out(m, layouts[0]), eta)


def make_rates(combination, **changes):
    return Rates(**{**HYPER, "momentum": combination.momentum, **changes})


def page(leaf, rates):
    """What the page makes of the leaf: theta, v, b, m, each rounded once to the dtype that holds it."""
    wide = [None if a is None else a.astype(np.float64) for a in (leaf.theta, leaf.g, leaf.v, leaf.b, leaf.m)]
    with np.errstate(all="ignore"):
        after = spec.step(*wide, eta=leaf.eta, **rates._asdict())
        return [
            None if old is None else np.asarray(spec.round_to(np.asarray(after[key]), old.dtype))
            for key, old in zip(("theta", "v", "b", "m"), (leaf.theta, leaf.v, leaf.b, leaf.m), strict=True)
        ]


def same(got, ref, what):
    if own.bits(got) == own.bits(ref):
        return
    assert (got.dtype, got.shape) == (ref.dtype, ref.shape), what
    # The sign and payload of a NaN are not the page's to define.
    differ = ~(np.isnan(got) & np.isnan(ref)) & ((got != ref) | (np.signbit(got) != np.signbit(ref)))
    for i in map(tuple, np.argwhere(differ)):
        pytest.fail(f"{what}: out[{i}]={got[i]!r}, but should be {ref[i]!r}")


EDGES = [
    *((shape, ()) for shape in LONG),
    *((shape, shape) for shape in (LONG[:9] if PYTHON else LONG)),
    *(((2, *shape), (2, 1)) for shape in LONG),
    *(((rows, 3), (3,)) for rows in (1, 63, 64, 65, 127, 128, 129)),
    *(((2, columns), (1, columns)) for columns in (1, 127, 1023, 1024, 1025, 2047, 2048, 2049)),
    *(((rows, 1), slot) for rows in (1, 64, 200) for slot in ((rows, 1), (1, 1))),
    ((3, 0), (3, 1)),
    ((0, 3), (1, 3)),
    ((3, 65, 2, 3), (3, 1, 2, 1)),
    ((65, 2, 129), (1, 2, 1)),
    ((2, 65, 3), (2, 1, 3)),
    ((130, 2, 3, 4), (1, 2, 1, 4)),
    ((130, 2, 9), (1, 2, 1)),
    *(((rows, columns), (1, columns)) for rows in (3, 4, 7, 8, 13) for columns in (1024, 1025)),  # four, eight at once
]


LARGE = [
    ((3 * 8192 + 1,), ()),
    ((130 * 8192 + 5,), ()),
    ((3, 32769), (3, 1)),
    ((2, 65537), ()),
    ((40000, 2), (40000, 1)),
    ((4097, 9), (9,)),
    ((8400, 3), (1, 3)),
    ((40, 1025), (1, 1025)),
    ((33, 2049), (33, 2049)),
    ((2, 4100, 20), (2, 1, 20)),
    ((67, 2049), (1, 2049)),
    ((2, 130, 2050), (2, 1, 2050)),
    ((1, 50000), (50000,)),
]


def step(backend, leaves, rates):
    """Advance leaves in place, or raise NonFiniteError with nothing written."""
    bad = load_backend(backend).prepare(leaves, Amos.method).run(rates)
    if bad >= 0:
        refuse_gradient(f"{leaves[bad].source} of leaf {leaves[bad].name!r}", leaves[bad].g, rates.chi)


def wrap_run(monkeypatch, kind, changed):
    """Let ``changed(leaves, run)`` stand for `run` of a backend's Work; ``run()`` does all, ``run(leaves)`` some."""
    begin, right = kind.__init__, kind.run

    def remember(work, leaves, method):
        work.given = leaves, method
        begin(work, leaves, method)

    def run_changed(work, rates, **launch):
        leaves, method = work.given
        return changed(leaves, lambda some=None: right(work if some is None else kind(some, method), rates, **launch))

    monkeypatch.setattr(kind, "__init__", remember)
    monkeypatch.setattr(kind, "run", run_changed)


def check_step(leaf, rates):
    """One step of the CPU kernels in place; every array it writes has the page's bits."""
    ref, g = page(leaf, rates), own.bits(leaf.g)
    step("cpu", [leaf], rates)
    for (what, got), want in zip(leaf.written().items(), (a for a in ref if a is not None), strict=True):
        same(got, want, f"{what} of shape {got.shape}, slot {leaf.v.shape}")
    assert own.bits(leaf.g) == g
