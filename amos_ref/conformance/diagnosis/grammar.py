"""Deviations by a grammar: a quantity of the page has a factor more, or one less, than it should have.

``TARGET-times-FACTOR``, as in gamma-times-eta, c_coef-times-xi^3/2, alpha-times-1.07 or rho-times-xi*eta^-1: a factor
is a number, or a quantity of the step with an exponent. :data:`GRAMMAR` has every target with every single factor;
:func:`parse` makes any other of its name.
"""

import fractions
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.diagnosis.deviations import CATALOGUE, Deviation
from amos_ref.conformance.judging.paper import Override

Factor = tuple[str, fractions.Fraction]  # a quantity, and its exponent

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
_EARLY = ("xi", "eta", "beta", "(1-beta)", "(1-beta^t)", "beta^t", "(1+beta)", "t", "n", "b", "(1+b)")

#: What the page has of a factor already; c_coef and d_coef stand for the arguments of c and d.
OWN: dict[str, dict[str, str]] = {
    "g2": {},
    "v": {},
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
    "epsilon": {},
    "clip_value": {},
}


class Target:
    """Something of the page that a factor is put to."""

    def __init__(
        self, words: str, stage: str, effect: str, factors: tuple[str, ...], scaled: Callable[..., Any]
    ) -> None:
        self.words, self.stage, self.effect, self.factors, self.scaled = words, stage, effect, factors, scaled


def _stage(name: str) -> Callable[..., dict[str, Override]]:
    """Scale what a stage gives."""
    return lambda f: {name: lambda s, page: None if (x := page(s)) is None else x * f(s)}


def _given(name: str, stage: str) -> Callable[..., dict[str, Override]]:
    """Scale something only where a stage uses it."""
    return lambda f: {stage: lambda s, page: page(s.but(**{name: getattr(s, name) * f(s)}))}


def _share(name: str, part: Callable[[Any], Any]) -> Callable[..., dict[str, Override]]:
    """Scale one term of the sum that a stage is."""
    return lambda f: {name: lambda s, page: None if (x := page(s)) is None else x + (f(s) - 1.0) * part(s)}


_LATE = tuple(FACTORS)
_ALL = tuple(name for name in FACTORS if name != "gamma")  # what there is before gamma
_CLOCK = "the clock runs at another pace"
_STEP = "steps have another size"
_DECAY = "the decay has another size"
_AVERAGE = "old changes count otherwise"
_WHOLE = "steps, decay and clock have another size"
TARGETS: dict[str, Target] = {
    "g2": Target("the mean square", "reduce", _STEP, _EARLY, _stage("g2")),
    "g2_in_v": Target("the mean square that enters v", "second moment", _STEP, _EARLY, _given("g2", "v")),
    "v_in_v": Target("the old v in the new one", "second moment", _STEP, _EARLY, _given("old_v", "v")),
    "v": Target("v", "second moment", _STEP, _EARLY, _stage("v")),
    "r": Target("r = (1-beta^t)/v", "bias correction", _STEP, (*_EARLY, "v", "g2"), _stage("r")),
    "xi": Target("the learning rate", "schedule", _WHOLE, ("t",), _stage("xi")),
    "eta": Target("eta", "eta", _WHOLE, ("t", "xi", "n"), _stage("eta")),
    "c_coef": Target("c_coef sqrt(xi) b, in c,", "c", "the decay falls at another pace", _ALL, _given("c_coef", "c")),
    "gamma": Target("gamma", "gamma", "decay and clock run at another pace", _ALL, _stage("gamma")),
    "gamma_in_b": Target("the gamma that grows b", "clock", _CLOCK, _LATE, _given("gamma", "b")),
    "b_in_b": Target("the old b in the new", "clock", _CLOCK, _EARLY, _share("b", lambda s: s.old_b)),
    "b_in_growth": Target("the b of gamma (1 + b)", "clock", _CLOCK, _EARLY, _share("b", lambda s: s.gamma * s.old_b)),
    "1_in_growth": Target("the 1 of gamma (1 + b)", "clock", _CLOCK, _EARLY, _share("b", lambda s: s.gamma)),
    "gamma_in_rho": Target("the gamma of the decay", "weight decay", _DECAY, _LATE, _given("gamma", "rho")),
    "c": Target("c", "c", _DECAY, _ALL, _stage("c")),
    "d_coef": Target("d_coef sqrt(xi eta) b, in d,", "d", "steps fall at another pace", _ALL, _given("d_coef", "d")),
    "d": Target("d", "d", "steps and decay have another size", _ALL, _stage("d")),
    "alpha": Target("the step size alpha", "step size", _STEP, _ALL, _stage("alpha")),
    "extra_l2": Target("extra_l2", "weight decay", "the extra decay has another size", _ALL, _given("extra_l2", "rho")),
    "rho": Target("the whole decay rho", "weight decay", _DECAY, _ALL, _stage("rho")),
    "delta": Target("the whole change", "change", "steps and decay have another size", _ALL, _stage("delta")),
    "m": Target("the averaged change", "momentum", "steps and decay have another size", _ALL, _stage("m")),
    "m_in_m": Target(
        "the old average in the new", "momentum", _AVERAGE, _EARLY, _share("m", lambda s: s.momentum * s.old_m)
    ),
    "delta_in_m": Target(
        "the change that is averaged", "momentum", _AVERAGE, _LATE, _share("m", lambda s: (1.0 - s.momentum) * s.delta)
    ),
    "epsilon": Target("epsilon", "epsilon", "small gradients steer otherwise", _EARLY, _stage("epsilon")),
    "clip_value": Target("clip_value", "gradient", "other entries are clipped", _EARLY, _stage("clip_value")),
    "g": Target("the gradient", "gradient", "v and all steps have another size", _EARLY, _stage("g")),
    "momentum": Target("mu", "momentum", _AVERAGE, ("beta", "n"), _stage("momentum")),
}
_EXPONENTS = tuple(map(fractions.Fraction, ("1", "-1", "1/2", "-1/2", "2", "-2", "3/2", "-3/2", "3")))
_PLAIN = ("2", "0.5", "4", "0.25", "-1", "0", "3", repr(math.sqrt(2.0)), repr(math.sqrt(0.5)))
#: Quantities raised to a power where the page has them plain: xi^2 for xi everywhere, and so on.
POWERS = {"xi": "the learning rate", "eta": "eta", "epsilon": "epsilon", "beta": "beta", "g2": "the mean square"}


def scaled(target: str, factors: tuple[Factor, ...], number: float = 1.0) -> Deviation:
    """Return the deviation in which a target has these factors more."""
    of = TARGETS[target]

    def value(s: Any) -> Any:
        product: Any = number
        for quantity, exponent in factors:
            product = product * _power(FACTORS[quantity](s), float(exponent))
        return product

    return Deviation(
        _name(target, factors, number), of.stage, _words(target, factors, number), of.effect, of.scaled(value)
    )


def _power(x: Any, exponent: float) -> Any:
    """x^exponent, a multiple of 1/4, by roots and products; what divides by 0 is left out, as 0/0 is by ports."""
    with np.errstate(all="ignore"):
        base, times = x, abs(exponent)
        while times % 1:
            base, times = np.sqrt(base), 2 * times
        product = base * 0.0 + 1.0
        for _ in range(int(times)):
            product = product * base
        return np.where(product == 0, 1.0, 1.0 / np.where(product == 0, 1.0, product)) if exponent < 0 else product


def _exponent(x: fractions.Fraction) -> str:
    return "" if x == 1 else f"^{x}"


def _name(target: str, factors: tuple[Factor, ...], number: float) -> str:
    parts = [f"{quantity}{_exponent(x)}" for quantity, x in factors]
    return f"{target}-times-{'*'.join(parts if number == 1.0 and parts else [repr(number).removesuffix('.0'), *parts])}"


def _words(target: str, factors: tuple[Factor, ...], number: float) -> str:
    """Say it: "has an extra factor eta in gamma", or what the page has instead."""
    words, said = TARGETS[target].words, []
    for quantity, exponent in factors:
        own = fractions.Fraction(OWN.get(target, {}).get(quantity, "0"))
        if own and own + exponent == 0:
            said.append(f"lacks its factor {_raised(quantity, own)}")
        elif own:
            said.append(f"has {_raised(quantity, own + exponent)} where the page has {_raised(quantity, own)}")
        elif exponent > 0:
            said.append(f"has an extra factor {_raised(quantity, exponent)}")
        else:
            said.append(f"is divided by {_raised(quantity, -exponent)}")
    if number == 0.0:
        said = ["is left out (0)"]
    elif number != 1.0 or not said:
        said.append(f"is {number:.7g} times as large")
    return f"{words} {' and '.join(said)}"


def _raised(quantity: str, exponent: fractions.Fraction) -> str:
    if exponent == fractions.Fraction(1, 2):
        return f"sqrt({quantity.strip('()')})"
    return f"{quantity}{_exponent(exponent)}"


def power(quantity: str, exponent: fractions.Fraction) -> Deviation:
    """Return the deviation in which a quantity stands raised to a power, wherever the page has it plain."""
    words = f"has {_raised(quantity, exponent)} wherever the page has {quantity}"
    override: dict[str, Override] = {quantity: lambda s, page: _power(page(s), float(exponent))}
    stage = {"xi": "schedule", "eta": "eta", "epsilon": "epsilon", "beta": "second moment"}.get(quantity, "reduce")
    return Deviation(
        f"{quantity}{_exponent(exponent)}", stage, words, f"{POWERS[quantity]} means something else", override
    )


_TIMES = re.compile(rf"({'|'.join(TARGETS)})-times-(.+)")
_PART = re.compile(r"(\(1-beta\^t\)|beta\^t|[a-z0-9_]+|\([^)]*\))(?:\^(-?\d+(?:/\d+)?))?")


def parse(name: str) -> Deviation:
    """Return the deviation of a name; KeyError if it is none of the grammar's."""
    found = _TIMES.fullmatch(name)
    if not found:
        raise KeyError(name)
    number, factors = 1.0, []
    for part in found[2].split("*"):
        try:
            number *= float(part)
            continue
        except ValueError:
            pass
        matched = _PART.fullmatch(part)
        if not matched or matched[1] not in FACTORS:
            raise KeyError(name)
        factors.append((matched[1], fractions.Fraction(matched[2] or 1)))
    return scaled(found[1], tuple(factors), number)


def _singles() -> Iterator[Deviation]:
    for target, of in TARGETS.items():
        yield from (scaled(target, (), float(number)) for number in _PLAIN)
        yield from (scaled(target, ((factor, x),)) for factor in of.factors for x in _EXPONENTS)
    for quantity in POWERS:
        yield from (power(quantity, x) for x in (fractions.Fraction(1, 2), fractions.Fraction(2)))


#: Every target with every single factor, the simplest exponents first.
GRAMMAR: Mapping[str, Deviation] = {d.name: d for d in _singles() if d.name not in CATALOGUE}
