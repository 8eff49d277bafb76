"""Other algorithms that a port may be instead of paper Amos, each a reading of its own: docs/variants.md.

Each has a rule, one step of one leaf in NumPy, and settings: what a port may have chosen, or have as its default,
without the judge being able to ask for it. As in judging/reading.py, the numbers that enter decide in which
arithmetic a rule computes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import Arrays, Case
from amos_ref.conformance.judging.reading import Step

TINY = 2.0**-126  # the least that the newer variants divide by: the smallest normal number of float32
GIVEN = "as given"  # what the case asks for

Settings = Mapping[str, Any]


class Variant(NamedTuple):
    """An algorithm that is not paper Amos.

    Attributes
    ----------
    name : str
    about : str
        What it is and where it is from.
    rule : callable
        ``rule(step)`` sets v, b, m and theta of a step from old_v, old_b, old_m (0.0 at the start) and old_theta.
    settings : dict of str to tuple
        What to try: values by the name under which the rule finds them.
    """

    name: str
    about: str
    rule: Callable[[Any], None]
    settings: Mapping[str, tuple[Any, ...]]


class VariantReading:
    """A variant with one value for each of its settings; `number` and `store` are those of a Reading."""

    rule: Callable[[Any], None]
    settings: Settings
    number: Callable[[Any], Any]
    store: Callable[[str, Any], Any]

    def __init__(
        self,
        rule: Callable[[Any], None],
        settings: Settings,
        number: Callable[[Any], Any] = np.float64,
        store: Callable[[str, Any], Any] = lambda what, a: a,
    ) -> None:
        self.rule, self.settings, self.number, self.store = rule, settings, number, store

    def run(
        self, case: Case, etas: Mapping[str, float], follow: Sequence[Mapping[str, Arrays]] = ()
    ) -> Iterator[dict[str, Step]]:
        """Yield each step of a case, leaf by leaf; a leaf without a gradient keeps its last step, if it had one.

        With `follow`, what a port showed after each step, every step starts from the port's theta.
        """
        number, shared = self.number, self._shared(case)
        start = dict(old_v=0.0, old_b=0.0, old_m=0.0)
        state = {name: dict(start, old_theta=number(a), memory={}) for name, a in case.params.items()}
        own = dict.fromkeys(state, 0)
        now: dict[str, Step] = {}
        rates = case.learning_rates()
        for count, gradients in enumerate(case.grads, 1):
            xi = rates[max(count - 2, 0) if shared["from_0"] else count - 1]
            grads = _clip_together({name: number(g) for name, g in gradients.items() if g is not None}, shared["norm"])
            for name, g in grads.items():
                own[name] += 1
                old, given = state[name], dict(g=g, xi=number(xi), eta=number(etas[name]), slot=case.slots[name])
                t = own[name] if shared["own_count"] else count
                step = Step(name=name, count=count, t=t, **given, **old, **shared)
                with np.errstate(all="ignore"):
                    self.rule(step)
                    old |= {f"old_{what}": self.store(what, getattr(step, what)) for what in ("v", "b", "m", "theta")}
                now[name] = step
            yield dict(now)
            for name, a in follow[count - 1]["theta"].items() if follow else ():
                state[name]["old_theta"] = number(a)

    def _shared(self, case: Case) -> dict[str, Any]:
        """Return the numbers of all steps: a setting wins over the case, unless it is GIVEN."""
        o = dict(ALGORITHMS[case.algorithm].options) | case.options
        if case.algorithm == "closed-form":
            given = dict(beta=o["beta2"], momentum=o["beta1"], l2=0.0, norm=o["clip_value"])
            own = "adam_epsilon"
        else:
            given = dict(beta=o["beta"], momentum=o["momentum"] or 0.0, l2=o["extra_l2"], norm=o["clip_value"])
            own = "epsilon"
        if own in case.options:  # a setting is a port's default, which the case replaces
            given["epsilon"] = o[own]
        chosen = {k: x for k, x in self.settings.items() if x != GIVEN and (k != "epsilon" or k not in given)}
        found = {"own_count": False, "from_0": False, "norm": None} | given | chosen
        found["norm"] = found["norm"] if "norm" in self.settings else None
        return {k: self.number(x) if type(x) is float else x for k, x in found.items()}


def _clip_together(grads: dict[str, Any], norm: float | None) -> dict[str, Any]:
    """Scale all gradients to a joint norm, if theirs is larger."""
    if norm is None or not grads:
        return grads
    own = np.sqrt(sum(np.sum(g * g) for g in grads.values()))
    return {name: g * (norm / own) for name, g in grads.items()} if own > norm else grads


def mean(x: Any, slot: tuple[int, ...]) -> Any:
    """Mean over a slot's reduced axes."""
    total = spec.fold(x, spec.runs(x.shape, slot)).reshape(slot)
    return total / max(x.size // max(math.prod(slot), 1), 1)


# the first author's newer variants


def corrected(nu: Any, beta: Any, t: int) -> Any:
    # nu_hat = (1 - beta) / (1 - beta^t) nu                           nu is a sum, nu = beta nu + g2
    return nu * ((1.0 - beta) / spec.one_minus_power(beta, t))


def clip_by_nu(s: Any) -> Any:
    # |g| <= sqrt(nu_hat / (1 - beta)), nu_hat before this step; no bound where nu is still 0
    if not s.nu_clip or s.t == 1:
        return s.g
    bound = corrected(s.old_v, s.beta, s.t - 1) / (1.0 - s.beta)
    return s.g / np.sqrt(np.maximum(np.where(bound > 0.0, s.g * s.g / np.where(bound > 0.0, bound, 1.0), 1.0), 1.0))


def scheduled(s: Any, u: Any, g2: Any, adaptive: bool) -> Any:
    """Set b and return the change of theta along u, a normalised direction with mean square g2 in each slot."""
    # q = sqrt(1 - 1/sqrt k);  tau = q log(sqrt(k) (1 + q)^2)          k entries a slot
    root_k = math.sqrt(s.g.size / max(np.size(g2), 1))
    q = math.sqrt(1.0 - 1.0 / root_k)
    tau = q * math.log(root_k * (1.0 + q) ** 2)
    # x = xi^2 / sqrt(1 + b), adaptive: xi^2 / max(g2, sqrt(1 + b))    old b
    root_b = np.sqrt(1.0 + s.old_b)
    x = s.xi * s.xi / (np.maximum(g2, root_b) if adaptive else root_b)
    # P = 1 + l2 ((1 + tau/2)^2 - 1)^2;  Q = 1 + l2 b^2;  R = (1 + l2 b B) / (1 + l2 Q/P)
    # B = (2 sqrt(1 + b) / (1 + sqrt(1 + 2/(2 + tau) sqrt(1 + b))))^2 - 1
    big_p, big_q = 1.0 + s.l2 * ((1.0 + tau / 2.0) ** 2 - 1.0) ** 2, 1.0 + s.l2 * (s.old_b * s.old_b)
    big_b = (2.0 * root_b / (1.0 + np.sqrt(1.0 + 2.0 / (2.0 + tau) * root_b))) ** 2 - 1.0
    big_r = (1.0 + s.l2 * (s.old_b * big_b)) / (1.0 + s.l2 * (big_q / big_p))
    # b = b + x (1/sqrt k + b), adaptive: g2/sqrt k
    s.b = s.old_b + x * ((g2 if adaptive else 1.0) / root_k + s.old_b)
    # delta = -(x/2 (P/Q g2 + l2) theta + eta xi u) / (1 + eta sqrt(1 + b) R B)
    decay = 0.5 * x * (big_p / big_q * g2 + s.l2)
    return -(decay * s.old_theta + s.eta * s.xi * u) / (1.0 + s.eta * root_b * big_r * big_b)


def adam_with_amos(s: Any) -> None:
    g = clip_by_nu(s)
    s.m, s.v = spec.average(s.old_m, g, s.momentum), s.beta * s.old_v + g * g
    nu_hat = corrected(s.v, s.beta, s.t)
    # g2 = (1 + beta1) / (1 - beta1) mean(m^2) / mean(nu_hat);  m is not debiased
    g2 = mean(s.m * s.m, s.slot) / np.maximum(mean(nu_hat, s.slot), TINY) * ((1.0 + s.momentum) / (1.0 - s.momentum))
    s.theta = s.old_theta + scheduled(s, s.m / np.sqrt(np.maximum(nu_hat, TINY)), g2, adaptive=True)


def reduced_amos(s: Any) -> None:
    g = clip_by_nu(s)
    g2 = mean(g * g, s.slot)
    s.v = s.beta * s.old_v + g2
    nu_hat = np.maximum(corrected(s.v, s.beta, s.t), TINY)
    s.m = spec.average(s.old_m, scheduled(s, g / np.sqrt(nu_hat), g2 / nu_hat, adaptive=False), s.momentum)
    s.theta = s.old_theta + s.m


# the derivation's Amos, from the page amos_ref/closed_form.py


def direction(s: Any) -> Any:
    if s.direction == "adam":
        s.m, s.v, u = adam(s)
        return u
    s.m = s.v = 0.0
    return np.sign(s.g) if s.direction == "sign" else s.g


def closed_form_amos(s: Any) -> None:
    sigma = s.memory.setdefault("sigma", closed_form.initial_sigma(s.old_theta)) if s.sigma == "initial" else s.eta
    u, s.b = direction(s), 0.0
    # A learning rate of 0, for which there is no schedule, moves nothing.
    shrink = float(closed_form.Schedule(float(s.xi), **s.schedule).shrink(s.t - 1)) if s.xi else 0.0
    s.theta = closed_form.step(s.old_theta, u, sigma, s.slot, shrink, s.xi, 1.0, TINY)["theta"]


# what a port may be by mistake


def adam(s: Any) -> tuple[Any, Any, Any]:
    """Return m, v and Adam's direction; `place` says where epsilon goes: behind the root, within it, or uncorrected."""
    m, v = spec.average(s.old_m, s.g, s.momentum), spec.second_moment(s.old_v, s.g * s.g, s.beta)
    q1, q2 = spec.one_minus_power(s.momentum, s.t), spec.one_minus_power(s.beta, s.t)
    if s.place == "within":
        return m, v, m / q1 / np.sqrt(v / q2 + s.epsilon)
    if s.place == "uncorrected":
        return m, v, m * (np.sqrt(q2) / q1) / (np.sqrt(v) + s.epsilon)
    return m, v, m / q1 / (np.sqrt(v / q2) + s.epsilon)


def adam_w(s: Any) -> None:
    kind, decay = s.decay
    decay = s.l2 if decay == GIVEN else decay
    if kind == "l2":
        s.g = s.g + decay * s.old_theta
    s.m, s.v, u = adam(s)
    s.b, s.theta = 0.0, s.old_theta - s.xi * (u + decay * s.old_theta if kind == "decoupled" else u)


def sgd(s: Any) -> None:
    g = s.g + s.l2 * s.old_theta
    s.v = s.b = 0.0
    s.m = s.momentum * s.old_m + (g if s.undamped else (1.0 - s.momentum) * g)
    s.theta = s.old_theta - s.xi * (s.momentum * s.m + g if s.nesterov else s.m)


_ADAM = {
    "momentum": (GIVEN, 0.9),
    "epsilon": (1e-8, 1e-7, 1e-6, 0.0),
    "place": ("behind", "uncorrected", "within"),
}
_NEW_AMOS = {"momentum": (GIVEN, 0.9), "norm": (None, 1.0, GIVEN), "nu_clip": (True, False)}

_NEWER = "the first author's newer {} (AlgoPerf 2024)"
_DERIVED = "Su Jianlin's derivation, amos_ref.ClosedFormAmos"

#: Settings that are not listed here, the schedules of the closed form, are measured: see recognise.py.
OTHER_ALGORITHMS: tuple[Variant, ...] = (
    Variant("adam_with_amos", _NEWER.format("Adam with Amos's schedules"), adam_with_amos, _NEW_AMOS),
    Variant("reduced_amos", _NEWER.format("Amos, whose clock runs without the gradient"), reduced_amos, _NEW_AMOS),
    Variant(
        "the closed form",
        _DERIVED,
        closed_form_amos,
        {"sigma": ("eta", "initial"), "direction": ("gradient", "sign")},
    ),
    Variant(
        "the closed form with Adam's direction",
        _DERIVED,
        closed_form_amos,
        {"sigma": ("eta", "initial"), "direction": ("adam",), **_ADAM},
    ),
    Variant("Adam", "Kingma & Ba 2015, with weight decay in the gradient if any", adam_w,
            {**_ADAM, "decay": (("l2", GIVEN), ("l2", 0.0))}),
    Variant("AdamW", "Loshchilov & Hutter 2019, decoupled weight decay", adam_w,
            {**_ADAM, "decay": tuple(("decoupled", x) for x in (GIVEN, 0.01, 1e-4, 0.004, 1e-3, 0.1))}),
    Variant("SGD", "the gradient itself, or its running sum", sgd,
            {"momentum": (GIVEN, 0.9), "undamped": (True, False), "nesterov": (False, True)}),
)  # fmt: skip
