"""The algorithms that ports are judged by, each as a table: the machine is one, and takes from here what differs."""

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from amos_ref.errors import TargetError
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos

if TYPE_CHECKING:
    from amos_ref.conformance.cases import Case


class Algorithm(NamedTuple):
    """What the machine must know of an algorithm.

    Attributes
    ----------
    name : str
        By which users choose it.
    title : str
        In words.
    mention : str
        What reports say of it behind the name of a port.
    options : dict of str to object
        Option -> default, as the class of this package has them.
    rate, rate_in_words : str
        The option with the size of a step, without which nothing can be checked.
    stepwise : collection of str
        Options that may be another number at each step.
    unasked : collection of str
        Options that a port need not have, even if a case sets them: it is run with what it has instead.
    told : collection of str
        Options that a port is always told, with the defaults where a case does not set them.
    scale : str
        What each leaf is given a number of, in `Case.eta`: eta, or sigma.
    measured : str or None
        What that option is where a port is to measure it; None if none can.
    words : dict of str to tuple of str
        Option -> the words that it may be. One of a port without the option is its default, unless the port says
        otherwise.
    exchange : callable
        ``exchange(options, has)`` returns a case's options as a port that has those options can be given them.
    first_step : int
        The t of the first step.
    stages : dict of str to str
        What a port may show after a step, in the order in which a step computes it, with words: the first that is off
        is where to look.
    parts : dict of str to str
        Part of the state -> "slot" or "leaf", whose shape it has.
    change : str or None
        The part of the state that averages the changes of theta: a port may keep it with the opposite sign.
    otherwise : dict of str to float
        Options of another optimizer, into which a state_dict is loaded.
    at_times : collection of str
        Parts of the state that only some options bring.
    along : str
        The stage with the direction that alpha multiplies.
    modules : dict of str to str
        Where the rest is: "cases" (table, random_case), "formulas" (OPTIONS, FORMULAS, ORDERS, SIZES) and
        "bound" (Bound). They are imported when they are first used.
    """

    name: str
    title: str
    mention: str
    options: dict[str, Any]
    rate: str
    rate_in_words: str
    stepwise: Collection[str]
    unasked: Collection[str]
    told: Collection[str]
    scale: str
    measured: str | None
    words: Mapping[str, tuple[str, ...]]
    exchange: Callable[[Mapping[str, Any], Collection[str]], Mapping[str, Any]]
    first_step: int
    stages: Mapping[str, str]
    parts: Mapping[str, str]
    change: str | None
    otherwise: dict[str, float]
    at_times: Collection[str]
    along: str
    modules: Mapping[str, str]

    @property
    def quantities(self) -> tuple[str, ...]:
        """Theta and the parts of the state: what one step hands to the next."""
        return ("theta", *self.parts)

    def load(self, what: str) -> Any:
        """Return the module of the cases, of the formulas or of the bound."""
        return importlib.import_module(f"amos_ref.conformance.{self.modules[what]}")

    def scale_rule(self, **rules: Any) -> Any:
        """Return what a port hard-codes, by the name of the scale; TargetError for the scale of another algorithm."""
        for name, rule in rules.items():
            if rule is not None and name != self.scale:
                raise TargetError(f"{self.title} has no {name}; what a port of it hard-codes is its {self.scale}")
        return rules[self.scale]

    def read_words(self, words: Mapping[str, str | Iterable[str]]) -> dict[str, tuple[str, ...]]:
        """Return the words of each option, one alone as one of several; TargetError for what is none."""
        found = {option: (known,) if isinstance(known, str) else tuple(known) for option, known in words.items()}
        for option, known in found.items():
            if option not in self.words:
                having = f"those that have are {', '.join(self.words)}" if self.words else "no option has"
                raise TargetError(f"{self.title}: {option!r:.60} is no option that has words; {having}")
            for word in known:
                if word not in self.words[option]:
                    raise TargetError(
                        f"there is no {option} {word!r:.60}; it is one of {', '.join(self.words[option])}"
                    )
        return found

    def table(self) -> "list[Case]":
        """Return all of its cases; the arrays are read-only."""
        return self.load("cases").table()


def _one_for_the_other(options: Mapping[str, Any], has: Collection[str]) -> Mapping[str, Any]:
    """Return options with p_0 for a half-life that a port has not, or the other way, where one is exactly the other."""
    for ours, theirs in (("half_life", "p_0"), ("p_0", "half_life")):
        falls = options.get("decay") != "inverse-square" and options.get("p_t") != "constant"
        if ours in options and ours not in has and theirs in has and falls:
            exact = 1 / (2 * Fraction(options["alpha_0"]) * Fraction(options[ours]))  # alpha_0 p_0 = 1 / (2 T)
            if Fraction(float(exact)) == exact:
                return {name: x for name, x in options.items() if name != ours} | {theirs: float(exact)}
    return options


PAPER_AMOS = Algorithm(
    name="paper",
    title="paper Amos",
    mention="",
    options=Amos(eta=0.5).options,
    rate="learning_rate",
    rate_in_words="the learning rate",
    stepwise=("learning_rate",),
    unasked=("learning_rate", "beta"),
    told=("beta", "c_coef", "d_coef"),
    scale="eta",
    measured=None,
    words={},
    exchange=lambda options, has: options,
    first_step=1,
    stages={
        "v": "v, the second moment (clip, mean of squares, beta)",
        "b": "b, the decay clock (r, c, gamma, growth of b)",
        "m": "m, the momentum (delta, mu)",
        "theta": "theta (alpha, rho, delta)",
    },
    parts={"v": "slot", "b": "slot", "m": "leaf"},
    change="m",
    otherwise={"learning_rate": 0.0625, "beta": 0.5},
    at_times=("m",),
    along="g",
    modules={"cases": "cases", "formulas": "judging.paper", "bound": "judging.bound"},
)

CLOSED_FORM = Algorithm(
    name="closed-form",
    title="the closed form",
    mention=" as the closed form",
    options={"clip_value": None} | dict(ClosedFormAmos(half_life=1.0).options) | {"half_life": None},
    rate="alpha_0",
    rate_in_words="alpha_0, the size of the first step",
    stepwise=(),
    unasked=("alpha_0", "beta1", "beta2", "adam_epsilon"),
    told=("q", "decay", "direction", "beta1", "beta2", "adam_epsilon"),
    scale="sigma",
    measured="init",
    words={
        "decay": ("inverse-time", "inverse-square", "recurrence"),
        "direction": ("gradient", "adam", "sign"),
        "p_t": ("falling", "constant"),
        "sigma": ("init",),
    },
    exchange=_one_for_the_other,
    first_step=0,
    stages={
        "m": "m, Adam's first moment (clip, beta1)",
        "v": "v, Adam's second moment (clip, beta2)",
        "theta": "theta (direction, mean of squares, sigma, exp(-2 S), alpha, rho, delta)",
    },
    parts={"m": "leaf", "v": "leaf"},
    change=None,
    otherwise={"alpha_0": 0.0625, "half_life": 16.0},
    at_times=("m", "v"),
    along="u",
    modules={what: f"closed_form.{what}" for what in ("cases", "formulas", "bound")},
)

#: By name.
ALGORITHMS: Mapping[str, Algorithm] = {one.name: one for one in (PAPER_AMOS, CLOSED_FORM)}


def algorithm_of(name: Any) -> Algorithm:
    """Return an algorithm by its name, or raise TargetError."""
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise TargetError(f"algorithm is {name!r:.60}; it must be {' or '.join(map(repr, ALGORITHMS))}")
    return ALGORITHMS[name]
