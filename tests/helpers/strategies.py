"""Hypothesis strategies for arrays, slots, layouts and hyper-parameters, and fixed lists that compile few kernels."""

import math
from typing import NamedTuple

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from amos_ref import spec
from amos_ref.conformance.judging.reading import Step

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {"float16": np.dtype("f2"), "bfloat16": BFLOAT16, "float32": np.dtype("f4"), "float64": np.dtype("f8")}
LAYOUTS = ("C", "F", "strided", "negative", "offset", "odd")
# Exponents that keep a number finite and its square away from the ends of float64.
EXPONENTS = {"float16": (-24, 14), "bfloat16": (-133, 126), "float32": (-149, 126), "float64": (-480, 480)}


class Combination(NamedTuple):
    """Dtypes of one leaf; each combination compiles its own kernels, so they are few."""

    theta: str
    g: str
    state: str
    momentum: float | None
    direction: str | None = None  # of the closed form; None for paper Amos


COMBINATIONS = (
    Combination("float64", "float64", "float64", None),
    Combination("float64", "float64", "float64", 0.75),
    Combination("float32", "float32", "float64", 0.9),
    Combination("float32", "float64", "param", None),
    Combination("float16", "float16", "param", 0.9),
    Combination("float16", "bfloat16", "float64", None),
    Combination("bfloat16", "bfloat16", "param", None),
    Combination("bfloat16", "float32", "float64", 0.9),
)
#: The closed form: every direction, and every dtype with and without moments.
DIRECTED = (
    Combination("float64", "float64", "float64", None, "gradient"),
    Combination("float64", "float64", "float64", None, "adam"),
    Combination("float32", "float32", "float64", None, "sign"),
    Combination("float32", "float64", "float64", None, "adam"),
    Combination("float16", "float16", "float64", None, "adam"),
    Combination("float16", "bfloat16", "float64", None, "sign"),
    Combination("bfloat16", "bfloat16", "float64", None, "gradient"),
    Combination("bfloat16", "float32", "float64", None, "adam"),
)
FAMILY = COMBINATIONS + DIRECTED
COMBINATION_IDS = ["-".join(map(str, combination[:4])) for combination in COMBINATIONS]
FAMILY_IDS = COMBINATION_IDS + [f"{c.direction}-{c.theta}-{c.g}" for c in DIRECTED]


def bits(a):
    """The bytes of an array's elements in C order, with its dtype and shape: equal only for equal bits."""
    a = np.asarray(a)
    return a.dtype.name, a.shape, a.tobytes()


def laid_out(a, layout):
    """The same elements in another memory layout."""
    if layout in ("C", "F"):
        return np.array(a, order=layout)
    if layout in ("offset", "odd"):  # contiguous, but begun behind one element, or one byte
        start = {"offset": a.itemsize, "odd": 1}[layout]
        view = np.frombuffer(bytearray(start + a.nbytes), np.uint8)[start:].view(a.dtype).reshape(a.shape)
        view[...] = a
        return view
    stride = {"strided": 2, "negative": -1}[layout]
    base = np.zeros([n * abs(stride) for n in a.shape], a.dtype)
    view = base[(..., *(slice(None, None, stride) for _ in a.shape))]
    view[...] = a
    return view


def numbers(rng, shape, name, *, spread=8, middle=None, signed=True, zeros=0.1):
    """Numbers of mixed magnitude around 2**middle, some of them 0 of either sign."""
    low, high = EXPONENTS[name]
    middle = rng.integers(low, high + 1) if middle is None else middle
    exponents = np.clip(middle + rng.integers(-spread, spread + 1, shape), low, high)
    x = np.ldexp(1.0 + rng.random(shape), exponents) * (rng.random(shape) >= zeros)
    if signed:
        x = x * rng.choice([-1.0, 1.0], shape)
    return np.asarray(spec.round_to(np.asarray(x), DTYPES[name]))


def shapes(max_side=6, max_dims=4):
    """0-d to 4-d; sides 0 and 1 come up often enough to be met together with longer ones."""
    side = st.one_of(st.integers(1, max_side), st.integers(0, max_side))
    return st.lists(side, max_size=max_dims).map(tuple)


@st.composite
def slots(draw, shape):
    """A slot shape that broadcasts to `shape`: axes kept or of size 1, leading axes of size 1 perhaps left out."""
    aligned = tuple(n if draw(st.booleans()) else 1 for n in shape)
    leading = next((k for k, n in enumerate(aligned) if n != 1), len(aligned))
    return aligned[draw(st.integers(0, leading)) :]


layouts = st.sampled_from(LAYOUTS)
seeds = st.integers(0, 2**32 - 1)
dtype_names = st.sampled_from(list(DTYPES))
steps = st.one_of(st.integers(1, 20), st.integers(1, 2**33))


def _inside(low, high):
    return st.floats(low, high, allow_subnormal=False).filter(lambda x: x != 1.0)


@st.composite
def hyper_parameters(draw, momentum=True):
    """All numbers of a step but q; none of them at a value (1, 0) that would hide a branch."""
    return dict(
        xi=draw(_inside(1e-3, 0.9), label="xi"),
        eta=draw(_inside(0.05, 3.0), label="eta"),
        beta=draw(_inside(0.1, 0.9999), label="beta"),
        momentum=draw(_inside(0.1, 0.95), label="momentum") if momentum else None,
        clip_value=draw(st.none() | _inside(1e-3, 1e3), label="clip_value"),
        extra_l2=draw(_inside(1e-4, 0.2), label="extra_l2"),
        c_coef=draw(_inside(0.05, 0.9), label="c_coef"),
        d_coef=draw(_inside(0.05, 0.9), label="d_coef"),
        epsilon=draw(st.sampled_from([2.0**-125, 2.0**-4, 1e-8]), label="epsilon"),
    )


@st.composite
def closed_numbers(draw):
    """All numbers of a step of the closed form, by the names of its options; none at a value that hides a branch."""
    return dict(
        shrink=draw(_inside(1e-3, 0.9), label="shrink"),
        alpha_0=draw(_inside(1e-3, 0.9), label="alpha_0"),
        q=draw(_inside(0.5, 3.0), label="q"),
        beta1=draw(_inside(0.1, 0.99), label="beta1"),
        beta2=draw(_inside(0.1, 0.9999), label="beta2"),
        adam_epsilon=draw(st.sampled_from([1e-8, 2.0**-4]), label="adam_epsilon"),
        clip_value=draw(st.none() | _inside(1e-3, 1e3), label="clip_value"),
        epsilon=draw(st.sampled_from([2.0**-125, 2.0**-4, 1e-8]), label="epsilon"),
        n=draw(steps, label="n"),
    )


@st.composite
def gradients(draw, shape, name):
    """Finite numbers of one magnitude, drawn anywhere in the range of the dtype."""
    low, high = EXPONENTS[name]
    middle = draw(st.integers(low, high), label="exponent")
    return numbers(np.random.default_rng(draw(seeds, label="seed")), shape, name, middle=middle)


def state_arrays(rng, slot_shape, dtype_name):
    """v and b as an earlier step could have left them; b from 0 to large enough for c and d to matter."""
    v = numbers(rng, slot_shape, dtype_name, middle=0, signed=False)
    b = numbers(rng, slot_shape, dtype_name, middle=int(rng.integers(-6, 6)), spread=3, signed=False)
    return v, b


def size(shape):
    return math.prod(shape)


def step_of(leaf, rates, t, after):
    """A step of a leaf as error bounds take it: what stood before, the rates, and what the page made of them."""
    before = {"old_theta": leaf.theta, "old_v": leaf.v, "old_b": leaf.b, "old_m": leaf.m}
    return Step(name=leaf.name, t=t, eta=leaf.eta, **before, **rates._asdict(), **after)
