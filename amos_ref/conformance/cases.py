"""The table of cases on which a port runs beside the page.

Inputs decide what can be seen. Hyper-parameters are dyadic, so that float32 holds them exactly and a right port
has little to round; eta is never 1, xi never 1, no matrix is square; theta holds zeros (which isolate the
gradient term) and so does g (which isolates the decay); rows differ in scale, so that a wrong axis shows.
"""

import functools
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import spec
from amos_ref.conformance import extremes, life, ways
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.dtypes import dtype_of

Arrays = dict[str, np.ndarray]
Gradients = list[dict[str, np.ndarray | None]]


class Case(NamedTuple):
    """What a port is given: everything is float64 holding values of `dtype`.

    Attributes
    ----------
    name : str
    about : str
        What the case can show.
    params : dict of str to ndarray
    grads : list of dict
        One per step; None for a leaf without a gradient.
    options : dict
        Hyper-parameters by the names of :class:`amos_ref.Amos`, or of :class:`amos_ref.ClosedFormAmos`; a tuple has one
        value per step. In a case of the closed form, sigma="init" has the port measure sigma.
    eta : dict of str to float
        The eta of each leaf; sigma, in a case of the closed form.
    slots : dict of str to tuple
        Slot shape by leaf.
    dtype : str
        "float64", "float32", "float16" or "bfloat16".
    inject : dict of str to dict, optional
        ``{"theta": {leaf: array}, "v": ..., "b": ..., "m": ...}``: what replaces the port's own after step 1.
    events : dict of int to str
        What the port undergoes after a step (0: before the first); the page goes on as if nothing had happened.
    count : int, optional
        What the count of steps is set to after step 1, as after that many steps; None leaves it.
    groups : dict of str to dict
        Options that a leaf has of its own, by leaf.
    also : dict of str to dict
        Other readings that are right here: what they do, and the stages of the page that they override.
    algorithm : str
        Whose case it is, by its name in :data:`amos_ref.conformance.algorithms.ALGORITHMS`.
    may_lack : str
        What the case needs beyond options, where a right port may raise an error for want of it; "" if nothing.
    """

    name: str
    about: str
    params: Arrays
    grads: Gradients
    options: dict[str, Any]
    eta: dict[str, float]
    slots: dict[str, tuple[int, ...]]
    dtype: str = "float64"
    inject: dict[str, Arrays] | None = None
    events: Mapping[int, str] = {}
    count: int | None = None
    groups: Mapping[str, Mapping[str, Any]] = {}
    also: Mapping[str, Mapping[str, Any]] = {}
    algorithm: str = "paper"
    may_lack: str = ""

    # Arrays can neither be compared with == nor hashed; what is computed from a case is kept under its identity.
    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)

    def learning_rates(self) -> list[float]:
        """Return xi for each step; alpha_0, in a case of the closed form."""
        xi = self.options[ALGORITHMS[self.algorithm].rate]
        return list(xi) if isinstance(xi, tuple) else [xi] * len(self.grads)

    def first_not_finite(self) -> int | None:
        """Return the first step that is given NaN or infinity; None if none is. A port may refuse it."""
        given = [list(grads.values()) for grads in self.grads]
        if self.inject and len(given) > 1:
            given[1] += [a for arrays in self.inject.values() for a in arrays.values()]
        return next((t for t, arrays in enumerate(given, 1) if not all(map(_is_finite, arrays))), None)

    def special(self) -> bool:
        """Whether more is done to the port than to give it gradients: events, NaN, infinity, or a count."""
        return bool(self.events or self.groups) or extremes.is_extreme(self)

    def needs(self) -> set[str]:
        """Return the options that a port must have for this case."""
        algorithm = ALGORITHMS[self.algorithm]
        needed = set(self.options) - set(algorithm.unasked)
        needed |= {option for own in self.groups.values() for option in own} - {algorithm.rate}
        return needed | {"slot_shape"} if any(self.slots.values()) else needed


def _is_finite(a: np.ndarray | None) -> bool:
    return a is None or bool(np.isfinite(a).all())


_PAIR = {"kernel": (6, 5), "bias": (5,)}
_BASE = {"learning_rate": 0.25, "beta": 0.75}
_ETA = {"kernel": 0.25, "bias": 0.5, "twin": 0.125}


def _values(bits: np.random.PCG64, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Multiples of 2^-10 in [-2, 2) from the raw bits (a stream that no NumPy version may change).

    About one in six is zero; the first axis' entries double in scale.
    """
    words = bits.random_raw(int(np.prod(shape)) or 1).reshape(shape)
    x = scale * ((words >> np.uint64(52)).astype(np.float64) - 2048) / 1024
    x = np.where(words % np.uint64(6) == 0, 0.0, x)
    if shape:
        x = x * 2.0 ** (np.arange(shape[0]) - shape[0] // 2).reshape(-1, *[1] * (len(shape) - 1))
    return x


def draw(
    name: str,
    about: str,
    shapes: dict[str, tuple[int, ...]] | None = None,
    slots: dict[str, tuple[int, ...]] | None = None,
    steps: int = 8,
    scale: Callable[[int], float] = lambda t: 1.0,
    absent: dict[str, tuple[int, ...]] | None = None,
    again: Collection[int] = (),
    constant: bool = False,
    events: Mapping[int, str] | None = None,
    groups: Mapping[str, Mapping[str, Any]] | None = None,
    also: Mapping[str, Mapping[str, Any]] | None = None,
    base: Mapping[str, Any] = _BASE,
    algorithm: str = "paper",
    **options: Any,
) -> Case:
    """Draw a case; the steps `again` have the gradients of the step before, `constant` ones one value a column.

    An option of None is left out, also of the `base`.
    """
    shapes = shapes or _PAIR
    bits = np.random.PCG64(zlib.crc32(name.encode()))
    params = {leaf: _values(bits, shape, 1.0) for leaf, shape in shapes.items()}
    drawn = [{leaf: _values(bits, shape, scale(t)) for leaf, shape in shapes.items()} for t in range(1, steps + 1)]
    if constant:
        drawn = [{leaf: np.array(np.broadcast_to(g[:1], g.shape)) for leaf, g in given.items()} for given in drawn]
    for t in again:
        drawn[t - 1] = {leaf: g.copy() for leaf, g in drawn[t - 2].items()}
    grads: Gradients = [{**given} for given in drawn]
    for leaf, when in (absent or {}).items():
        for t in when:
            grads[t - 1][leaf] = None
    eta = {leaf: _ETA.get(leaf, 0.25) for leaf in shapes}
    slots = {leaf: (slots or {}).get(leaf, ()) for leaf in shapes}
    return Case(
        name,
        about,
        params,
        grads,
        {option: x for option, x in (dict(base) | options).items() if x is not None},
        eta,
        slots,
        events=events or {},
        groups=groups or {},
        also=also or {},
        algorithm=algorithm,
    )


def table() -> list[Case]:
    """Return all cases; the arrays are read-only.

    Those of the formulas are in float64 and float32, and some in bfloat16 and float16; those of an optimizer's life
    (:mod:`amos_ref.conformance.life`) come after them, in float64.
    """
    return list(_table())


@functools.cache
def _table() -> tuple[Case, ...]:
    warm = (0.0, 0.0625, 0.125, 0.25, 0.25, 0.25, 0.25, 0.25)
    falling = tuple(0.5 / t for t in range(1, 9))
    cases = [
        draw("plain", "the update itself, with b old enough to matter"),
        draw("decayed", "16 large steps: c and d far from 1", steps=16, learning_rate=0.5),
        draw("defaults", "xi 0.001 and beta 0.999, as people run it", learning_rate=1e-3, beta=0.999),
        draw("coefficients", "c_coef and d_coef apart from each other", c_coef=2.0, d_coef=0.5),
        draw("extra_l2", "sign, size and place of the extra decay", extra_l2=0.125),
        draw("momentum", "averaged change, not debiased, decay inside", momentum=0.75),
        draw("momentum-extra_l2", "extra decay averaged as well", momentum=0.75, extra_l2=0.125),
        draw("clip", "elementwise, before the mean", scale=lambda t: 2.0, clip_value=0.5),
        draw("everything", "all options at once", momentum=0.5, extra_l2=0.125, clip_value=1.0, learning_rate=falling),
        draw("schedule", "a learning rate per step, the first for t = 1", learning_rate=falling),
        draw("warm-up", "learning rate 0 at t = 1: v moves, theta and b do not", learning_rate=warm),
        draw("epsilon", "max(v, epsilon), not v + epsilon", scale=lambda t: 0.5, epsilon=0.0625),
        draw("epsilon-reached", "v below epsilon: epsilon divides", scale=lambda t: 2.0**-6, epsilon=0.0625),
        draw(
            "tiny-gradients",
            "gradients of 2^-52 steer as well as those of 1, with the epsilon that the port ships",
            scale=lambda t: 2.0**-52,
        ),
        draw("huge-gradients", "gradients of 2^40", scale=lambda t: 2.0**40),
        draw("zero-gradients", "nothing moves, nothing divides by zero", scale=lambda t: 0.0),
        draw("zeros-follow", "gradients vanish from t = 4 on", scale=lambda t: float(t < 4)),
        draw("none-gradient", "a leaf skips t = 2 and 3, the count goes on", absent={"bias": (2, 3)}),
        draw("none-at-first", "a leaf's first gradient comes at t = 5", absent={"kernel": (1, 2, 3, 4)}),
        draw("0-d", "a single number", {"x": ()}),
        draw("1-d", "a vector", {"x": (7,)}),
        draw("3-d", "three axes", {"x": (2, 5, 3)}),
        draw("4-d", "four axes", {"x": (3, 2, 4, 5)}),
        draw("size-one", "axes of one entry", {"x": (1, 6, 1)}),
        draw("slots-rows", "one slot a row", slots={"kernel": (6, 1)}),
        draw("slots-columns", "one slot a column", slots={"kernel": (1, 5)}),
        draw("slots-conv", "one slot a channel", {"x": (3, 2, 4, 5)}, {"x": (1, 1, 1, 5)}),
        draw("slots-mixed", "axes 0 and 2 averaged", {"x": (3, 2, 4, 5)}, {"x": (1, 2, 1, 5)}),
        draw("slots-element", "one slot an entry", slots={"kernel": (6, 5), "bias": (5,)}),
        draw(
            "slots-momentum",
            "rows with momentum and extra decay",
            slots={"kernel": (6, 1)},
            momentum=0.75,
            extra_l2=0.125,
        ),
    ]
    cases += _aged()
    low = [case for case in cases if case.name in _LOW or case.inject]
    cases += fewer_axes(draw)
    found = (
        *(case._replace(dtype=dtype) for case in cases for dtype in ("float64", "float32")),
        refine(draw("full-significands", "numbers that float32 does not hold")),
        *(_large_rate(dtype) for dtype in ("float64", "float32")),
        *(round_case(case, dtype) for case in low for dtype in ("bfloat16", "float16")),
        *extremes.cases(draw, _aged()),
        *life.cases(draw),
        *ways.cases(draw),
    )
    for case in found:
        freeze(case)
    return found


#: Cases that a port is run through, and that are no vectors.
LIVE_ONLY = ("slots-fewer-axes", "slots-either-end", "full-significands", "large-rate")

#: What is run in float16 and bfloat16, beside the cases that start from a state.
_LOW = (
    *("plain", "decayed", "extra_l2", "momentum", "clip", "everything", "schedule", "epsilon", "epsilon-reached"),
    *("zero-gradients", "none-gradient", "3-d", "slots-rows", "slots-columns", "slots-element"),
)


def _large_rate(dtype: str) -> Case:
    made = draw("large-rate", "gamma and rho above 1, which nothing holds back", steps=3, learning_rate=2.0)
    return made._replace(dtype=dtype)


def fewer_axes(make: Callable[..., Case]) -> list[Case]:
    """Cases whose slots have fewer axes than their leaves; `make` draws one.

    Where a slot fits at one end only, a port that puts it at the other raises an error; where it fits at both, that
    port has other numbers. This is why one case has two equal sides. A port that raises an error in both wants slots
    with all axes, as the authors' code does.
    """
    shapes, slots = {"kernel": (3, 4), "x": (5, 3, 4)}, {"kernel": (4,), "x": (3, 1)}
    made = [
        make("slots-fewer-axes", "slots of fewer axes than the leaf are aligned at the last axis", shapes, slots),
        make("slots-either-end", "the last axis, also where the first is as long", {"x": (4, 3, 4)}, {"x": (4,)}),
    ]
    return [case._replace(may_lack="slots of fewer axes than their leaf") for case in made]


def refine(case: Case) -> Case:
    """Return a case whose parameters and gradients need all bits of float64: rounded to float32, they are others."""
    bits = np.random.PCG64(zlib.crc32(f"{case.name} bits".encode()))

    def refined(a: np.ndarray | None) -> Any:
        if a is None:
            return None
        return a * (1.0 + (bits.random_raw(a.size).reshape(a.shape) >> np.uint64(12)).astype(np.float64) * 2.0**-52)

    params = {name: refined(a) for name, a in case.params.items()}
    return case._replace(params=params, grads=[{k: refined(g) for k, g in given.items()} for given in case.grads])


def freeze(case: Case) -> None:
    """Make a case's arrays read-only, since everybody is given the same."""
    for arrays in (case.params, *case.grads, *(case.inject or {}).values()):
        for a in arrays.values():
            if a is not None:
                a.flags.writeable = False


def _aged() -> list[Case]:
    """Cases that start from a state: one step tells where storage would stall a longer run."""

    def case(name: str, about: str, **options: Any) -> Case:
        rest = lambda t: float(t < 2 or "no gradient" not in about)  # noqa: E731
        made = draw(name, about, steps=3, scale=rest, **options)
        bits = np.random.PCG64(zlib.crc32(f"{name} state".encode()))
        state: dict[str, Arrays] = {"theta": {}, "v": {}, "b": {}}
        for leaf, a in made.params.items():
            theta = np.arange(a.size).reshape(a.shape) % 4 / 2.0 - 0.5  # a quarter of it zeros, eighths of one
            steps = np.arange(np.prod(made.slots[leaf], dtype=int)).reshape(made.slots[leaf])
            state["theta"][leaf] = theta * (bits.random_raw(a.size).reshape(a.shape) % np.uint64(2)).astype(float)
            state["v"][leaf] = np.asarray(2.0 ** (steps % 3))
            state["b"][leaf] = np.asarray(16.0 / 2.0 ** (steps % 2))
        if "momentum" in options:
            state["m"] = {leaf: theta / 8.0 for leaf, theta in state["theta"].items()}
        return made._replace(inject=state)

    rows, columns = {"kernel": (6, 1)}, {"kernel": (1, 5)}
    return [
        case("aged", "from b = 16: c and d far from 1 in one step"),
        case("aged-extra_l2", "from b = 16, with extra decay", extra_l2=0.125),
        case("aged-rest", "from b = 16, no gradient: decay alone", extra_l2=0.125),
        case("aged-rows", "from a state of its own for each row", slots=rows),
        case("aged-columns", "from a state of its own for each column", slots=columns),
        case("aged-momentum", "from a momentum", momentum=0.75, extra_l2=0.125),
    ]


def round_case(case: Case, dtype: str) -> Case:
    """Return the case in a dtype, its parameters and gradients rounded to that."""

    def nearest(a: np.ndarray | None) -> Any:
        if a is None:
            return None
        with np.errstate(all="ignore"):
            return np.asarray(spec.round_to(a, dtype_of(dtype))).astype(np.float64)

    params = {name: nearest(a) for name, a in case.params.items()}
    grads = [{name: nearest(g) for name, g in given.items()} for given in case.grads]
    return case._replace(dtype=dtype, params=params, grads=grads)


def random_case(seed: int, options: Collection[str]) -> Case:
    """Return a float64 case with some of these options switched on and dyadic numbers drawn for them."""
    name = f"further-{seed}"
    words = iter(np.random.PCG64(zlib.crc32(name.encode())).random_raw(64) >> np.uint64(40))

    def one_of(*choices: Any) -> Any:
        return choices[int(next(words)) % len(choices)]

    drawn: dict[str, Any] = {
        "momentum": one_of(0.5, 0.75, 0.875),
        "extra_l2": one_of(0.0625, 0.125, 0.25),
        "clip_value": one_of(2.0**-5, 0.5, 1.0),
        "c_coef": one_of(0.5, 2.0),
        "d_coef": one_of(0.5, 4.0),
        "epsilon": one_of(2.0**-4, 2.0**-2),
    }
    drawn = {option: value for option, value in drawn.items() if option in options and one_of(True, False)}
    rates = one_of(0.5, 0.25, 0.125, (0.125, 0.25, 0.5, 0.25, 0.125, 0.0625), (0.5, 0.25, 0.5, 0.25, 0.5, 0.25))
    beta = {"beta": one_of(0.5, 0.75, 0.875)} if "beta" in options else {}
    shapes = one_of(None, {"kernel": (4, 7), "bias": (7,)}, {"kernel": (2, 3, 4)}, {"a": (5, 2), "b": (3,), "c": ()})
    slots = {}
    for leaf, shape in (shapes or _PAIR).items() if "slot_shape" in options and one_of(True, False, True) else ():
        kept = int(next(words)) % 2 ** len(shape)  # the axes that have a slot for each index
        slots[leaf] = tuple(n if kept >> axis & 1 else 1 for axis, n in enumerate(shape)) if kept else ()
    size = one_of(0.125, 1.0, 4.0)
    grow = one_of(0.5, 1.0, 2.0)
    made = draw(name, "drawn", shapes, slots, 6, lambda t: size * grow**t, **(drawn | beta | {"learning_rate": rates}))
    return made._replace(eta={leaf: one_of(0.125, 0.375, 0.5, 0.75) for leaf in made.eta})
