"""The targets and factors of the closed form, of which the grammar makes deviations."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.closed_form.edits import EDITS, by_half_life, inverse_square, inverse_time
from amos_ref.conformance.closed_form.schedules import CATALOGUE
from amos_ref.conformance.diagnosis.grammar import (
    Grammar,
    Target,
    offset,
    scale_given,
    scale_share,
    scale_stage,
    shift_stage,
)

#: Quantities that a formula may have as a factor, as far as they are known where it is computed.
FACTORS: dict[str, Callable[[Any], Any]] = {
    "alpha_0": lambda s: s.alpha_0,
    "q": lambda s: s.q,
    "p_0": lambda s: 1.0 if s.p_0 is None else s.p_0,
    "half_life": lambda s: 1.0 if s.half_life is None else s.half_life,
    "n": lambda s: float(max(s.old_theta.size // max(math.prod(s.slot), 1), 1)),
    "(t+1)": lambda s: s.t + 1.0,
    "beta1": lambda s: s.beta1,
    "beta2": lambda s: s.beta2,
    "(1-beta1)": lambda s: 1.0 - s.beta1,
    "(1-beta2)": lambda s: 1.0 - s.beta2,
    "(1-beta1^n)": lambda s: spec.one_minus_power(s.beta1, s.t + 1),
    "(1-beta2^n)": lambda s: spec.one_minus_power(s.beta2, s.t + 1),
    "sigma": lambda s: s.sigma,
    "shrink": lambda s: s.shrink,
    "u2": lambda s: np.maximum(s.u2, s.epsilon),
}
_OF_OPTIONS = ("alpha_0", "q", "n", "(t+1)")
_BEFORE_SIGMA = (*_OF_OPTIONS, "(1-beta1)", "(1-beta2)", "(1-beta1^n)", "(1-beta2^n)")
_OF_PLAN = ("alpha_0", "q", "n", "sigma")

#: What the page has of a factor already.
OWN: dict[str, dict[str, str]] = {
    "ratio": {"sigma": "1", "u2": "-1/2"},
    "alpha": {"alpha_0": "1", "sigma": "1", "u2": "-1/2", "shrink": "1"},
    "rho": {"alpha_0": "2", "q": "-1", "shrink": "1"},
    **{f"x_by_half_life{of}": {"half_life": "-1"} for of in ("", "_of_falling_p", "_of_constant_p")},
    **{f"x_by_p_0{of}": {"alpha_0": "1", "p_0": "1"} for of in ("", "_of_falling_p", "_of_constant_p")},
    "(1-beta1)_in_m": {"(1-beta1)": "1"},
    "(1-beta2)_in_v": {"(1-beta2)": "1"},
    "beta1_in_correction": {"beta1": "1"},
    "beta2_in_correction": {"beta2": "1"},
}

_ALL = tuple(name for name in FACTORS if name not in ("p_0", "half_life", "beta1", "beta2"))
_STEP = "steps have another size"
_SIZES = "steps and decay have another size"
_PACE = "steps and decay fall at another pace"


def _scale_where(holds: Callable[[Any], bool], *stages: str) -> Callable[..., dict[str, Callable[..., Any]]]:
    """Scale what stages give, in some cases only."""
    return lambda f: {name: lambda s, page: page(s) * f(s) if holds(s) else page(s) for name in stages}


def _scale_1(
    holds: Callable[[Any], bool], root: Callable[[Any], Any], power: Callable[[Any], Any]
) -> Callable[..., dict[str, Callable[..., Any]]]:
    """Scale the 1 of 1/(1 + x), of which exp(-2S) is a power."""

    def scaled(f: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
        def shrink(s: Any, page: Callable[[Any], Any]) -> Any:
            return power(1.0 / (1.0 / root(page(s)) + (f(s) - 1.0))) if holds(s) else page(s)

        return {"shrink": shrink}

    return scaled


def _scale_plan(half: bool, falling: bool | None) -> Callable[..., dict[str, Callable[..., Any]]]:
    """Scale x, and the k of one step, by p_0 or by a half-life, and where p falls or is constant alone."""
    return _scale_where(lambda s: by_half_life(s) is half and (falling is None or bool(s.falling) is falling), "x", "k")


def _targets_of_x() -> Iterator[tuple[str, Target]]:
    """Yield x, and the cases in which it is computed otherwise."""
    everywhere = _scale_where(lambda s: True, "x", "k")
    yield "x", Target("x = alpha_0 p t, in exp(-2S) = 1/(1 + x),", "schedule", _PACE, _OF_PLAN, everywhere)
    for option, words in (("half_life", "the half-life"), ("p_0", "p_0")):
        for of, where, falling in (
            ("", "", None),
            ("_of_falling_p", ", where p falls,", True),
            ("_of_constant_p", ", where p is constant,", False),
        ):
            scaled = _scale_plan(option == "half_life", falling)
            factors = (option, "alpha_0", "q")
            yield f"x_by_{option}{of}", Target(f"x by {words}{where}", "schedule", _PACE, factors, scaled)


TARGETS: dict[str, Target] = {
    "m": Target("Adam's m", "direction", "Adam's direction is another", _BEFORE_SIGMA, scale_stage("m")),
    "v": Target("Adam's v", "direction", "Adam's direction is another", _BEFORE_SIGMA, scale_stage("v")),
    **{
        name: Target(f"{words} in Adam's {name[-1]}", "direction", "Adam's direction is another", factors, scaled)
        for name, words, factors, scaled in (
            ("m_in_m", "the old m", ("beta1",), scale_share("m", lambda s: s.beta1 * s.old_m)),
            ("g_in_m", "the gradient", ("(1-beta1)",), scale_share("m", lambda s: (1.0 - s.beta1) * s.g)),
            ("1_in_m", "the 1 of 1 - beta1", (), scale_share("m", lambda s: s.g)),
            ("(1-beta1)_in_m", "the 1 - beta1", ("(1-beta1)",), scale_share("m", lambda s: (1.0 - s.beta1) * s.g)),
            ("v_in_v", "the old v", ("beta2",), scale_share("v", lambda s: s.beta2 * s.old_v)),
            (
                "g2_in_v",
                "the squared gradient",
                ("(1-beta2)",),
                scale_share("v", lambda s: (1.0 - s.beta2) * s.g * s.g),
            ),
            ("1_in_v", "the 1 of 1 - beta2", (), scale_share("v", lambda s: s.g * s.g)),
            (
                "(1-beta2)_in_v",
                "the 1 - beta2",
                ("(1-beta2)",),
                scale_share("v", lambda s: (1.0 - s.beta2) * s.g * s.g),
            ),
        )
    },
    "beta1_in_correction": Target(
        "the beta1 of 1 - beta1^n", "direction", "Adam's direction is another", ("beta1",), scale_given("beta1", "u")
    ),
    "beta2_in_correction": Target(
        "the beta2 of 1 - beta2^n", "direction", "Adam's direction is another", ("beta2",), scale_given("beta2", "u")
    ),
    "u": Target("the direction", "direction", "epsilon counts otherwise", _BEFORE_SIGMA, scale_stage("u")),
    "u2": Target("the mean square", "reduce", _STEP, _BEFORE_SIGMA, scale_stage("u2")),
    "sigma": Target("sigma", "sigma", _STEP, _BEFORE_SIGMA, scale_stage("sigma")),
    **dict(_targets_of_x()),
    "shrink": Target("exp(-2S)", "schedule", _SIZES, _OF_PLAN, scale_stage("shrink")),
    "inverse_time": Target(
        "exp(-2S), where p falls,", "schedule", _SIZES, _OF_PLAN, _scale_where(inverse_time, "shrink")
    ),
    "inverse_square": Target(
        "exp(-2S), where p is constant,", "schedule", _SIZES, _OF_PLAN, _scale_where(inverse_square, "shrink")
    ),
    "recurrence": Target(
        "exp(-2S) of the recurrence",
        "schedule",
        _SIZES,
        _OF_PLAN,
        _scale_where(lambda s: s.decay == "recurrence", "shrink"),
    ),
    "1_in_inverse_time": Target(
        "the 1 of 1/(1 + x), where p falls,", "schedule", _PACE, (), _scale_1(inverse_time, lambda x: x, lambda x: x)
    ),
    "1_in_inverse_square": Target(
        "the 1 of 1/(1 + x)^2, where p is constant,",
        "schedule",
        _PACE,
        (),
        _scale_1(inverse_square, np.sqrt, np.square),
    ),
    "ratio": Target("sigma / rms(u)", "step size", _STEP, _ALL, scale_stage("ratio")),
    "alpha": Target("the step size alpha", "step size", _STEP, _ALL, scale_stage("alpha")),
    "rho": Target("the decay rho", "weight decay", "the decay has another size", _ALL, scale_stage("rho")),
    "delta": Target("the whole change", "change", "steps and decay have another size", _ALL, scale_stage("delta")),
    "epsilon": Target("epsilon", "epsilon", "small directions steer otherwise", _OF_OPTIONS, scale_stage("epsilon")),
    "adam_epsilon": Target(
        "adam_epsilon", "direction", "small gradients steer otherwise", _OF_OPTIONS, scale_stage("adam_epsilon")
    ),
    "clip_value": Target("clip_value", "gradient", "other entries are clipped", _OF_OPTIONS, scale_stage("clip_value")),
}
#: Quantities raised to a power where the page has them plain.
POWERS = {
    "alpha_0": ("schedule", "alpha_0"),
    "sigma": ("sigma", "sigma"),
    "q": ("weight decay", "q"),
    "epsilon": ("epsilon", "epsilon"),
    "adam_epsilon": ("direction", "adam_epsilon"),
    "u2": ("reduce", "the mean square"),
}

#: Factors that the catalogue has words for.
WORDS = {
    "rho": {-1.0: "decay-sign", 2.0: "decay-without-half", 0.5: "decay-by-4q", 0.0: "decay-absent"},
    "sigma": {math.sqrt(2.0): "sigma-of-two"},
}

#: To what a number may be added.
OFFSETS = {
    name: offset(words, stage, shift_stage(name))
    for name, stage, words in (
        ("g", "gradient", "every entry of the gradient"),
        ("u2", "reduce", "the mean square"),
        ("sigma", "sigma", "sigma"),
        ("shrink", "schedule", "exp(-2S)"),
        ("alpha", "step size", "the step size alpha"),
        ("rho", "weight decay", "the decay rho"),
        ("delta", "change", "every entry of the change"),
    )
}

GRAMMAR = Grammar(
    FACTORS,
    OWN,
    TARGETS,
    POWERS,
    WORDS,
    rough=("clip_value", "epsilon", "adam_epsilon"),
    offsets=OFFSETS,
    catalogue=CATALOGUE,
    fixed=("(1-beta1)_in_m", "(1-beta2)_in_v", "beta1_in_correction", "beta2_in_correction"),
    edits=EDITS,
)
