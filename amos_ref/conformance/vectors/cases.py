"""The cases that are stored as vectors: the judge's, some of their steps, and cases that only vectors hold."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from amos_ref.conformance.cases import LIVE_ONLY, Case, round_case, table
from amos_ref.conformance.extremes import is_extreme
from amos_ref.conformance.life import is_life
from amos_ref.dtypes import dtype_of

#: Steps that are stored of a judge's case: 3, more where these would not show what it is about, fewer of large arrays.
_STEPS = {"decayed": 16, "schedule": 4, "zeros-follow": 5, "none-gradient": 5, "none-at-first": 6}
_STEPS |= {"4-d": 2, "slots-conv": 2, "slots-mixed": 2}
_LONG = 1000

_BASE: dict[str, Any] = {"learning_rate": 0.25, "beta": 0.75}
TINIEST = {"float64": -1074, "float32": -149, "float16": -24, "bfloat16": -133}


class VectorCase(NamedTuple):
    """A case and how it is stored.

    Attributes
    ----------
    case : Case
    steps : tuple of int
        The steps that are stored.
    cycle : int
        If not 0, after how many steps the gradients come again.
    error : str
        The kind of error with which a right implementation refuses the case (a key of read.KINDS_OF_ERROR); "" if it is
        computed.
    """

    case: Case
    steps: tuple[int, ...]
    cycle: int = 0
    error: str = ""


class Note(NamedTuple):
    """What a flag means, and which cases have it."""

    kind: str  # "basic", "option", "edge" or "refusal"
    description: str
    effect: str
    holds: Callable[[VectorCase], bool]


def vector_cases(dtype: str) -> list[VectorCase]:
    """Return the cases of a dtype, in the order of the file: the judge's float64 ones, rounded, and those below."""
    found = []
    for case in table():
        if (
            case.dtype == "float64"
            and not (is_extreme(case) or is_life(case) or case.name in LIVE_ONLY)
            and fits(first := _first_steps(case), dtype)
        ):
            found.append(VectorCase(round_case(first, dtype), tuple(range(1, len(first.grads) + 1))))
    found += [*_edges(dtype), *_refusals(dtype)]
    return [*found, *_long(dtype)] if dtype in ("float64", "float32") else found


def _first_steps(case: Case) -> Case:
    steps, xi = _STEPS.get(case.name, 3), case.options["learning_rate"]
    xi = xi[:steps] if isinstance(xi, tuple) else xi
    return case._replace(grads=case.grads[:steps], options=case.options | {"learning_rate": xi})


def fits(case: Case, dtype: str) -> bool:
    """Whether a dtype is wide enough for the magnitudes of a case: nothing overflows, nothing vanishes."""
    pairs = zip(_inputs(case), _inputs(round_case(case, dtype)), strict=True)
    return not any(np.any(np.isinf(new) | ((new == 0) & (old != 0))) for old, new in pairs)


def flags(vector: VectorCase) -> list[str]:
    """Return the flags of a case; "plain" where none but eta and low-precision applies."""
    found = [flag for flag, note in NOTES.items() if note.holds(vector)]
    return found if set(found) - {"eta", "low-precision"} else ["plain", *found]


def _one(
    name: str, about: str, dtype: str, theta: Any, *grads: Any, slot: tuple[int, ...] = (), **options: Any
) -> Case:
    """A case of one leaf, "x", of eta 0.5."""
    params, given = {"x": np.asarray(theta, dtype=np.float64)}, [np.asarray(g, dtype=np.float64) for g in grads]
    eta = options.pop("eta", 0.5)
    return Case(name, about, params, [{"x": g} for g in given], _BASE | options, {"x": eta}, {"x": slot}, dtype)


def _edges(dtype: str) -> list[VectorCase]:
    least = np.ldexp(1.0, TINIEST[dtype])
    theta, g = np.array([0.5, 0.0, -1.5]), np.array([0.25, 1.0, 0.0])
    small, also, steep = least * np.array([[1, 3, 0], [2, 1, 0], [5, 0, -7]])
    cases = [
        _one("subnormal", "subnormal parameters and gradients", dtype, small, steep, also),
        _one("subnormal-theta", "subnormal parameters alone", dtype, small, 0 * g, g),
        _one("inf-clipped", "an infinite gradient is clipped", dtype, theta, [np.inf, 0.5, -np.inf], g, clip_value=2.0),
        _one("empty", "no entries: the mean of none is 0", dtype, np.zeros((0, 3)), np.zeros((0, 3)), slot=(1, 3)),
        _one("empty-slots", "no entries and no slots", dtype, np.zeros((0, 3)), np.zeros((0, 3)), slot=(0, 1)),
    ]
    return [VectorCase(case, tuple(range(1, len(case.grads) + 1))) for case in cases]


def _long(dtype: str) -> list[VectorCase]:
    cycle = [[0.5, -1.0], [0.25, 0.0], [-1.5, 0.5], [0.75, 2.0]]
    options: dict[str, Any] = {"momentum": 0.75, "extra_l2": 2.0**-10}
    case = _one("long", "a thousand steps", dtype, [1.0, -0.5], *cycle * (_LONG // len(cycle)), **options)
    return [VectorCase(case, (1, 10, 100, _LONG), len(cycle))]


def _refusals(dtype: str) -> list[VectorCase]:
    theta, g = [0.5, 0.0, -1.5], [0.25, 1.0, 0.0]
    nan, inf = [0.5, np.nan, -1.5], [0.5, 1.0, -np.inf]

    def case(error: str, name: str, about: str, theta: Any = theta, g: Any = g, **options: Any) -> VectorCase:
        return VectorCase(_one(name, about, dtype, theta, g, **options), (1,), 0, error)

    cases = [
        case("non-finite", "nan-gradient", "a NaN among the gradients", g=nan),
        case("non-finite", "nan-clipped", "clipping does not hide a NaN", g=nan, clip_value=2.0),
        case("non-finite", "inf-gradient", "an infinite gradient without clipping", g=inf),
        case("non-finite", "nan-theta", "a NaN among the parameters at the start", theta=nan),
        case("non-finite", "inf-theta", "an infinite parameter at the start", theta=inf),
    ]
    if dtype != "float64":
        return cases
    return [
        *cases,
        case("non-finite", "overflow", "a finite gradient whose square overflows", g=[0.5, 2.0**600, 1.0]),
        case("range", "beta-one", "beta = 1 never sees a gradient", beta=1.0),
        case("range", "momentum-one", "momentum = 1 never moves", momentum=1.0),
        case("range", "extra_l2-negative", "a decay that makes weights grow", extra_l2=-0.125),
        case("range", "epsilon-zero", "a division by zero in waiting", epsilon=0.0),
        case("range", "clip-nan", "a clip value that is no number", clip_value=np.nan),
        case("range", "eta-zero", "eta = 0", eta=0.0),
        case("shape", "slot-mismatch", "a slot of two for three entries", slot=(2,)),
        case("range", "rate-negative", "a negative learning rate", learning_rate=-0.25),
    ]


def _inputs(case: Case) -> list[np.ndarray]:
    return [*case.params.values(), *(g for grads in case.grads for g in grads.values() if g is not None)]


def _any(test: Callable[[np.ndarray], Any]) -> Callable[[VectorCase], bool]:
    return lambda vector: any(bool(np.any(test(a))) for a in _inputs(vector.case))


def any_gradient(test: Callable[[Any], Any]) -> Callable[[VectorCase], bool]:
    """Whether a gradient, or the None of a skipped leaf, is such a one."""
    return lambda vector: any(bool(test(g)) for grads in vector.case.grads for g in grads.values())


def any_shape(test: Callable[[tuple[int, ...]], bool]) -> Callable[[VectorCase], bool]:
    """Whether a leaf has such a shape."""
    return lambda vector: any(test(a.shape) for a in vector.case.params.values())


def has_option(*names: str) -> Callable[[VectorCase], bool]:
    """Whether the case sets one of these options."""
    return lambda vector: any(name in vector.case.options for name in names)


def _subnormal(vector: VectorCase) -> bool:
    dtype = dtype_of(vector.case.dtype)
    least = 2.0 ** {"float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126}[dtype.name]
    return _any(lambda a: (a != 0) & (abs(a) < least))(vector)


def _large(g: np.ndarray | None) -> Any:
    return g is not None and bool(g.size) and np.isfinite(g).all() and abs(g).max() >= 2.0**30


def _tiny(g: np.ndarray | None) -> Any:
    return g is not None and bool(g.any()) and abs(g).max() <= 2.0**-20


# A table: a note reads best in two or three lines.
# fmt: off
NOTES: dict[str, Note] = {
    "plain": Note("basic", "The update with no option switched on.",
        "Whatever is wrong here is wrong always.", lambda v: False),  # what no other flag describes; see flags()
    "eta": Note("basic", "Leaves with different expected scales.",
        "One eta for all trains embeddings and biases at the wrong speed.",
        lambda v: len(set(v.case.eta.values())) > 1),
    "slots": Note("option", "v and b have axes: the mean of g^2 is taken over the axes where the slot has size 1.",
        "The wrong axis, or one slot per array, mixes rows of different scale.", lambda v: any(v.case.slots.values())),
    "coefficients": Note("option", "c_coef and d_coef differ from 0.25 and from each other.",
        "Swapped, the weight decay falls at the speed of the step.", has_option("c_coef", "d_coef")),
    "extra_l2": Note("option", "Decay beside gamma/2, inside d.",
        "With the wrong sign weights grow.", has_option("extra_l2")),
    "momentum": Note("option", "m averages the whole change, decay included, and is not debiased.",
        "Debiased, or on the gradient, the first steps are several times too large.", has_option("momentum")),
    "clip": Note("option", "Gradients are clipped elementwise, before the mean.",
        "Clipped after the mean, v remembers the outlier for 1/(1 - beta) steps.", has_option("clip_value")),
    "schedule": Note("option", "The learning rate changes; the first is for t = 1.",
        "Counted from 0, every step takes its neighbour's rate.",
        lambda v: isinstance(v.case.options["learning_rate"], tuple)),
    "warmup": Note("option", "The first learning rate is 0: v moves, theta and b do not.",
        "A division by the rate, or a step that is left out, shows later.", lambda v: v.case.learning_rates()[0] == 0),
    "epsilon": Note("option", "r divides by max(v, epsilon), with v near epsilon.",
        "Added to v, epsilon shortens every step of rarely used rows.", has_option("epsilon")),
    "zero-gradient": Note("edge", "A gradient that is zero everywhere.",
        "0/0 makes NaN of the parameters.", any_gradient(lambda g: g is not None and bool(g.size) and not g.any())),
    "tiny": Note("edge", "Gradients whose squares come near to a port's epsilon.",
        "They should steer like gradients of 1; an added epsilon stops them.", any_gradient(_tiny)),
    "subnormal": Note("edge", "Subnormal parameters or gradients.",
        "Hardware that flushes them to zero moves on with other numbers.", _subnormal),
    "huge": Note("edge", "Gradients of 2^30 and more.",
        "Squares overflow in float16, and in float32 from 2^64 on.", any_gradient(_large)),
    "zero-dim": Note("edge", "An array without axes.",
        "Code that asks for axis 0 fails.", any_shape(lambda s: s == ())),
    "size-one-axis": Note("edge", "Axes of one entry, which a slot keeps and reduces alike.",
        "Squeezed away, the wrong axis is reduced.", any_shape(lambda s: 1 in s)),
    "empty": Note("edge", "An array without entries.",
        "The mean of nothing is 0/0.", any_shape(lambda s: 0 in s)),
    "none-gradient": Note("edge", "A leaf without a gradient is skipped while the count goes on.",
        "Taken for zeros, its weights decay; with a count of its own, 1 - beta^t is too small.",
        any_gradient(lambda g: g is None)),
    "injected-state": Note("edge", "From step 2 on the case goes on from another state than step 1 left behind.",
        "A port that recomputes its state from the start cannot be resumed.", lambda v: v.case.inject is not None),
    "low-precision": Note("edge", "Parameters in float16 or bfloat16; v, b and m are float64.",
        "Computed in the narrow type, v stalls and b stops growing.",
        lambda v: v.case.dtype in ("float16", "bfloat16")),
    "long": Note("edge",
        "A thousand steps, of which some are stored; the gradients are those of `cycle`, again and again.",
        "Errors that one step hides add up.", lambda v: v.cycle > 0),
    "nan": Note("edge", "A NaN among the inputs.",
        "A maximum that drops NaN lets it pass, and one entry spoils the array.", _any(np.isnan)),
    "inf": Note("edge", "An infinity among the inputs: with clip_value it is clipped, otherwise refused.",
        "inf/inf makes NaN.", _any(np.isinf)),
    "reject": Note("refusal", "A right implementation refuses for what `error` says, and changes nothing.",
        "Computed all the same, it spoils the parameters for good.", lambda v: bool(v.error)),
}
# fmt: on

#: Every intermediate, in the order of a step, with what must be said of it.
STEP = {
    "q": ("1 - beta^t", "t counts the steps from 1, for all leaves together"),
    "g": ("min(max(g, -clip_value), clip_value)", "if there is a clip_value"),
    "g2": (
        "mean of g*g",
        "over the axes of the leaf on which slot_shape, aligned at the last axis, has 1; of nothing: 0",
    ),
    "v": ("beta v + (1 - beta) g2", ""),
    "r": ("q / max(v, epsilon)", "this v"),
    "c": ("1 / sqrt(1 + c_coef sqrt(xi) b)", "the b of pre; xi is learning_rate"),
    "gamma": ("c xi^2 r g2", ""),
    "d": ("1 / (1 + d_coef sqrt(xi eta) b)", "the b of pre"),
    "alpha": ("d xi eta sqrt(r)", ""),
    "rho": ("d (gamma/2 + extra_l2)", ""),
    "b": ("b + gamma (1 + b)", ""),
    "delta": ("-(alpha g + rho theta)", "alpha and rho are those of the entry's slot"),
    "m": ("momentum m + (1 - momentum) delta", "if there is a momentum"),
    "theta": ("theta + m", "or theta + delta without momentum; rounded once to the group's dtype"),
}
