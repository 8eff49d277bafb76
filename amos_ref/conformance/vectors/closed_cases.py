"""The cases of the closed form that are stored as vectors.

As the judge's: dyadic options, no square matrix, zeros among the parameters and gradients, rows of another scale each.
alpha_0 is large, so that rho shows beside alpha; half-lives are short, so that exp(-2 S) does. q and sigma are not 1.
"""

from typing import Any

import numpy as np

from amos_ref.conformance.cases import Case, draw, round_case
from amos_ref.conformance.vectors.cases import (
    NOTES,
    STEP,
    TINIEST,
    Note,
    VectorCase,
    any_gradient,
    fits,
    has_option,
)

_LONG_RUN = 1000
_VECTOR_BASE: dict[str, Any] = {"alpha_0": 0.25, "half_life": 4.0, "q": 0.75}
_VECTOR_ADAM: dict[str, Any] = {"direction": "adam", "beta1": 0.5, "beta2": 0.75, "adam_epsilon": 2.0**-6}
_COSINE: dict[str, Any] = {"half_life": None, "p_0": 0.5}  # p_0 in the place of half_life
_MEASURED: dict[str, Any] = {"sigma": "init"}
_BY_ROW, _BY_COLUMN = {"kernel": (6, 1)}, {"kernel": (1, 5)}


def closed_cases(dtype: str) -> list[VectorCase]:
    """Return the cases of a dtype, in the order of the file."""
    cases = [*_plans(), *_directions(), *_scales(), *_gradients(), *_shapes()]
    found = [VectorCase(round_case(case, dtype), _all(case)) for case in cases if fits(case, dtype)]
    found += [*_edges(dtype), *_late(dtype), *_refusals(dtype)]
    return [*found, *_long(dtype)] if dtype in ("float64", "float32") else found


def _all(case: Case) -> tuple[int, ...]:
    return tuple(range(len(case.grads)))


def _draw(name: str, about: str, *shapes: Any, **rest: Any) -> Case:
    """Draw a case of three steps; an option of None is left out."""
    given = {"steps": 3, "base": _VECTOR_BASE, "algorithm": "closed-form"} | rest
    return draw(f"closed-{name}", about, *shapes, **given)


def _one(name: str, about: str, dtype: str, theta: Any, *grads: Any, slot: tuple[int, ...] = (), **given: Any) -> Case:
    """A case of one leaf, "x", of sigma 0.5."""
    params = {"x": np.asarray(theta, np.float64)}
    sigma = given.pop("scale", 0.5)
    options = {key: x for key, x in (_VECTOR_BASE | given).items() if x is not None}
    drawn: list[Any] = [{"x": np.asarray(g, np.float64)} for g in grads]
    own: dict[str, Any] = {"dtype": dtype, "algorithm": "closed-form"}
    return Case(f"closed-{name}", about, params, drawn, options, {"x": sigma}, {"x": slot}, **own)


def _plans() -> list[Case]:
    square, summed, constant = {"decay": "inverse-square"}, {"decay": "recurrence"}, {"p_t": "constant"}
    return [
        _draw("plain", "the update itself, as far as the half-life", steps=5),
        _draw("half-life", "large steps with a short half-life", steps=7, alpha_0=0.5, half_life=1.5),
        _draw("defaults", "alpha_0 0.001, q 1 and a half-life of 1000", alpha_0=1e-3, half_life=1000.0, q=1.0),
        _draw("p_0", "the cosine instead of a half-life: 1/(1 + 2 alpha_0 p_0 t)", **_COSINE),
        _draw("square", "1/(1 + x)^2, which is 1/2 at the half-life", steps=6, **square),
        _draw("square-p_0", "1/(1 + alpha_0 p_0 t)^2", **square, **_COSINE),
        _draw("recurrence", "S summed step by step for a falling p", steps=6, half_life=1.5, **summed),
        _draw("recurrence-p_0", "S summed from p_0", **summed, **_COSINE),
        _draw("recurrence-constant", "S summed for a constant p", steps=6, half_life=1.5, **summed, **constant),
        _draw("recurrence-constant-p_0", "S summed from a constant p_0", **summed, **constant, **_COSINE),
        _draw("q", "decay over 2q, with q above 1", alpha_0=0.5, q=3.0),
    ]


def _directions() -> list[Case]:
    usual = {"beta1": 0.9, "beta2": 0.999, "adam_epsilon": 1e-8}
    return [
        _draw("sign", "the sign of the gradient, 0 of 0", direction="sign"),
        _draw("sign-rows", "signs, one slot a row", slots=_BY_ROW, direction="sign"),
        _draw("adam", "Adam's direction: m and v of t + 1 gradients", steps=6, **_VECTOR_ADAM),
        _draw("adam-defaults", "Adam with its usual numbers", **_VECTOR_ADAM | usual),
        _draw("adam-epsilon", "adam_epsilon beside the root of v", scale=lambda t: 2.0**-6, **_VECTOR_ADAM),
        _draw("adam-columns", "Adam, one slot a column", slots=_BY_COLUMN, **_VECTOR_ADAM),
        _draw(
            "adam-none", "a leaf skips t = 1 and 2, the count goes on", steps=5, absent={"bias": (2, 3)}, **_VECTOR_ADAM
        ),
        _draw(
            "adam-zeros-follow", "gradients vanish, Adam goes on", steps=5, scale=lambda t: float(t < 4), **_VECTOR_ADAM
        ),
        _draw("adam-square", "Adam with a constant p", decay="inverse-square", **_VECTOR_ADAM),
    ]


def _scales() -> list[Case]:
    special = {
        "constant": np.full((3, 2), 2.0**-9),
        "minus": np.full(4, -1.0),
        "number": np.array(3.0),
        "ones": np.ones(5),
        "one": np.array(1.0),
        "two": np.array([0.0, 1.0]),
        "zeros": np.zeros((4, 3)),
    }
    made = _draw(
        "init-special", "0.5 for zeros and ones alone", {name: a.shape for name, a in special.items()}, **_MEASURED
    )
    return [
        _draw("init", "sigma is the root mean square of the initial entries", **_MEASURED),
        made._replace(params=special),
        _draw("init-rows", "one sigma for all slots of an array", slots=_BY_ROW, **_MEASURED),
        _draw("init-adam", "sigma of the initial entries, with Adam's direction", **_MEASURED, **_VECTOR_ADAM),
    ]


def _gradients() -> list[Case]:
    return [
        _draw("epsilon", "max(u2, epsilon), not u2 + epsilon", scale=lambda t: 0.5, epsilon=0.0625, slots=_BY_ROW),
        _draw("epsilon-reached", "u2 below epsilon: epsilon divides", scale=lambda t: 2.0**-6, epsilon=0.0625),
        _draw("clip", "elementwise, before the mean", scale=lambda t: 2.0, clip_value=0.5),
        _draw("clip-adam", "before m and v", scale=lambda t: 2.0, clip_value=0.5, slots=_BY_ROW, **_VECTOR_ADAM),
        _draw("tiny-gradients", "gradients of 2^-52 steer as well as those of 1", scale=lambda t: 2.0**-52),
        _draw("huge-gradients", "gradients of 2^40", scale=lambda t: 2.0**40),
        _draw("zero-gradients", "no direction: decay alone", scale=lambda t: 0.0),
        _draw("none-gradient", "a leaf skips t = 1 and 2, the count goes on", steps=5, absent={"bias": (2, 3)}),
        _draw("none-at-first", "a leaf's first gradient comes at t = 2", steps=4, absent={"kernel": (1, 2)}),
    ]


def _shapes() -> list[Case]:
    return [
        _draw("0-d", "a single number", {"x": ()}),
        _draw("1-d", "a vector", {"x": (7,)}),
        _draw("3-d", "three axes", {"x": (2, 5, 3)}),
        _draw("size-one", "axes of one entry", {"x": (1, 6, 1)}),
        _draw("slots-rows", "one slot a row", slots=_BY_ROW),
        _draw("slots-columns", "one slot a column", slots=_BY_COLUMN),
        _draw("slots-mixed", "axes 0 and 2 averaged", {"x": (3, 2, 4, 5)}, {"x": (1, 2, 1, 5)}, steps=2),
        _draw("slots-element", "one slot an entry", slots={"kernel": (6, 5), "bias": (5,)}),
    ]


def _edges(dtype: str) -> list[VectorCase]:
    least = np.ldexp(1.0, TINIEST[dtype])
    g = np.array([0.25, 1.0, 0.0])
    small, also, steep = least * np.array([[1, 3, 0], [2, 1, 0], [5, 0, -7]])
    none = np.zeros((0, 3))
    cases = [
        _one("subnormal", "subnormal parameters and gradients", dtype, small, steep, also),
        _one("subnormal-theta", "subnormal parameters alone", dtype, small, 0 * g, g),
        _one("inf-clipped", "an infinite gradient is clipped", dtype, g, [np.inf, 0.5, -np.inf], g, clip_value=2.0),
        _one("empty", "no entries: the mean of none is 0", dtype, none, none, slot=(1, 3), **_VECTOR_ADAM),
        _one("init-empty", "sigma of no entries is 0.5", dtype, none, none, slot=(1, 3), **_MEASURED),
        _one("empty-slots", "no entries and no slots", dtype, none, none, slot=(0, 1)),
    ]
    return [VectorCase(case, _all(case)) for case in cases]


def _late(dtype: str) -> list[VectorCase]:
    """Cases whose count is set after the first step."""
    theta, grads = [0.5, 0.0, -1.5, 2.0], [[0.25, 1.0, 0.0, -0.5], [-1.0, 0.5, 0.25, 0.0], [0.0, -0.75, 1.5, 0.5]]
    ways: dict[str, tuple[int, dict[str, Any]]] = {
        "late": (10**6, {"half_life": 2.0**20}),
        "late-square": (10**12, {"half_life": 2.0**40, "decay": "inverse-square"}),
        "late-recurrence": (10**12, {"half_life": 2.0**40, "decay": "recurrence"}),
        "late-adam": (10**12, {"half_life": 2.0**40, **_VECTOR_ADAM}),
    }
    found = []
    for name, (count, own) in ways.items():
        case = _one(name, f"the count goes from 1 to {count}", dtype, theta, *grads, **own)._replace(count=count)
        found.append(VectorCase(case, (0, count, count + 1)))
    return found


def _long(dtype: str) -> list[VectorCase]:
    cycle = [[0.5, -1.0], [0.25, 0.0], [-1.5, 0.5], [0.75, 2.0]]
    ways: dict[str, dict[str, Any]] = {
        "long": {"half_life": 64.0},
        "long-adam": {"half_life": 64.0, "decay": "inverse-square", **_VECTOR_ADAM},
    }
    made = [
        _one(name, "a thousand steps", dtype, [1.0, -0.5], *cycle * (_LONG_RUN // len(cycle)), **own)
        for name, own in ways.items()
    ]
    return [VectorCase(case, (0, 9, 99, _LONG_RUN - 1), len(cycle)) for case in made]


def _refusals(dtype: str) -> list[VectorCase]:
    theta, g = [0.5, 0.0, -1.5], [0.25, 1.0, 0.0]
    nan, inf = [0.5, np.nan, -1.5], [0.5, 1.0, -np.inf]

    def case(error: str, name: str, about: str, theta: Any = theta, g: Any = g, **given: Any) -> VectorCase:
        return VectorCase(_one(name, about, dtype, theta, g, **given), (0,), 0, error)

    cases = [
        case("non-finite", "nan-gradient", "a NaN among the gradients", g=nan),
        case("non-finite", "nan-sign", "the sign of a NaN is no direction", g=nan, direction="sign"),
        case("non-finite", "inf-adam", "an infinite gradient stays out of m and v", g=inf, **_VECTOR_ADAM),
        case("non-finite", "nan-theta", "a NaN among the parameters at the start", theta=nan),
        case("non-finite", "inf-theta", "an infinite parameter at the start", theta=inf, **_MEASURED),
    ]
    if dtype != "float64":
        return cases
    return [
        *cases,
        case("non-finite", "overflow", "a finite gradient whose square overflows", g=[0.5, 2.0**600, 1.0]),
        case("range", "alpha_0-one", "alpha_0 = 1: a step as long as the whole way", alpha_0=1.0),
        case("range", "alpha_0-zero", "alpha_0 = 0 never moves", alpha_0=0.0),
        case("range", "q-small", "q of alpha_0^2/2: weights decay to 0 at once", alpha_0=0.5, q=0.125),
        case("range", "q-negative", "a q below 0 makes weights grow", q=-0.75),
        case("range", "half_life-zero", "a half-life of 0", half_life=0.0),
        case("range", "half_life-infinite", "a plan that never falls", half_life=np.inf),
        case("range", "p_0-negative", "a cosine below 0", half_life=None, p_0=-0.5),
        case("range", "both", "half_life and p_0", p_0=0.5),
        case("range", "neither", "neither half_life nor p_0", half_life=None),
        case("range", "sigma-zero", "sigma = 0", scale=0.0),
        case("range", "init-vanishes", "initial entries whose squares vanish", theta=[2.0**-600, -(2.0**-600)],
             g=[0.5, 1.0], **_MEASURED),
        case("range", "beta2-one", "beta2 = 1 never sees a gradient", **_VECTOR_ADAM | {"beta2": 1.0}),
        case("range", "adam_epsilon-zero", "a division by zero in waiting", **_VECTOR_ADAM | {"adam_epsilon": 0.0}),
        case("range", "epsilon-zero", "a division by zero in waiting", epsilon=0.0),
        case("range", "clip-nan", "a clip value that is no number", clip_value=np.nan),
        case("shape", "slot-mismatch", "a slot of two for three entries", slot=(2,)),
    ]  # fmt: skip


def _decay(name: str) -> Any:
    return lambda v: v.case.options.get("decay") == name


# A table: a note reads best in two or three lines.
# fmt: off
CLOSED_NOTES: dict[str, Note] = {
    "closed-form": Note("basic", "The update of the closed form with no option switched on.",
        "Whatever is wrong here is wrong always.", lambda v: False),  # what no other flag describes
    "sigma": Note("basic", "Leaves with different distances that an entry has to go.",
        "One sigma for all trains embeddings and biases at the wrong speed.",
        lambda v: len(set(v.case.eta.values())) > 1),
    "sigma-init": Note("option", "sigma is the root mean square of an array's initial entries, 0.5 for zeros or ones.",
        "Measured again later, or with the mean taken off, the step size drifts with theta.", has_option("sigma")),
    "p_0": Note("option", "p_0, the cosine at the start, instead of half_life.",
        "Taken for a half-life, or without alpha_0, the plan falls at another speed.", has_option("p_0")),
    "inverse-square": Note("option", "exp(-2 S_t) = 1 / (1 + alpha_0 p_0 t)^2, for a constant cosine.",
        "With the half-life of inverse time, 1/2 is reached at another step.", _decay("inverse-square")),
    "recurrence": Note("option", "S is summed from S_0 = 0; shrink is the real number, correctly rounded.",
        "Summed from t = 1, every step takes its neighbour's S.", _decay("recurrence")),
    "sign": Note("option", "u is the sign of the gradient, 0 where that is 0.",
        "u2 is then the share of entries that are not 0, and not 1.",
        lambda v: v.case.options.get("direction") == "sign"),
    "adam": Note("option", "u is Adam's direction; m and v, of the leaf's shape, are debiased with t + 1.",
        "Debiased with t, the first step divides by 0.", lambda v: v.case.options.get("direction") == "adam"),
    "slot-shape": Note("option", "The mean of u^2 is taken over the axes where the slot has size 1.",
        "The wrong axis, or one slot per array, mixes rows of different scale.", lambda v: any(v.case.slots.values())),
    "least-u2": Note("option", "alpha divides by the root of max(u2, epsilon), with u2 near epsilon.",
        "Added to u2, epsilon shortens every step.", has_option("epsilon")),
    "clip-first": Note("option", "Gradients are clipped elementwise, before the direction and the mean.",
        "Clipped after, one outlier shortens the step of its whole slot.", has_option("clip_value")),
    **{name: NOTES[name] for name in ("zero-gradient", "tiny", "subnormal", "huge")},
    **{name: NOTES[name] for name in ("zero-dim", "size-one-axis", "empty")},
    "skipped-leaf": Note("edge", "A leaf without a gradient is skipped while the count goes on.",
        "Taken for zeros, its weights decay; with a count of its own, it falls behind the plan.",
        any_gradient(lambda g: g is None)),
    "late": Note("edge", "The count of steps is set after t = 0: the next is t = 10^6, or 10^12.",
        "Counted in float32, t stands still at 2^24.", lambda v: v.case.count is not None),
    "low-precision-theta": Note("edge", "Parameters in float16 or bfloat16; m and v are float64.",
        "Computed in the narrow type, rho vanishes beside 1.", NOTES["low-precision"].holds),
    **{name: NOTES[name] for name in ("long", "nan", "inf", "reject")},
}
# fmt: on

_USUAL = {"closed-form", "sigma", "low-precision-theta"}


def closed_flags(vector: VectorCase) -> list[str]:
    """Return the flags of a case; "closed-form" where none but sigma and low-precision-theta applies."""
    found = [flag for flag, note in CLOSED_NOTES.items() if note.holds(vector)]
    return found if set(found) - _USUAL else ["closed-form", *found]


#: Every intermediate, in the order of a step, with what must be said of it.
CLOSED_STEP = {
    "x": ("t / half_life", "or 2 alpha_0 p_0 t; inverse-square: (sqrt(2) - 1) t / half_life, or alpha_0 p_0 t"),
    "shrink": ("1 / (1 + x)", "inverse-square: 1 / (1 + x (2 + x)); recurrence: exp(-2 S); t counts the steps from 0"),
    "g": STEP["g"],
    "m": ("beta1 m + (1 - beta1) g", "if direction is adam"),
    "v": ("beta2 v + (1 - beta2) g*g", "if direction is adam"),
    "u": ("g", "or sign(g), or m / (1 - beta1^(t+1)) / (sqrt(v / (1 - beta2^(t+1))) + adam_epsilon)"),
    "u2": ("mean of u*u", STEP["g2"][1]),
    "alpha": ("alpha_0 (sigma / sqrt(max(u2, epsilon))) shrink", ""),
    "rho": ("alpha_0 alpha_0 / (2 q) shrink", ""),
    "delta": ("-(alpha u + rho theta)", STEP["delta"][1]),
    "theta": ("theta + delta", "rounded once to the group's dtype"),
}
