"""Leaves of a step, with numbers of mixed magnitude, and the page's answer for them."""

import numpy as np
import pytest
from hypothesis import strategies as st
from numba.core import config

from amos_ref import closed_form, spec
from amos_ref.dtypes import round_like
from amos_ref.kernels import load_backend
from amos_ref.optimizers.amos import Amos, Rates
from amos_ref.optimizers.closed_form import ClosedFormAmos, ClosedRates
from amos_ref.optimizers.directions import Adam, Sign
from amos_ref.optimizers.leaf import DirectedLeaf, Leaf, aim, refuse_gradient
from helpers import strategies as own

LONG = [(n,) for n in (0, 1, 2, 127, 128, 129, 1023, 1024, 1025, 8191, 8192, 8193)]


PYTHON = bool(config.DISABLE_JIT)


HYPER = dict(q=0.4, xi=0.3, beta=0.75, clip_value=None, extra_l2=0.05, c_coef=0.3, d_coef=0.4, epsilon=2.0**-125)
CLOSED = dict(shrink=0.4, alpha_0=0.3, q=1.5, beta1=0.7, beta2=0.8, adam_epsilon=0.125, epsilon=2.0**-125, n=3)


def make_leaf(rng, combination, shape, slot, layouts=("C",) * 4, name="w", eta=0.6):
    """theta, g, state and momentum (or moments) in the given layouts, of mixed magnitude; `eta` is sigma too."""
    state_dtype = combination.theta if combination.state == "param" else combination.state
    theta = own.numbers(rng, shape, combination.theta, middle=0, spread=3)
    g = own.numbers(rng, shape, combination.g)
    if combination.direction is not None:
        mean, square = (
            own.numbers(rng, shape, "float64", middle=0, spread=3, signed=signed) for signed in (True, False)
        )
        made = [theta, g] + [mean, square] * (combination.direction == "adam")
        theta, g, *moments = (own.laid_out(a, layout) for a, layout in zip(made, layouts, strict=False))
        word = "gradient" if combination.direction == "gradient" else "direction"
        return DirectedLeaf(name, theta, g, slot, np.array(eta), word, *moments)
    v, b = own.state_arrays(rng, slot, state_dtype)
    m = own.numbers(rng, shape, state_dtype, middle=-2, spread=3) if combination.momentum else None
    theta, g, v, b = (own.laid_out(a, layout) for a, layout in zip((theta, g, v, b), layouts, strict=True))
    return Leaf(name, theta, g, v, b, None if m is None else own.laid_out(m, layouts[0]), eta)


def with_own(leaf):
    """The leaf with numbers of its own."""
    return leaf._replace(own=(0.7, 0.3)[: len(leaf.own)])


def make_rates(combination, **changes):
    if combination.direction is None:
        return Rates(**{**HYPER, "momentum": combination.momentum, **changes})
    o = {**CLOSED, "clip_value": None, **changes}
    adam = Adam.after(o["n"], o["beta1"], o["beta2"], o["adam_epsilon"])
    aims = {"gradient": None, "sign": Sign(), "adam": adam}[combination.direction]
    return ClosedRates(*(o[name] for name in ("shrink", "alpha_0", "q", "epsilon", "clip_value")), aims)


@st.composite
def drawn(draw, combination):
    """``(eta, rates)`` of a step, its numbers drawn."""
    if combination.direction is not None:
        return draw(st.floats(0.1, 3.0)), make_rates(combination, **draw(own.closed_numbers()))
    hyper = draw(own.hyper_parameters(momentum=False))
    eta, t = hyper.pop("eta"), draw(own.steps, label="t")
    hyper |= dict(q=spec.one_minus_power(hyper["beta"], t), momentum=combination.momentum)
    return eta, make_rates(combination, **hyper)


def method_of(leaf, rates):
    """What a member of the family hands to backends for such a leaf."""
    member = Amos if isinstance(leaf, Leaf) else ClosedFormAmos
    chosen = member.method if leaf.own in ((1.0, 0.0), (1.0,)) else member.own_method
    return chosen._replace(direction=None if rates.aims is None else type(rates.aims))


def page(leaf, rates):
    """What the page makes of the leaf: every array that it writes, each rounded once to the dtype that holds it."""
    with np.errstate(all="ignore"):
        after = step_of_paper(leaf, rates) if isinstance(leaf, Leaf) else step_of_closed_form(leaf, rates)
        return {name: round_like(np.asarray(after[name]), old) for name, old in leaf.written().items()}


def step_of_paper(leaf, rates):
    wide = [None if a is None else a.astype(np.float64) for a in (leaf.theta, leaf.g, leaf.v, leaf.b, leaf.m)]
    factor, decay = leaf.own
    numbers = rates._asdict() | dict(xi=rates.xi * factor, extra_l2=rates.extra_l2 + decay)
    return spec.step(*wide, eta=leaf.eta, **numbers)


def step_of_closed_form(leaf, rates):
    """By the pages, but for the directions, which are written here once more."""
    u, m, v = spec.clip(leaf.g.astype(np.float64), rates.chi), leaf.m, leaf.v
    if isinstance(rates.aims, Sign):
        u = np.sign(u)
    if isinstance(rates.aims, Adam):
        beta1, beta2, floor, q1, q2 = rates.aims
        m, v = beta1 * m + (1 - beta1) * u, beta2 * v + (1 - beta2) * (u * u)
        u = m / q1 / (np.sqrt(v / q2) + floor)
    theta = leaf.theta.astype(np.float64)
    shrink, alpha_0, *others = rates.numbers
    shared = shrink, alpha_0 * leaf.own[0], *others
    return closed_form.step(theta, u, float(leaf.sigma), leaf.slot, *shared) | dict(m=m, v=v)


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
    bad = load_backend(backend).prepare(leaves, method_of(leaves[0], rates)).run(rates)
    if bad >= 0:
        leaf = leaves[bad]
        refuse_gradient(f"{leaf.source} of leaf {leaf.name!r}", aim(leaf, rates)[1], np.inf)


def wrap_run(monkeypatch, kind, changed):
    """Let ``changed(leaves, run)`` stand for `run` of a backend's Work; ``run()`` does all, ``run(leaves)`` some."""
    begin, right = kind.__init__, kind.run

    def remember(work, leaves, method):
        work.given = leaves, method
        begin(work, leaves, method)

    def run_changed(work, rates, **launch):
        leaves, method = work.given
        return changed(leaves, lambda some=None: right(work if some is None else kind(some, method), rates, **launch))

    monkeypatch.setattr(kind, "at_once", False)  # as what is changed is not
    monkeypatch.setattr(kind, "__init__", remember)
    monkeypatch.setattr(kind, "run", run_changed)


def check_step(leaf, rates):
    """One step of the CPU kernels in place; every array it writes has the page's bits."""
    ref, g = page(leaf, rates), own.bits(leaf.g)
    step("cpu", [leaf], rates)
    for what, got in leaf.written().items():
        same(got, ref[what], f"{what} of shape {got.shape}, slot {leaf.slot}")
    assert own.bits(leaf.g) == g
