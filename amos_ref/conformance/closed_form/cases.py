"""The table of cases on which a port of the closed form runs beside the page.

As in conformance/cases.py: dyadic options, no square matrix, zeros in theta and in g, rows of another scale each.
alpha_0 is large, so that the decay alpha_0^2 / (2q) shows beside the step; half-lives are short, so that exp(-2S) does.
"""

import functools
import zlib
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from amos_ref.conformance import extremes, life, ways
from amos_ref.conformance.cases import Arrays, Case, draw, fewer_axes, freeze, refine, round_case
from amos_ref.conformance.closed_form.life import LIVES

_GIVEN = {"alpha_0": 0.25, "half_life": 4.0}
_BY_ADAM = {"direction": "adam", "beta1": 0.5, "beta2": 0.75, "adam_epsilon": 2.0**-6}
_BY_COSINE = {"half_life": None, "p_0": 0.5}  # p_0 instead of half_life
_BY_ROW, _BY_COLUMN = {"kernel": (6, 1)}, {"kernel": (1, 5)}
_case: Callable[..., Case] = functools.partial(draw, base=_GIVEN, algorithm="closed-form")


def table() -> list[Case]:
    """Return all cases; the arrays are read-only: in float64 and float32, and some in bfloat16 and float16."""
    return list(_table())


@functools.cache
def _table() -> tuple[Case, ...]:
    cases = [*_plans(), *_scales(), *_directions(), *_gradients(), *_shapes(), *_late()]
    low = [case for case in cases if case.name in _IN_LOW_PRECISION]
    spoilt = extremes.not_finite(_case)
    found = (
        *(case._replace(dtype=dtype) for case in cases for dtype in ("float64", "float32")),
        *map(refine, _full()),
        *(round_case(case, dtype) for case in low for dtype in ("bfloat16", "float16")),
        *(case._replace(dtype=dtype) for case in (*spoilt, *_broken_moments()) for dtype in ("float64", "float32")),
        *extremes.in_dtypes(map(_may_stay, extremes.counted(_case, _slow))),
        *life.cases(_case, LIVES),
        *ways.cases(_case, LIVES),
    )
    for case in found:
        freeze(case)
    return found


#: What is run in float16 and bfloat16 too.
_IN_LOW_PRECISION = (
    *("plain", "decayed", "q-large", "p_0", "inverse-square", "sigma-init", "sigma-init-special", "adam", "sign"),
    *("clip", "epsilon", "epsilon-reached", "zero-gradients", "none-gradient", "3-d", "slots-rows", "slots-columns"),
    *("slots-element", "adam-rows", "adam-aged", "late", "everything"),
)


def _plans() -> list[Case]:
    """The schedule: decay, half_life or p_0, and q."""
    return [
        _case("plain", "the update itself, long enough for exp(-2S) to show"),
        _case("decayed", "16 large steps with a short half-life", steps=16, alpha_0=0.5, half_life=2.0),
        _case("defaults", "alpha_0 0.001 and a half-life of 1000, as people run it", alpha_0=1e-3, half_life=1000.0),
        _case("q-small", "decay over 2q, with q below 1", q=0.5),
        _case("q-large", "decay over 2q, with q above 1", q=3.0, alpha_0=0.5),
        _case("p_0", "the cosine in the place of a half-life: 1/(1 + 2 alpha_0 p_0 t)", **_BY_COSINE),
        _case("inverse-square", "1/(1 + x)^2, 1/2 at the half-life", decay="inverse-square"),
        _case("inverse-square-p_0", "1/(1 + alpha_0 p_0 t)^2", decay="inverse-square", **_BY_COSINE),
        _case("recurrence", "S summed step by step, for a falling p", decay="recurrence", half_life=1.5),
        _case("recurrence-p_0", "S summed from p_0", steps=12, decay="recurrence", **_BY_COSINE | {"p_0": 0.75}),
        _case("recurrence-constant", "S summed for a constant p", decay="recurrence", p_t="constant", half_life=1.5),
        _case(
            "recurrence-constant-p_0",
            "S summed from p_0, constant",
            steps=12,
            decay="recurrence",
            p_t="constant",
            **_BY_COSINE | {"alpha_0": 0.5},
        ),
        _case("long", "64 steps: alpha and rho fall alike", steps=64, half_life=16.0, q=0.75),
    ]


def _scales() -> list[Case]:
    """Sigma: given for each leaf, or measured."""
    measured = {"sigma": "init"}
    special = {"kernel": (6, 5), "zeros": (4, 3), "ones": (5,), "twos": (3, 2), "minus": (4,), "number": (), "zero": ()}
    values = {
        "zeros": np.zeros((4, 3)),
        "ones": np.ones(5),
        "twos": np.full((3, 2), 2.0),
        "minus": np.full(4, -1.0),
        "number": np.array(3.0),
        "zero": np.array(0.0),
    }
    shifted = _case("sigma-init-shifted", "entries far from 0: root mean square, no deviation", **measured)
    few = _case("sigma-init-few", "two entries and three", {"pair": (2,), "three": (3, 1)}, **measured)
    return [
        _case("sigma-init", "sigma measured from the initial entries", **measured),
        _with(_case("sigma-init-special", "0.5 for zeros and ones, and for nothing else", special, **measured), values),
        shifted._replace(params={name: a + 4.0 for name, a in shifted.params.items()}),
        _with(few, {"pair": np.array([0.0, 1.0]), "three": np.array([[1.0], [2.0], [-3.0]])}),
        _case("sigma-init-rows", "one sigma for all slots of an array", slots=_BY_ROW, **measured),
        _case("sigma-init-adam", "measured, with Adam's direction", q=0.5, **measured, **_BY_ADAM),
    ]


def _directions() -> list[Case]:
    return [
        _case("sign", "the sign of the gradient, 0 of 0", direction="sign"),
        _case("sign-rows", "signs, one slot a row", slots=_BY_ROW, direction="sign"),
        _case("adam", "Adam's direction: m and v of t + 1 gradients", **_BY_ADAM),
        _case("adam-long", "24 steps of Adam's direction", steps=24, **_BY_ADAM | {"beta1": 0.875, "beta2": 0.9375}),
        _case("adam-defaults", "Adam with its usual numbers",
              direction="adam", beta1=0.9, beta2=0.999, adam_epsilon=1e-8),
        _case("adam-epsilon", "adam_epsilon beside the root of v", scale=lambda t: 2.0**-4,
              **_BY_ADAM | {"adam_epsilon": 0.25}),
        _case("adam-epsilon-reached", "u2 below epsilon: the size of u counts", scale=lambda t: 2.0**-6,
              epsilon=0.25, **_BY_ADAM | {"adam_epsilon": 0.25}),
        _case("adam-none", "a leaf skips gradients, the count goes on", absent={"bias": (2, 3)}, **_BY_ADAM),
        _case("adam-none-at-first", "a leaf's first gradient comes at the fifth step",
              absent={"kernel": (1, 2, 3, 4)}, **_BY_ADAM),
        _case("adam-rows", "Adam, one slot a row", slots=_BY_ROW, **_BY_ADAM),
        _case("adam-clip", "clipped before Adam averages", scale=lambda t: 2.0, clip_value=0.5, **_BY_ADAM),
        _case("adam-tiny-gradients", "gradients of 2^-52 with an adam_epsilon below them",
              scale=lambda t: 2.0**-52, **_BY_ADAM | {"adam_epsilon": 2.0**-60}),
        _case("adam-zeros-follow", "gradients vanish: Adam goes on", scale=lambda t: float(t < 4), **_BY_ADAM),
        _aged("adam-aged", "from moments and parameters that are set", **_BY_ADAM),
    ]  # fmt: skip


def _gradients() -> list[Case]:
    return [
        _case("clip", "elementwise, before the mean", scale=lambda t: 2.0, clip_value=0.5),
        _case("clip-rows", "clipped, one slot a row, where changes are larger than clip_value",
              slots=_BY_ROW, scale=lambda t: 2.0, clip_value=0.25, alpha_0=0.5),
        _case("epsilon", "max(u2, epsilon), not u2 + epsilon", scale=lambda t: 0.25, epsilon=0.0625, slots=_BY_ROW),
        _case("epsilon-reached", "u2 below epsilon: epsilon divides", scale=lambda t: 2.0**-6, epsilon=0.0625),
        _case("tiny-gradients", "gradients of 2^-52 steer as well as those of 1", scale=lambda t: 2.0**-52),
        _case("huge-gradients", "gradients of 2^40", scale=lambda t: 2.0**40),
        _case("zero-gradients", "no direction: decay alone", scale=lambda t: 0.0),
        _case("zeros-follow", "gradients vanish from the fourth step on", scale=lambda t: float(t < 4)),
        _case("none-gradient", "a leaf skips two steps, the count goes on", absent={"bias": (2, 3)}),
        _case("none-at-first", "a leaf's first gradient comes at the fifth step", absent={"kernel": (1, 2, 3, 4)}),
        _case("everything", "all options at once", slots=_BY_ROW, q=0.75, clip_value=1.0, epsilon=2.0**-8,
              decay="inverse-square", **_BY_COSINE, **_BY_ADAM),
    ]  # fmt: skip


def _shapes() -> list[Case]:
    return [
        _case("0-d", "a single number", {"x": ()}),
        _case("1-d", "a vector", {"x": (7,)}),
        _case("3-d", "three axes", {"x": (2, 5, 3)}),
        _case("4-d", "four axes", {"x": (3, 2, 4, 5)}),
        _case("size-one", "axes of one entry", {"x": (1, 6, 1)}),
        _case("slots-rows", "one slot a row", slots=_BY_ROW),
        _case("slots-columns", "one slot a column", slots=_BY_COLUMN),
        _case("slots-conv", "one slot a channel", {"x": (3, 2, 4, 5)}, {"x": (1, 1, 1, 5)}),
        _case("slots-mixed", "axes 0 and 2 averaged", {"x": (3, 2, 4, 5)}, {"x": (1, 2, 1, 5)}),
        _case("slots-element", "one slot an entry", slots={"kernel": (6, 5), "bias": (5,)}),
        *fewer_axes(_case),
    ]


def _full() -> list[Case]:
    return [
        _case("full-significands", "numbers that float32 does not hold"),
        _case("full-significands-adam", "numbers that float32 does not hold, averaged", **_BY_ADAM),
        _case("full-significands-sigma", "sigma measured in such numbers", sigma="init"),
    ]


def _late() -> list[Case]:
    """Cases whose count is set to 1000 after the first step."""
    late = {
        "late": ("t = 1000", {"half_life": 64.0}),
        "late-inverse-square": ("t = 1000, with a constant cosine", {"half_life": 64.0, "decay": "inverse-square"}),
        "late-recurrence": ("S after 1000 steps", {"half_life": 64.0, "decay": "recurrence"}),
        "late-p_0": ("t = 1000 from p_0", {**_BY_COSINE, "p_0": 2.0**-6, "q": 0.5}),
    }
    return [_case(name, about, steps=4, **options)._replace(count=1000) for name, (about, options) in late.items()]


def _with(case: Case, values: Arrays) -> Case:
    return case._replace(params=case.params | values)


def _aged(name: str, about: str, **options: Any) -> Case:
    """A case whose theta, m and v are set after the first step."""
    made = _case(name, about, steps=3, **options)
    bits = np.random.PCG64(zlib.crc32(f"{name} state".encode()))
    words = {leaf: bits.random_raw(a.size).reshape(a.shape) % np.uint64(8) for leaf, a in made.params.items()}
    parts = {
        "theta": {leaf: word.astype(float) / 4.0 - 1.0 for leaf, word in words.items()},
        "m": {leaf: 0.5 - word.astype(float) / 16.0 for leaf, word in words.items()},
        "v": {leaf: 2.0 ** -(word % np.uint64(4)).astype(float) for leaf, word in words.items()},
    }
    return made._replace(inject=parts)


def _slow(n: int) -> dict[str, Any]:
    """Options under which the schedule shows a count of n."""
    return {"half_life": float(n) / 4.0}


def _may_stay(case: Case) -> Case:
    """A counter of 32 bits may stay at its largest number, as optax's does; the plan shows even that."""
    stays = {"stays at 2^31 - 1": {"t": lambda s, page: min(page(s), 2**31 - 1)}}
    return case._replace(also=stays) if case.name == "count-2^31" else case


def _broken_moments() -> list[Case]:
    """A gradient of NaN, which Adam's moments keep."""
    case = _case("nan-adam", "a gradient of NaN stays in m and v", steps=5, **_BY_ADAM)
    case.grads[2]["bias"].flat[2] = np.nan  # type: ignore[union-attr]
    return [case]


def random_case(seed: int, options: Collection[str]) -> Case:
    """Return a float64 case with some of these options switched on and dyadic numbers drawn for them."""
    name = f"further-closed-{seed}"
    words = iter(np.random.PCG64(zlib.crc32(name.encode())).random_raw(64) >> np.uint64(40))

    def one_of(*choices: Any) -> Any:
        return choices[int(next(words)) % len(choices)]

    drawn: dict[str, Any] = {
        "q": one_of(0.5, 0.75, 2.0, 3.0),
        "clip_value": one_of(2.0**-5, 0.5, 1.0),
        "epsilon": one_of(2.0**-4, 2.0**-2, 2.0**-8),
        "decay": one_of("inverse-square", "recurrence"),
        "p_t": "constant",
        "direction": one_of("sign", "adam", "adam"),
        "sigma": "init",
    }
    drawn = {option: value for option, value in drawn.items() if option in options and one_of(True, False)}
    if drawn.get("decay") != "recurrence":
        drawn.pop("p_t", None)
    adam = {"beta1": one_of(0.5, 0.75), "beta2": one_of(0.75, 0.875), "adam_epsilon": one_of(2.0**-8, 2.0**-2)}
    if drawn.get("direction") == "adam":
        drawn |= {option: value for option, value in adam.items() if option in options}
    plan = one_of({"half_life": one_of(1.5, 3.0, 5.0)}, {**_BY_COSINE, "p_0": one_of(0.25, 0.75)})
    if len({"p_0", "half_life"} & set(options)) == 1:
        plan = {**_BY_COSINE} if "p_0" in options else {"half_life": 3.0}
    shapes = one_of(None, {"kernel": (4, 7), "bias": (7,)}, {"kernel": (2, 3, 4)}, {"a": (5, 2), "b": (3,), "c": ()})
    slots = {}
    for leaf, shape in (shapes or {"kernel": (6, 5), "bias": (5,)}).items() if "slot_shape" in options else ():
        kept = one_of(0, int(next(words))) % 2 ** len(shape)  # the axes that have a slot for each index
        slots[leaf] = tuple(n if kept >> axis & 1 else 1 for axis, n in enumerate(shape)) if kept else ()
    size, grow = one_of(0.125, 1.0, 4.0), one_of(0.5, 1.0, 2.0)
    alpha_0 = one_of(0.5, 0.25, 0.125)
    made = _case(name, "drawn", shapes, slots, 6, lambda t: size * grow**t, alpha_0=alpha_0, **plan | drawn)
    return made._replace(eta={leaf: one_of(0.125, 0.375, 0.75, 2.0) for leaf in made.eta})
