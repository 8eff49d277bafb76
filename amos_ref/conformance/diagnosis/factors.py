"""The targets and factors of paper Amos, of which the grammar makes deviations."""

from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.diagnosis.deviation import mean_of_slot
from amos_ref.conformance.diagnosis.deviations import CATALOGUE
from amos_ref.conformance.diagnosis.edits import Formula, edits
from amos_ref.conformance.diagnosis.grammar import (
    Grammar,
    Target,
    offset,
    scale_given,
    scale_share,
    scale_stage,
    shift_stage,
    shift_start,
)

#: Quantities that a formula may have as a factor, as far as they are known where it is computed.
FACTORS: dict[str, Callable[[Any], Any]] = {
    "xi": lambda s: s.xi,
    "eta": lambda s: s.eta,
    "beta": lambda s: s.beta,
    "(1-beta)": lambda s: 1.0 - s.beta,
    "(1-beta^t)": lambda s: spec.one_minus_power(s.beta, s.t),
    "beta^t": lambda s: 1.0 - spec.one_minus_power(s.beta, s.t),
    "(1+beta)": lambda s: 1.0 + s.beta,
    "t": lambda s: float(s.t),
    "c_coef": lambda s: s.c_coef,
    "d_coef": lambda s: s.d_coef,
    "b": lambda s: s.old_b,
    "n": lambda s: float(max(s.old_theta.size // max(np.size(s.old_v), 1), 1)),
    "c": lambda s: spec.decay_factor_c(s.old_b, s.xi, s.c_coef),
    "d": lambda s: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.d_coef),
    "(1+b)": lambda s: 1.0 + s.old_b,
    "r": lambda s: s.r,
    "v": lambda s: np.maximum(s.v, s.epsilon),
    "g2": lambda s: s.g2,
    "gamma": lambda s: s.gamma,
}
#: Those that stand beside an average alone.
_OF_MOMENTUM: dict[str, Callable[[Any], Any]] = {
    "mu": lambda s: s.momentum or 0.0,
    "(1-mu)": lambda s: 1.0 - (s.momentum or 0.0),
    "(1+mu)": lambda s: 1.0 + (s.momentum or 0.0),
}
_EARLY = ("xi", "eta", "beta", "(1-beta)", "(1-beta^t)", "beta^t", "(1+beta)", "t", "n", "b", "(1+b)")

#: What the page has of a factor already; c_coef and d_coef stand for the arguments of c and d.
OWN: dict[str, dict[str, str]] = {
    "g2": {},
    "v": {},
    "beta_in_v": {"beta": "1"},
    "(1-beta)_in_v": {"(1-beta)": "1"},
    "beta_in_correction": {"beta": "1"},
    "r": {"v": "-1", "(1-beta^t)": "1"},
    "c_coef": {"xi": "1/2"},
    "gamma": {"xi": "2", "r": "1", "g2": "1", "c": "1"},
    "d_coef": {"xi": "1/2", "eta": "1/2"},
    "d": {},
    "alpha": {"xi": "1", "eta": "1", "r": "1/2", "d": "1"},
    "extra_l2": {},
    "rho": {"d": "1"},
    "delta": {},
    "m": {},
    "m_in_m": {"mu": "1"},
    "delta_in_m": {"(1-mu)": "1"},
    "(1-mu)_in_m": {"(1-mu)": "1"},
    "epsilon": {},
    "clip_value": {},
}


_LATE = tuple(FACTORS)
_BEFORE_GAMMA = tuple(name for name in FACTORS if name != "gamma")  # what there is before gamma
_CLOCK = "the clock runs at another pace"
_STEP = "steps have another size"
_DECAY = "the decay has another size"
_AVERAGE = "old changes count otherwise"
_WHOLE = "steps, decay and clock have another size"


def _scale_1(name: str, root: Callable[[Any], Any], power: Callable[[Any], Any]) -> Callable[..., Any]:
    """Scale the 1 of 1 + k b, over (the root of) which a stage is one."""
    return lambda f: {name: lambda s, page: 1.0 / root(1.0 / power(page(s)) + (f(s) - 1.0))}


TARGETS: dict[str, Target] = {
    "g2": Target("the mean square", "reduce", _STEP, _EARLY, scale_stage("g2")),
    "g2_in_v": Target("the mean square that enters v", "second moment", _STEP, _EARLY, scale_given("g2", "v")),
    "1_in_v": Target("the 1 of 1 - beta, in v,", "second moment", _STEP, (), scale_share("v", lambda s: s.g2)),
    "(1-beta)_in_v": Target("the 1 - beta of v", "second moment", _STEP, ("(1-beta)",), scale_given("g2", "v")),
    "beta_in_v": Target("the beta of v", "second moment", _STEP, ("beta",), scale_given("beta", "v")),
    "beta_in_correction": Target(
        "the beta of 1 - beta^t", "bias correction", _STEP, ("beta",), scale_given("beta", "q")
    ),
    "v_in_v": Target("the old v in the new one", "second moment", _STEP, _EARLY, scale_given("old_v", "v")),
    "v": Target("v", "second moment", _STEP, _EARLY, scale_stage("v")),
    "r": Target("r = (1-beta^t)/v", "bias correction", _STEP, (*_EARLY, "v", "g2"), scale_stage("r")),
    "xi": Target("the learning rate", "schedule", _WHOLE, ("t",), scale_stage("xi")),
    "eta": Target("eta", "eta", _WHOLE, ("t", "xi", "n"), scale_stage("eta")),
    "c_coef": Target(
        "c_coef sqrt(xi) b, in c,", "c", "the decay falls at another pace", _BEFORE_GAMMA, scale_given("c_coef", "c")
    ),
    "gamma": Target("gamma", "gamma", "decay and clock run at another pace", _BEFORE_GAMMA, scale_stage("gamma")),
    "gamma_in_b": Target("the gamma that grows b", "clock", _CLOCK, _LATE, scale_given("gamma", "b")),
    "b_in_b": Target("the old b in the new", "clock", _CLOCK, _EARLY, scale_share("b", lambda s: s.old_b)),
    "b_in_growth": Target(
        "the b of gamma (1 + b)", "clock", _CLOCK, _EARLY, scale_share("b", lambda s: s.gamma * s.old_b)
    ),
    "1_in_growth": Target("the 1 of gamma (1 + b)", "clock", _CLOCK, _EARLY, scale_share("b", lambda s: s.gamma)),
    "gamma_in_rho": Target("the gamma of the decay", "weight decay", _DECAY, _LATE, scale_given("gamma", "rho")),
    "c": Target("c", "c", _DECAY, _BEFORE_GAMMA, scale_stage("c")),
    "1_in_c": Target("the 1 of 1 + c_coef sqrt(xi) b, in c,", "c", _DECAY, (), _scale_1("c", np.sqrt, np.square)),
    "d_coef": Target(
        "d_coef sqrt(xi eta) b, in d,", "d", "steps fall at another pace", _BEFORE_GAMMA, scale_given("d_coef", "d")
    ),
    "d": Target("d", "d", "steps and decay have another size", _BEFORE_GAMMA, scale_stage("d")),
    "1_in_d": Target(
        "the 1 of 1 + d_coef sqrt(xi eta) b, in d,",
        "d",
        "steps and decay have another size",
        (),
        _scale_1("d", lambda x: x, lambda x: x),
    ),
    "alpha": Target("the step size alpha", "step size", _STEP, _BEFORE_GAMMA, scale_stage("alpha")),
    "extra_l2": Target(
        "extra_l2", "weight decay", "the extra decay has another size", _BEFORE_GAMMA, scale_given("extra_l2", "rho")
    ),
    "rho": Target("the whole decay rho", "weight decay", _DECAY, _BEFORE_GAMMA, scale_stage("rho")),
    "delta": Target(
        "the whole change", "change", "steps and decay have another size", _BEFORE_GAMMA, scale_stage("delta")
    ),
    "m": Target(
        "the averaged change", "momentum", "steps and decay have another size", _BEFORE_GAMMA, scale_stage("m")
    ),
    "m_in_m": Target(
        "the old average in the new",
        "momentum",
        _AVERAGE,
        (*_EARLY, *_OF_MOMENTUM),
        scale_share("m", lambda s: s.momentum * s.old_m),
    ),
    "delta_in_m": Target(
        "the change that is averaged",
        "momentum",
        _AVERAGE,
        (*_LATE, *_OF_MOMENTUM),
        scale_share("m", lambda s: (1.0 - s.momentum) * s.delta),
    ),
    "1_in_m": Target("the 1 of 1 - mu, in m,", "momentum", _AVERAGE, (), scale_share("m", lambda s: s.delta)),
    "(1-mu)_in_m": Target(
        "the 1 - mu of the average",
        "momentum",
        _AVERAGE,
        ("(1-mu)",),
        scale_share("m", lambda s: (1.0 - s.momentum) * s.delta),
    ),
    "epsilon": Target("epsilon", "epsilon", "small gradients steer otherwise", _EARLY, scale_stage("epsilon")),
    "clip_value": Target("clip_value", "gradient", "other entries are clipped", _EARLY, scale_stage("clip_value")),
    "g": Target("the gradient", "gradient", "v and all steps have another size", _EARLY, scale_stage("g")),
    "momentum": Target("mu", "momentum", _AVERAGE, ("beta", "n"), scale_stage("momentum")),
}
#: Quantities raised to a power where the page has them plain: xi^2 for xi everywhere, and so on.
POWERS = {
    "xi": ("schedule", "the learning rate"),
    "eta": ("eta", "eta"),
    "epsilon": ("epsilon", "epsilon"),
    "beta": ("second moment", "beta"),
    "g2": ("reduce", "the mean square"),
}

#: Factors that the catalogue has words for.
WORDS = {
    "extra_l2": {-1.0: "extra_l2-sign", 0.5: "extra_l2-halved", 2.0: "extra_l2-doubled", 0.0: "extra_l2-ignored"},
    "gamma_in_rho": {-1.0: "gamma-sign", 2.0: "gamma-whole"},
}


def _shift_divisor(divisor: Callable[[Any, Any], Any], r_of: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Add something to what r divides by: `divisor` takes it from r and q = 1 - beta^t, and `r_of` goes back."""
    return lambda f: {"r": lambda s, page: r_of(divisor(page(s), s.q) + f(s), s.q)}


#: To what a number may be added.
OFFSETS = {
    name: offset(words, stage, shift_stage(name))
    for name, stage, words in (
        ("g", "gradient", "every entry of the gradient"),
        ("v", "second moment", "v"),
        ("gamma", "gamma", "gamma"),
        ("alpha", "step size", "the step size alpha"),
        ("rho", "weight decay", "the whole decay rho"),
        ("b", "clock", "b"),
        ("delta", "change", "every entry of the change"),
    )
} | {
    "v_start": offset("v at its start", "second moment", shift_start("v"), "the first steps are small"),
    "b_start": offset("b at its start", "clock", shift_start("b"), "steps and decay begin as if later"),
    "divisor": offset(
        "max(v, epsilon), by which r divides", "epsilon", _shift_divisor(lambda r, q: q / r, lambda x, q: q / x)
    ),
    "root_of_divisor": offset(
        "sqrt(max(v, epsilon)), by which r divides twice",
        "epsilon",
        _shift_divisor(lambda r, q: np.sqrt(q / r), lambda x, q: q / (x * x)),
    ),
    "root_of_divisor_in_step": offset(
        "sqrt(max(v, epsilon)), by which the step divides",
        "epsilon",
        lambda f: {"alpha": lambda s, page: page(s.but(r=s.q / np.square(np.sqrt(s.q / s.r) + f(s))))},
    ),
    "corrected_divisor": offset(
        "max(v, epsilon) / (1-beta^t), which r is one over",
        "epsilon",
        _shift_divisor(lambda r, q: 1.0 / r, lambda x, q: 1.0 / x),
    ),
    "root_of_corrected_divisor": offset(
        "sqrt(max(v, epsilon) / (1-beta^t)), which sqrt(r) is one over",
        "epsilon",
        _shift_divisor(lambda r, q: np.sqrt(1.0 / r), lambda x, q: 1.0 / (x * x)),
    ),
}

#: The page's formulas, of which a slip makes others. `divisor` is max(v, epsilon), and `change` what moves theta.
FORMULAS = {
    "epsilon": Formula("epsilon", "small gradients steer otherwise", ("2**-125",)),
    "g2": Formula("reduce", _STEP, ("mean(g*g)",)),
    "v": Formula("second moment", _STEP, ("beta*old_v + (1 - beta)*g2", "old_v + (1 - beta)*(g2 - old_v)")),
    "q": Formula("bias correction", _STEP, ("1 - beta**t", "1 - beta**(t_before + 1)", "-expm1(t*log(beta))")),
    "r": Formula("bias correction", _STEP, ("q/divisor",)),
    "c": Formula("c", _DECAY, ("1/sqrt(1 + c_coef*sqrt(xi)*old_b)",)),
    "gamma": Formula("gamma", "decay and clock run at another pace", ("c*xi**2*(r*g2)", "c*(xi*xi)*(r*g2)")),
    "d": Formula("d", "steps and decay have another size", ("1/(1 + d_coef*sqrt(xi*eta)*old_b)",)),
    "alpha": Formula("step size", _STEP, ("d*(xi*eta*sqrt(r))",)),
    "rho": Formula("weight decay", _DECAY, ("d*(gamma/2 + extra_l2)", "d*(0.5*gamma + extra_l2)")),
    "b": Formula("clock", _CLOCK, ("old_b + gamma*(1 + old_b)", "old_b*(1 + gamma) + gamma")),
    "delta": Formula(
        "change",
        _STEP,
        (
            "-(alpha*g + rho*old_theta)",
            "-d*(xi*eta*sqrt(r)*g + (gamma/2 + extra_l2)*old_theta)",
            "-(d*(xi*eta*sqrt(r))*g + d*(gamma/2 + extra_l2)*old_theta)",
        ),
    ),
    "m": Formula(
        "momentum", _AVERAGE, ("momentum*old_m + (1 - momentum)*delta", "old_m + (1 - momentum)*(delta - old_m)")
    ),
    "theta": Formula("change", _STEP, ("old_theta + change",)),
}
_MEANT: dict[str, Callable[[Any], Any]] = {
    "divisor": lambda s: np.maximum(s.v, s.epsilon),
    "t_before": lambda s: s.t - 1,
    "change": lambda s: s.delta if s.m is None else s.m,
}
_CALLED: dict[str, Callable[[Any, Any], Any]] = {
    "sqrt": lambda s, x: np.sqrt(x),
    "log": lambda s, x: np.log(x),
    "expm1": lambda s, x: np.expm1(x),
    "mean": lambda s, x: mean_of_slot(x, s.old_v.shape),
}

GRAMMAR = Grammar(
    FACTORS | _OF_MOMENTUM,
    OWN,
    TARGETS,
    POWERS,
    WORDS,
    rough=("clip_value", "epsilon", "momentum", "c_coef", "d_coef"),
    offsets=OFFSETS,
    catalogue=CATALOGUE,
    fixed=("beta_in_v", "beta_in_correction", "(1-beta)_in_v", "(1-mu)_in_m"),
    edits=edits(FORMULAS, _MEANT, _CALLED),
)
