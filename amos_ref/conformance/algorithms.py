"""The algorithms that ports are judged by, each as a table: the machine is one, and takes from here what differs."""

import importlib
from collections.abc import Collection, Mapping
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
    options : dict of str to object
        Option -> default, as the class of this package has them.
    rate : str
        The option with the size of a step, without which nothing can be checked.
    unasked : collection of str
        Options that a port need not have, even if a case sets them: it is run with what it has instead.
    told : collection of str
        Options that a port is always told, with the defaults where a case does not set them.
    scale : str
        What each leaf is given a number of, in `Case.eta`: eta, or sigma.
    measured : str or None
        What that option is where a port is to measure it; None if none can.
    first_step : int
        The t of the first step.
    stages : dict of str to str
        What a port may show after a step, in the order in which a step computes it, with words: the first that is off
        is where to look.
    parts : dict of str to str
        Part of the state -> "slot" or "leaf", whose shape it has.
    change : str or None
        The part of the state that averages the changes of theta: a port may keep it with the opposite sign.
    along : str
        The stage with the direction that alpha multiplies.
    modules : dict of str to str
        Where the rest is: "cases" (table, random_case), "formulas" (OPTIONS, FORMULAS, ORDERS, SIZES) and "bound"
        (Bound). They are imported when they are first used.
    """

    name: str
    title: str
    options: Mapping[str, Any]
    rate: str
    unasked: Collection[str]
    told: Collection[str]
    scale: str
    measured: str | None
    first_step: int
    stages: Mapping[str, str]
    parts: Mapping[str, str]
    change: str | None
    along: str
    modules: Mapping[str, str]

    @property
    def quantities(self) -> tuple[str, ...]:
        """Theta and the parts of the state: what one step hands to the next."""
        return ("theta", *self.parts)

    def load(self, what: str) -> Any:
        """Return the module of the cases, of the formulas or of the bound."""
        return importlib.import_module(f"amos_ref.conformance.{self.modules[what]}")

    def table(self) -> "list[Case]":
        """Return all of its cases; the arrays are read-only."""
        return self.load("cases").table()


PAPER_AMOS = Algorithm(
    name="paper",
    title="paper Amos",
    options=Amos().options,
    rate="learning_rate",
    unasked=("learning_rate", "beta"),
    told=("beta", "c_coef", "d_coef"),
    scale="eta",
    measured=None,
    first_step=1,
    stages={
        "v": "v, the second moment (clip, mean of squares, beta)",
        "b": "b, the decay clock (r, c, gamma, growth of b)",
        "m": "m, the momentum (delta, mu)",
        "theta": "theta (alpha, rho, delta)",
    },
    parts={"v": "slot", "b": "slot", "m": "leaf"},
    change="m",
    along="g",
    modules={"cases": "cases", "formulas": "judging.paper", "bound": "judging.bound"},
)

CLOSED_FORM = Algorithm(
    name="closed-form",
    title="the closed form",
    options={"clip_value": None} | dict(ClosedFormAmos(half_life=1.0).options) | {"half_life": None},
    rate="alpha_0",
    unasked=("alpha_0",),
    told=("q", "decay", "direction", "beta1", "beta2", "adam_epsilon"),
    scale="sigma",
    measured="init",
    first_step=0,
    stages={
        "m": "m, Adam's first moment (clip, beta1)",
        "v": "v, Adam's second moment (clip, beta2)",
        "theta": "theta (direction, mean of squares, sigma, exp(-2 S), alpha, rho, delta)",
    },
    parts={"m": "leaf", "v": "leaf"},
    change=None,
    along="u",
    modules={"cases": "closed_form.cases", "formulas": "closed_form.formulas", "bound": "closed_form.bound"},
)

#: By name.
ALGORITHMS: Mapping[str, Algorithm] = {one.name: one for one in (PAPER_AMOS, CLOSED_FORM)}


def algorithm_of(name: Any) -> Algorithm:
    """Return an algorithm by its name, or raise TargetError."""
    if not isinstance(name, str) or name not in ALGORITHMS:
        raise TargetError(f"algorithm is {name!r:.60}; it must be {' or '.join(map(repr, ALGORITHMS))}")
    return ALGORITHMS[name]
