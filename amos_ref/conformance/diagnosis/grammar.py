"""Deviations by a grammar: a quantity of the page has a factor more, or one less, than it should have.

``TARGET-times-FACTOR``, as in gamma-times-eta, c_coef-times-xi^3/2, alpha-times-1.07 or rho-times-xi*eta^-1: a factor
is a number, or a quantity of the step with an exponent. What targets and factors there are, an algorithm says
(factors.py, closed_form/factors.py). ``TARGET-plus-NUMBER``, as in alpha-plus-0.01 or rho-minus-0.5, says
that a number is added. ``STAGE-as-FORMULA`` is a slip in a formula (edits.py).
"""

import fractions
import functools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from amos_ref.conformance.diagnosis.deviation import Catalogue, Deviation
from amos_ref.conformance.judging.paper import Override

Factor = tuple[str, fractions.Fraction]  # a quantity, and its exponent
MAY_BE_0 = ("xi", "g2")  # factors of the page that are 0 in a warm-up's first step, and where gradients vanish


class Target:
    """Something of the page that a factor is put to."""

    words: str
    stage: str
    effect: str
    factors: tuple[str, ...]
    scaled: Callable[..., Any]

    def __init__(
        self, words: str, stage: str, effect: str, factors: tuple[str, ...], scaled: Callable[..., Any]
    ) -> None:
        self.words, self.stage, self.effect, self.factors, self.scaled = words, stage, effect, factors, scaled


def scale_stage(name: str) -> Callable[..., dict[str, Override]]:
    """Scale what a stage gives."""
    return lambda f: {name: lambda s, page: None if (x := page(s)) is None else x * f(s)}


def shift_stage(name: str) -> Callable[..., dict[str, Override]]:
    """Add something to what a stage gives."""
    return lambda f: {name: lambda s, page: None if (x := page(s)) is None else x + f(s)}


def shift_start(name: str) -> Callable[..., dict[str, Override]]:
    """Add something to what a part of the state starts as."""

    def shifted(f: Callable[[Any], Any]) -> dict[str, Override]:
        def start(s: Any, page: Any) -> Any:
            first = s.memory.setdefault(f"start of {name}", s.count) == s.count
            return page(s) + f(s) if first else page(s)

        return {f"old_{name}": start}

    return shifted


def scale_given(name: str, stage: str) -> Callable[..., dict[str, Override]]:
    """Scale something only where a stage uses it."""
    return lambda f: {stage: lambda s, page: page(s.but(**{name: getattr(s, name) * f(s)}))}


def scale_share(name: str, part: Callable[[Any], Any]) -> Callable[..., dict[str, Override]]:
    """Scale one term of the sum that a stage is."""
    return lambda f: {name: lambda s, page: None if (x := page(s)) is None else x + (f(s) - 1.0) * part(s)}


_EXPONENTS = tuple(map(fractions.Fraction, ("1", "-1", "1/2", "-1/2", "2", "-2", "3/2", "-3/2", "3")))
_PLAIN = ("2", "0.5", "4", "0.25", "-1", "0", "3", repr(math.sqrt(2.0)), repr(math.sqrt(0.5)))


def offset(words: str, stage: str, shifted: Callable[..., dict[str, Override]], effect: str = "") -> Target:
    """Return something to which a number may be added."""
    return Target(words, stage, effect or "where that is small, the number is most of it", (), shifted)


class Grammar:
    """The targets and factors of an algorithm.

    Parameters
    ----------
    factors : dict of str to callable
        Quantities that a formula may have as a factor, as far as they are known where it is computed.
    own : dict of str to dict
        What the page has of a factor already, by target.
    targets : dict of str to Target
    powers : dict of str to (str, str)
        Quantities raised to a power where the page has them plain: their stage, and what they are in words.
    words : dict of str to dict
        Factors of a target that the catalogue has words for.
    rough : collection of str
        Targets whose factor the fit may miss, since the port's numbers do not follow it smoothly.
    offsets : dict of str to Target
        To what a number may be added.
    fixed : collection of str
        Targets in whose place any number may stand, where a port has fixed an option. Only the fit looks for these.
    edits : dict of str to Deviation, optional
        Single edits of the formulas (edits.py), which are tried one by one.
    catalogue : Catalogue
        Its names are left out.
    """

    factors: Mapping[str, Callable[[Any], Any]]
    own: Mapping[str, Mapping[str, str]]
    targets: Mapping[str, Target]
    powers: Mapping[str, tuple[str, str]]
    words: Mapping[str, Mapping[float, str]]
    rough: tuple[str, ...]
    edits: Mapping[str, Deviation]
    catalogue: Catalogue

    def __init__(
        self,
        factors: Mapping[str, Callable[[Any], Any]],
        own: Mapping[str, Mapping[str, str]],
        targets: Mapping[str, Target],
        powers: Mapping[str, tuple[str, str]],
        words: Mapping[str, Mapping[float, str]],
        rough: Collection[str],
        offsets: Mapping[str, Target],
        catalogue: Catalogue,
        fixed: Collection[str] = (),
        edits: Mapping[str, Deviation] | None = None,
    ) -> None:
        self.factors, self.own, self.targets, self.powers, self.words = factors, own, targets, powers, words
        self.rough, self.catalogue = tuple(rough), catalogue
        self.offsets, self.fixed, self.edits = offsets, tuple(fixed), edits or {}
        parts = "|".join(map(re.escape, sorted(factors, key=len, reverse=True)))
        self._part = re.compile(rf"({parts})(?:\^(-?\d+(?:/\d+)?))?")
        self._times = re.compile(rf"({'|'.join(map(re.escape, targets))})-times-(.+)")
        self._plus = re.compile(rf"({'|'.join(offsets)})-(plus|minus)-(.+)")

    def scaled(self, target: str, factors: tuple[Factor, ...], number: float = 1.0) -> Deviation:
        """Return the deviation in which a target has these factors more."""
        of, own = self.targets[target], self.own.get(target, {})
        lacking = [what for what, x in factors if what in MAY_BE_0 and x == -fractions.Fraction(own.get(what, 0))]

        def value(s: Any) -> Any:
            product: Any = number
            for quantity, exponent in factors:
                if quantity not in lacking:
                    product = product * _power(self.factors[quantity](s), float(exponent))
            return product

        words = self._describe(target, factors, number)
        overrides = {stage: _without(lacking, override) for stage, override in of.scaled(value).items()}
        return Deviation(_name(target, factors, number), of.stage, words, of.effect, overrides)

    def _describe(self, target: str, factors: tuple[Factor, ...], number: float) -> str:
        """Say it: "has an extra factor eta in gamma", or what the page has instead."""
        said = []
        for quantity, exponent in factors:
            own = fractions.Fraction(self.own.get(target, {}).get(quantity, "0"))
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
        return f"{self.targets[target].words} {' and '.join(said)}"

    def shifted(self, target: str, number: float) -> Deviation:
        """Return the deviation in which a number is added to a stage."""
        of = self.offsets[target]
        words, sign = (f"adds {number:.7g} to {of.words}", "plus")
        if number < 0:
            words, sign = (f"subtracts {-number:.7g} from {of.words}", "minus")
        return Deviation(f"{target}-{sign}-{abs(number)!r}", of.stage, words, of.effect, of.scaled(lambda s: number))

    def power(self, quantity: str, exponent: fractions.Fraction) -> Deviation:
        """Return the deviation in which a quantity stands raised to a power, wherever the page has it plain."""
        stage, meant = self.powers[quantity]
        words = f"has {_raised(quantity, exponent)} wherever the page has {quantity}"
        override: dict[str, Override] = {quantity: lambda s, page: _power(page(s), float(exponent))}
        return Deviation(f"{quantity}{_exponent(exponent)}", stage, words, f"{meant} means something else", override)

    def parse(self, name: str) -> Deviation:
        """Return the deviation of a name; KeyError if it is none of the grammar's."""
        if name in self.edits:
            return self.edits[name]
        found = self._plus.fullmatch(name)
        if found:
            try:
                return self.shifted(found[1], float(found[3]) * (1.0 if found[2] == "plus" else -1.0))
            except ValueError:
                raise KeyError(name) from None
        found = self._times.fullmatch(name)
        if not found:
            raise KeyError(name)
        number, factors = 1.0, []
        for part in found[2].split("*"):
            try:
                number *= float(part)
                continue
            except ValueError:
                pass
            matched = self._part.fullmatch(part)
            if not matched:
                raise KeyError(name)
            factors.append((matched[1], fractions.Fraction(matched[2] or 1)))
        return self.scaled(found[1], tuple(factors), number)

    def _all(self) -> Iterator[Deviation]:
        for target, of in self.targets.items():
            if target in self.fixed:
                continue
            yield from (self.scaled(target, (), float(number)) for number in _PLAIN)
            yield from (self.scaled(target, ((factor, x),)) for factor in of.factors for x in _EXPONENTS)
        for quantity in self.powers:
            yield from (self.power(quantity, x) for x in (fractions.Fraction(1, 2), fractions.Fraction(2)))

    @functools.cached_property
    def singles(self) -> dict[str, Deviation]:
        """Every target with every single factor, the simplest exponents first."""
        return {d.name: d for d in self._all() if d.name not in self.catalogue}

    @functools.cached_property
    def unfitted(self) -> list[str]:
        """The names of those that the fit does not look for."""
        fitted = set(self.targets) - set(self.rough)
        return [name for name in self.singles if name.partition("-times-")[0] not in fitted]


def _without(lacking: Collection[str], override: Override) -> Override:
    """Give the page 1 for what it is to lack as a factor: it cannot be divided by that again where it is 0."""
    if not lacking:
        return override

    def without(s: Any, page: Callable[[Any], Any]) -> Any:
        return override(s, lambda now: page(now.but(**{what: np.ones_like(getattr(now, what)) for what in lacking})))

    return without


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


def _raised(quantity: str, exponent: fractions.Fraction) -> str:
    if exponent == fractions.Fraction(1, 2):
        return f"sqrt({quantity.strip('()')})"
    return f"{quantity}{_exponent(exponent)}"
