"""The targets and factors of the closed form, of which the grammar makes deviations."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.closed_form.edits import EDITS
from amos_ref.conformance.closed_form.schedules import CATALOGUE
from amos_ref.conformance.diagnosis.grammar import Grammar, Target, offset, scale_stage, shift_stage

#: Quantities that a formula may have as a factor, as far as they are known where it is computed.
FACTORS: dict[str, Callable[[Any], Any]] = {
    "alpha_0": lambda s: s.alpha_0,
    "q": lambda s: s.q,
    "n": lambda s: float(max(s.old_theta.size // max(math.prod(s.slot), 1), 1)),
    "(t+1)": lambda s: s.t + 1.0,
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
}

_ALL = tuple(FACTORS)
_STEP = "steps have another size"
_PACE = "steps and decay fall at another pace"


def _scale_elapsed(f: Callable[[Any], Any]) -> dict[str, Callable[..., Any]]:
    """Scale x = alpha_0 p t, and the k of one step."""
    return {name: lambda s, page: page(s) * f(s) for name in "xk"}


TARGETS: dict[str, Target] = {
    "m": Target("Adam's m", "direction", "Adam's direction is another", _BEFORE_SIGMA, scale_stage("m")),
    "v": Target("Adam's v", "direction", "Adam's direction is another", _BEFORE_SIGMA, scale_stage("v")),
    "u": Target("the direction", "direction", "epsilon counts otherwise", _BEFORE_SIGMA, scale_stage("u")),
    "u2": Target("the mean square", "reduce", _STEP, _BEFORE_SIGMA, scale_stage("u2")),
    "sigma": Target("sigma", "sigma", _STEP, _BEFORE_SIGMA, scale_stage("sigma")),
    "x": Target("x = alpha_0 p t, in exp(-2S) = 1/(1 + x),", "schedule", _PACE, _OF_PLAN, _scale_elapsed),
    "shrink": Target("exp(-2S)", "schedule", "steps and decay have another size", _OF_PLAN, scale_stage("shrink")),
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
    edits=EDITS,
)
