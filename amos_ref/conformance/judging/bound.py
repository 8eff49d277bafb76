"""How far a right port may be from the page in float64 and float32: a running bound on rounding errors.

Let u be the port's unit roundoff (2^-53 for float64, 2^-24 for float32) plus the page's own 2^-53. A port that
evaluates the formulas in that precision commits at most a relative error of u in each operation. Following each
quantity through the step, to first order:

===========  ====================================================================================================
g2           n squares, a sum of n in any order, a division: relative (n + 1) u
v            beta Ev + (1 - beta) E(g2) + e(beta) (v + g2) + 4u (v' + (1 - beta) max(v, g2)); this holds for
             beta v + (1 - beta) g2 and for v + (1 - beta)(g2 - v) alike; e(beta) = |fl(beta) - beta| is 0 where
             the precision holds beta exactly
q = 1-beta^t ((t + 4) u beta^t + t e(beta) beta^(t-1) + 2u q): pow by repeated products or by exp(t log beta)
             (a power by squaring errs as much, since each square doubles what is there)
r            relative E(q)/q + Ev/max(v, epsilon) + 3u
c            with z = 1 + k b, k = c_coef sqrt(xi): relative (k (Eb + 4u b) + u z) / (2 z) + 4u
d            with z = 1 + k b, k = d_coef sqrt(xi eta): relative (k (Eb + 6u b) + u z) / z + 2u
gamma        the relative errors of c, r and g2 added, + 6u
alpha        the relative errors of d and half of r, + 7u
rho          absolute: rho times that of d, + d gamma/2 times that of gamma, + 5u rho
delta        |alpha g| (rel(alpha) + 4u) + |theta| (E(rho) + 4u rho) + rho E(theta)
b            Eb (1 + gamma) + E(gamma) (1 + b) + 4u b'
m            mu Em + (1 - mu) E(delta) + 4u (|m| + |delta|) + e(mu) (|m| + |delta|)
theta        E(theta) + E(delta or m) + u |theta'| + 2u |theta|, the last for (1 - rho) theta, as AdamW is written
===========  ====================================================================================================

Where one formula counts k u, the evaluations known (authors' code, torch ports, fused or not, reciprocals first)
need no more. The absolute error of what is not 0 also gets the smallest normal number, since some frameworks flush
smaller ones to zero. Terms of second order are at most the square of the relative errors; these stay below 1 % in
every case (else Unbounded is raised), so 1 % is added.

Where a reading has NaN or infinity, a port must have it as well: there the bounds are 0, and those of other slots are
what they are without it. Where a reading other than the page has a number that is larger than any of the port's
precision, the port has infinity, or NaN later on: no bound holds (Unbounded).

Two forms are refused on purpose: b = (1 + b)(1 + gamma) - 1 loses a gamma below u, so that b never starts to grow where
xi^2 is small; and an m of differences theta' - theta loses the digits of a change that is small beside theta.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.judging.reading import Step

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24}


class Unbounded(Exception):
    """Relative errors are too large for a bound of first order."""


class RunningBound:
    """Error bounds of one leaf, advanced step by step beside a reading.

    Attributes
    ----------
    theta, and one for each part of the state : ndarray
        How far a right port may be from the reading's after the last step.
    """

    dtype: np.dtype
    u: float
    tiny: float
    largest: float
    like: ClassVar[Mapping[str, str]]  # theta and each part of the state -> what of a step has its shape
    held: ClassVar[tuple[str, ...]]  # stages that a port has numbers of, in its precision

    def __init__(self, step: Step, dtype: str) -> None:
        self.dtype = np.dtype(dtype)
        self.u = UNIT_ROUNDOFF[dtype] + 2.0**-53
        self.tiny, self.largest = (float(x) for x in (np.finfo(self.dtype).tiny, np.finfo(self.dtype).max))
        for what, other in self.like.items():
            setattr(self, what, np.zeros(getattr(step, other).shape))

    def advance(self, s: Step) -> None:
        """Take a step; renew the bounds, or raise Unbounded where none would hold."""
        with np.errstate(all="ignore"):
            self._check_range(s)
            self._advance(s)

    def _advance(self, s: Step) -> None:
        raise NotImplementedError

    def forget(self, given: Iterable[str]) -> None:
        """Start anew from values that are given exactly."""
        for what in given:
            setattr(self, what, np.zeros_like(getattr(self, what)))

    def allowed(self) -> dict[str, np.ndarray]:
        """Return the bounds with the second-order terms added."""
        return {what: 1.01 * getattr(self, what) for what in self.like}

    def _check_range(self, s: Step) -> None:
        """Raise Unbounded if a number is larger than any of the port's precision, as it is on no page."""
        for what in self.held if self.dtype.itemsize < 8 else ():
            size = np.abs(np.asarray(getattr(s, what), dtype=np.float64))  # NaN where there is none
            if np.any((size > self.largest) & (size < np.inf)):
                raise Unbounded(f"{what} is larger than any number in {self.dtype}")

    def _check(self, *relative: Any) -> None:
        """Raise Unbounded if a relative error is too large for a bound of first order."""
        worst = max(float(np.max(rel, initial=0.0)) for rel in relative)
        if not worst < 0.01:
            raise Unbounded(f"relative error {worst} is too large for a first-order bound")

    def _settle(self, s: Step, *parts: str) -> None:
        """Let there be no bound where there is no number."""
        for what in parts:
            setattr(self, what, np.where(np.isfinite(getattr(s, what)), getattr(self, what), 0.0))

    def _flushed(self, x: np.ndarray) -> np.ndarray:
        """What flushing subnormal numbers to zero may take from x; nothing from 0."""
        return np.where(x == 0, 0.0, self.tiny)

    def _stored(self, x: float) -> float:
        """How much x changes when the port's precision stores it."""
        return abs(float(self.dtype.type(x)) - x)


class Bound(RunningBound):
    """Error bounds of one leaf of paper Amos."""

    like: ClassVar[Mapping[str, str]] = {"theta": "old_theta", "v": "old_v", "b": "old_v", "m": "old_theta"}
    held: ClassVar[tuple[str, ...]] = ("g2", "v", "r", "gamma", "alpha", "rho", "b", "delta", "m", "theta")
    theta: np.ndarray
    v: np.ndarray
    b: np.ndarray
    m: np.ndarray

    def _advance(self, s: Step) -> None:
        u = self.u
        n = s.old_theta.size // max(np.size(s.g2), 1)
        rel_g2 = (n + 1) * u
        self._advance_v(s, rel_g2)
        self._settle(s, "v")
        # A v below 0, which the page does not have, is far from epsilon, by which r divides then.
        of_v = np.where(s.v + self.v < 0, 0.0, self.v / np.fmax(s.v, s.epsilon))
        rel_r = self._rel_q(s) + of_v + 3 * u
        k, old_b = s.c_coef * np.sqrt(s.xi), np.where(np.isfinite(s.old_b), s.old_b, 0.0)  # of infinity, c and d are 0
        rel_c = (k * (self.b + 4 * u * np.abs(old_b)) / np.abs(1 + k * old_b) + u) / 2 + 4 * u
        k = s.d_coef * np.sqrt(s.xi * s.eta)
        rel_d = k * (self.b + 6 * u * np.abs(old_b)) / np.abs(1 + k * old_b) + 3 * u
        rel_gamma = rel_c + rel_r + rel_g2 + 6 * u
        rel_alpha = rel_d + rel_r / 2 + 7 * u
        size = np.maximum(np.abs(s.rho), np.abs(s.d) * (np.abs(s.gamma) / 2.0 + np.abs(s.extra_l2)))  # the page's rho
        rho = size * rel_d + np.abs(s.d * s.gamma) / 2 * rel_gamma + 5 * u * size
        delta = np.abs(s.alpha * s.g) * (rel_alpha + 4 * u) + size * self.theta
        delta = delta + np.abs(s.old_theta) * (rho + 4 * u * size) + self._flushed(s.delta)
        grown = np.abs(s.gamma)
        self.b = self.b * (1 + grown) + grown * rel_gamma * (1 + np.abs(s.old_b)) + 4 * u * np.abs(s.b)
        self.b = self.b + self._flushed(s.b)
        if s.m is not None:
            mu, size = s.momentum, np.abs(s.old_m) + np.abs(s.delta)
            self.m = mu * self.m + (1 - mu) * delta + (4 * u + self._stored(mu)) * size + self._flushed(size)
            delta = self.m
        self.theta = self.theta + delta + u * np.abs(s.theta) + 2 * u * np.abs(s.old_theta)
        self._settle(s, *(("b", "m", "theta") if s.m is not None else ("b", "theta")))
        finite = np.isfinite(s.gamma) & np.isfinite(s.alpha)
        self._check(*(np.where(finite, rel, 0.0) for rel in (rel_gamma, rel_alpha)))

    def _advance_v(self, s: Step, rel_g2: float) -> None:
        old, g2, beta = np.where(np.isfinite(s.old_v), np.abs(s.old_v), 0.0), np.abs(s.g2), s.beta
        self.v = beta * self.v + (1 - beta) * g2 * rel_g2 + self._stored(beta) * (old + g2)
        self.v = self.v + 4 * self.u * (np.abs(s.v) + (1 - beta) * np.maximum(old, g2)) + self._flushed(s.v)
        # Where g2 cannot have vanished and v is 0, a reading has no g2 in v, and v has no errors.
        self.v = np.where((s.v == 0) & ((1 - beta) * g2 > self.tiny), 0.0, self.v)

    def _rel_q(self, s: Step) -> float:
        if not s.q:  # a reading that corrects with 1 - beta^0 has r = 0, exactly
            return 2 * self.u
        t, beta = float(s.t), np.float64(s.beta)
        power = beta**t
        stored = t * self._stored(s.beta) * beta ** (t - 1)
        return ((t + 4) * self.u * power + stored) / np.abs(s.q) + 2 * self.u
