"""The derivation: an Amos whose step size and weight decay follow one closed form, equation by equation.

This is the algorithm of the project's founding document, after Su Jianlin's article (kexue.fm 9344). It is *not*
paper Amos (:mod:`amos_ref.spec`). The two have only the form of the update in common::

    theta_{t+1} = theta_t - (alpha_t u_t + rho_t theta_t)            t = 0, 1, 2, ...

Here u is any direction, such as the gradient or Adam's, and eps_t = theta_t - theta* is the error. The functions come
in the order of the document, each below its equation. Where the document approximates ("~"), both sides have a
function. It has slips, which are corrected here:

* the sums run from i = 1 to t - 1, where the recursion from S_0 = 0 has i = 0 as well;
* "2 rho (eps + theta*)" drops its factor eps;
* the source has |eps_0|^2 ~ 2 k sigma^2 for unrelated theta_0 and theta*, and drops the 2;
* alpha_0 |u_0| = lambda |eps_0|^2 becomes lambda = alpha_0 / |eps_0| only by assuming |u_0| = |eps_0|.

A step needs nothing but + - * / and sqrt, and so do the closed forms, so their bits are the same everywhere. The
recurrences need exp and log1p, whose last bit depends on the platform.
"""

import math
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.errors import HyperParameterError, ScheduleError
from amos_ref.options import check_options
from amos_ref.outside import pass_on
from amos_ref.rules import number

MOST_STEPS = 10_000_000  # of a recurrence that must be iterated


# the error after one step


def error_after(eps, alpha, u, rho, theta):
    # |eps_{t+1}|^2 = |eps_t - (alpha_t u_t + rho_t theta_t)|^2
    return squared(eps - (alpha * u + rho * theta))


def error_after_approx(eps, alpha, u, rho, theta):
    #               ~ |eps_t|^2 - 2 alpha_t u_t.eps_t + (alpha_t^2 |u_t|^2 - 2 rho_t theta_t.eps_t)
    return squared(eps) - 2 * alpha * dot(u, eps) + (alpha**2 * squared(u) - 2 * rho * dot(theta, eps))


def q_of(theta, eps):
    # theta_t.eps_t = |eps_t|^2 + theta*.eps_t ~ q |eps_t|^2         q = 1 where theta* is 0 or at a right angle
    return dot(theta, eps) / squared(eps)


def p_of(u, eps):
    # u_t.eps_t = |u_t| |eps_t| cos(u_t, eps_t) ~ p |u_t| |eps_t|
    return dot(u, eps) / (math.sqrt(squared(u)) * math.sqrt(squared(eps)))


def balanced_step(rho, q, eps, u):
    # alpha_t^2 |u_t|^2 = 2 rho_t q |eps_t|^2                         makes the bracket above 0
    return math.sqrt(2 * rho * q * squared(eps) / squared(u))


def remaining(p, rho, q):
    # |eps_{t+1}|^2 / |eps_t|^2 ~ 1 - 2 p sqrt(2 rho_t q)
    return 1 - 2 * p * np.sqrt(2 * rho * q)


def remaining_approx(p, rho, q):
    #                           ~ exp(-2 p sqrt(2 rho_t q)), whose product over t is exp(-2 S_t)
    return np.exp(-2 * p * np.sqrt(2 * rho * q))


# step size and weight decay, from 2 rho_t q = lambda^2 |eps_t|^2 (a choice: both then decay alike)


def lambda_of(alpha_0, eps_0, u_0):
    # alpha_0 |u_0| = lambda |eps_0|^2       ~ alpha_0 / |eps_0| where |u_0| = |eps_0|
    return alpha_0 * math.sqrt(squared(u_0)) / squared(eps_0)


def step_size(alpha_0, ratio, shrink):
    # alpha_t = alpha_0 |eps_0| / |u_t| exp(-2 S_t)                   ratio = |eps_0| / |u_t|, shrink = exp(-2 S_t)
    return alpha_0 * ratio * shrink


def weight_decay(alpha_0, q, shrink):
    # rho_t = alpha_0^2 / (2q) exp(-2 S_t)
    return alpha_0 * alpha_0 / (2.0 * q) * shrink


def initial_error(k, sigma):
    # |eps_0|^2 = |theta_0 - theta*|^2 ~ k sigma^2
    return k * sigma**2


def initial_sigma(theta):
    # sigma^2 = |theta_0|^2 / k; 0.5 where all entries are 0 or all are 1
    if np.all(theta == 0.0) or np.all(theta == 1.0):
        return 0.5
    return float(np.sqrt(spec.mean_square(theta, ())))


def scale_ratio(sigma, u2, epsilon):
    # |eps_0| / |u_t| = sigma / sqrt(mean(u^2)); epsilon keeps a direction of 0 from dividing by 0
    return sigma / np.sqrt(np.maximum(u2, epsilon))


def decide(u2, sigma, shrink, alpha_0, q, epsilon):
    """Return (alpha, rho) of a slot from u2, its mean square of the direction."""
    return step_size(alpha_0, scale_ratio(sigma, u2, epsilon), shrink), weight_decay(alpha_0, q, shrink)


def step(theta, u, sigma, slot_shape, shrink, alpha_0, q, epsilon, mean=None):
    """One step of one array, float64 in and out: every intermediate by its name."""
    u2 = (mean or spec.mean_square)(u, slot_shape)
    alpha, rho = decide(u2, sigma, shrink, alpha_0, q, epsilon)
    rho = np.full_like(alpha, rho)
    delta = spec.change(alpha, u, rho, theta)
    return dict(u=u, u2=u2, alpha=alpha, rho=rho, delta=delta, theta=theta + delta)


# S_t = sum of p_i sqrt(2 rho_i q), i < t; S_{t+1} = S_t + alpha_0 p_t exp(-S_t); dS/dt ~ alpha_0 p_t exp(-S)


def shrink_inverse_square(x):
    # p constant:            exp(-2 S_t) = 1 / (1 + alpha_0 p t)^2            x = alpha_0 p t
    return 1.0 / (1.0 + x * (2.0 + x))


def shrink_inverse_time(x):
    # p_t = p_0 exp(-S_t):   exp(-2 S_t) = 1 / (1 + 2 alpha_0 p_0 t)          x = 2 alpha_0 p_0 t
    return 1.0 / (1.0 + x)


def recurrence(t, k):
    """R_t of R_0 = 0, R_{t+1} = R_t + k exp(-R_t), for whole t of any size, without the t iterations.

    S_t is R_t for constant p with k = alpha_0 p, and R_t / 2 for p_t = p_0 exp(-S_t) with k = 2 alpha_0 p_0.

    y = exp(R) / k obeys y_{t+1} = y_t exp(1/y_t), without a parameter. Abel's equation A(y exp(1/y)) = A(y) + 1 is
    solved by A(y) = y - log(y)/2 + c_1/y + c_2/y^2 + ..., so that A(y_t) = A(y_0) + t is solved for the way
    y_t - y_0 by fixed-point iteration. Where y < 64 the recurrence itself is iterated, at most 64 times.

    Error: cut behind c_8 the equation has a residual E(z), z = 1/y, entire with a zero of order 10 at 0, so
    |E(z)| <= M |z|^10 on |z| <= 1 with M = e - 3/2 + sum |c_j| (e^j - 1) < 28 (Schwarz). Summed over all steps from
    y >= 64 on it moves y_t by less than 2e-16, a step being at least 1. An iteration shrinks the error by 1/125 or
    more, so eight end below rounding.
    """
    head = [0.0]
    while k * math.exp(-head[-1]) > 1 / 64:
        head.append(head[-1] + k * math.exp(-head[-1]))
    z, n = k * math.exp(-head[-1]), len(head) - 1
    way = after = np.maximum(t - n, 0.0)
    for _ in range(8):
        way = after + np.log1p(z * way) / 2 - (np.polyval(ABEL, z / (1 + z * way)) - np.polyval(ABEL, z))
    return np.where(t < n, np.take(head, np.minimum(t, n).astype(np.int64)), head[-1] + np.log1p(z * way))


#: c_8, ..., c_1, and 0, for polyval; they follow one by one from the coefficients of Abel's equation in 1/y.
ABEL = (-443 / 80640, -18349 / 3175200, 37 / 103680, 41 / 4200, 1 / 48, 19 / 540, 1 / 16, 1 / 6, 0.0)


def recurrence_gap(t, k):
    """Bound of R_t - log(1 + k t), how far the recurrence runs ahead of its ODE; it is never behind.

    X = exp(R) has X_{t+1} - X_t - k = X (exp(k/X) - 1 - k/X), between 0 and k^2 e^k / (2 X). So X_t >= 1 + k t, and
    X_t - (1 + k t) <= e^k/2 sum_{i<t} k^2 / (1 + k i) <= k e^k/2 (k + log(1 + k t)).
    """
    return np.log1p(k * math.exp(k) / 2 * (k + np.log1p(k * t)) / (1 + k * t))


class Schedule:
    """A schedule: exp(-2 S_t) and what follows from it, for step numbers t = 0, 1, ... in arrays of any shape.

    Parameters
    ----------
    alpha_0 : float
        In (0, 1): the size of the first step, as a share of the way to go; 1e-3, or 1e-2 for easy tasks.
    half_life : float, optional
        T > 0: sets p_0 such that exp(-2 S_T) = 1/2 in the closed form. Give exactly one of `half_life` and `p_0`.
    p_0 : float, optional
        > 0: the cosine of the angle between the direction and the error at the start.
    decay : {"inverse-time", "inverse-square", "recurrence"}
        How exp(-2 S_t) falls. "inverse-time" is 1 / (1 + 2 alpha_0 p_0 t), the document's final form. "inverse-square"
        is 1 / (1 + alpha_0 p_0 t)^2, for a constant cosine. "recurrence" is the rule step by step, of which these two
        are the limits for a small alpha_0 p_0.
    p_t : {"falling", "constant"} or callable, optional
        The cosine, for the recurrence only: p_0 exp(-S_t), which is the default, p_0, or ``p_t(t, S_t)``, a number >= 0
        that depends on nothing else. With a callable you give neither `half_life` nor `p_0`, and t may be at most
        10,000,000, because S is summed step by step.
    q : float
        >= alpha_0^2 / 2: the quotient theta.eps / |eps|^2 that is expected.

    Raises
    ------
    HyperParameterError
        If an option is out of its range, or if too many or too few are given.
    """

    alpha_0: float
    q: float
    decay: str
    half_life: float | None
    p_0: Any  # a number, or None where there is a half-life or a callable p_t
    sums: "_Sums | None"
    falling: bool

    def __init__(
        self,
        alpha_0: float = 1e-3,
        half_life: float | None = None,
        p_0: float | None = None,
        decay: str = "inverse-time",
        p_t: str | Callable[[int, float], float] | None = None,
        q: float = 1.0,
    ) -> None:
        o = check_options(alpha_0=alpha_0, half_life=half_life, p_0=p_0, decay=decay, p_t=p_t, q=q)
        self.alpha_0, self.q, self.decay = o["alpha_0"], o["q"], decay
        self.half_life, self.p_0 = o["half_life"], o["p_0"]
        if p_t is not None and decay != "recurrence":
            raise HyperParameterError(f"p_t is {p_t!r:.60} with decay {decay!r}; only decay='recurrence' takes it")
        given = sum(x is not None for x in (half_life, p_0))
        if given != (0 if callable(p_t) else 1):
            words = "neither, as p_t is a callable" if callable(p_t) else "exactly one of them"
            how = "" if given else ": half_life=T halves the step size at step T; about a tenth of the steps is usual"
            raise HyperParameterError(f"half_life is {half_life!r} and p_0 is {p_0!r}; {words} must be given{how}")
        if not self.alpha_0**2 / (2 * self.q) < 1:
            raise HyperParameterError(f"q is {q!r}; it must be at least alpha_0^2/2, or weights decay past 0")
        self.sums = _Sums(self.alpha_0, p_t) if callable(p_t) else None
        self.falling = decay == "inverse-time" or (decay == "recurrence" and p_t != "constant")
        if self.sums is None and not 0 < self._elapsed(1.0) < math.inf:
            raise HyperParameterError(f"half_life {half_life!r}, p_0 {p_0!r}: alpha_0 p_0 has no value in float64")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise HyperParameterError(f"{name} of a Schedule is read-only; make another one")
        super().__setattr__(name, value)

    def _elapsed(self, t):
        """Return x = alpha_0 p t, twice that for a falling p; exactly 1, or sqrt(2) - 1, at the half-life."""
        if self.half_life is not None:
            return t / self.half_life * (1.0 if self.falling else math.sqrt(2.0) - 1.0)
        return self.alpha_0 * self.p_0 * t * (2.0 if self.falling else 1.0)

    def s(self, t: Any) -> Any:
        """Return S_t."""
        t = steps(t, whole=self.decay == "recurrence")
        if self.sums is not None:
            return self.sums(t)
        with np.errstate(over="ignore"):
            found = recurrence(t, self._elapsed(1.0)) if self.decay == "recurrence" else np.log1p(self._elapsed(t))
        return found / 2 if self.falling else found

    def shrink(self, t: Any) -> Any:
        """Return exp(-2 S_t), which is |eps_t|^2 / |eps_0|^2 as predicted."""
        if self.decay == "recurrence":
            return np.exp(-2 * self.s(t))
        with np.errstate(over="ignore"):
            return (shrink_inverse_time if self.falling else shrink_inverse_square)(self._elapsed(steps(t)))

    def alpha(self, t: Any, ratio: Any = 1.0) -> Any:
        """Return alpha_t for ratio = |eps_0| / |u_t|."""
        return step_size(self.alpha_0, ratio, self.shrink(t))

    def rho(self, t: Any) -> Any:
        """Return rho_t."""
        return weight_decay(self.alpha_0, self.q, self.shrink(t))


class _Sums:
    """S_0, S_1, ... for a callable p_t, kept as far as they were asked for."""

    def __init__(self, alpha_0: float, p_t: Callable[[int, float], float]) -> None:
        self.alpha_0, self.p_t = alpha_0, p_t
        self.known = array("d", [0.0])

    def __call__(self, t: np.ndarray) -> Any:
        most = np.max(t, initial=0.0)
        if most > MOST_STEPS:
            raise HyperParameterError(f"t is {most:.0f}; with a callable p_t it must be at most {MOST_STEPS}")
        while len(self.known) <= most:
            self.known.append(self._next(len(self.known) - 1, self.known[-1]))
        return np.frombuffer(self.known)[t.astype(np.int64)]

    def _next(self, t: int, s: float) -> float:
        try:
            value = self.p_t(t, s)
        except Exception as error:
            pass_on(error)
            raise ScheduleError(f"p_t({t}, {s!r}) raised {type(error).__name__}: {error}") from error
        p = number(value)
        if not 0 <= p < math.inf:
            raise ScheduleError(f"p_t({t}, {s!r}) is {value!r}; it must be a finite number >= 0")
        return s + self.alpha_0 * p * math.exp(-s)


def steps(t: Any, *, whole: bool = False) -> np.ndarray:
    """Return step numbers as float64, or raise HyperParameterError unless all are finite and >= 0."""
    try:
        a = np.asarray(t)
        wide = a.astype(np.float64) if a.dtype.kind in "iufO" else np.array(np.nan)
    except (TypeError, ValueError, OverflowError):
        wide = np.array(np.nan)
    if not np.all((wide >= 0) & (wide < np.inf)) or (whole and not np.all(wide == np.floor(wide))):
        words = "whole numbers" if whole else "finite numbers"
        raise HyperParameterError(f"t is {t!r:.60}; it must be {words} >= 0")
    return wide


def s(t: Any, **options: Any) -> Any:
    """Return S_t for step numbers t; the options are those of :class:`Schedule`.

    Examples
    --------
    >>> from amos_ref import closed_form
    >>> closed_form.s([0, 1000, 10**12], alpha_0=1e-3, p_0=0.5).round(6)
    array([ 0.      ,  0.346574, 10.361633])
    """
    return Schedule(**options).s(t)


def alpha(t: Any, ratio: Any = 1.0, **options: Any) -> Any:
    """Return alpha_t = alpha_0 ratio exp(-2 S_t), ratio = |eps_0| / |u_t|; the options are those of :class:`Schedule`.

    Examples
    --------
    >>> from amos_ref import closed_form
    >>> closed_form.alpha([0, 100, 300], ratio=2.0, alpha_0=0.01, half_life=100)
    array([0.02 , 0.01 , 0.005])
    """
    return Schedule(**options).alpha(t, ratio)


def rho(t: Any, **options: Any) -> Any:
    """Return rho_t = alpha_0^2 / (2q) exp(-2 S_t); the options are those of :class:`Schedule`.

    Examples
    --------
    >>> from amos_ref import closed_form
    >>> closed_form.rho([0, 100], alpha_0=0.5, half_life=100, q=0.5)
    array([0.25 , 0.125])
    """
    return Schedule(**options).rho(t)


def error(t: Any, eps_0: Any = 1.0, **options: Any) -> Any:
    """Return the predicted |eps_t|^2 = |eps_0|^2 exp(-2 S_t); the options are those of :class:`Schedule`.

    Examples
    --------
    >>> from amos_ref import closed_form
    >>> float(closed_form.error(100, eps_0=3.0, half_life=100))
    4.5
    """
    return Schedule(**options).shrink(t) * eps_0**2


def dot(a: Any, b: Any) -> Any:
    return np.sum(a * b)


def squared(a: Any) -> Any:
    return np.sum(a * a)
