"""How far a right port of the closed form may be from the page in float64 and float32 (as judging/bound.py).

Let u be the port's unit roundoff plus the page's own, and e(x) = |fl(x) - x| what storing x in the port's precision
costs. Following each quantity through the step, to first order:

===========  ====================================================================================================
m            beta1 Em + (4u + e(beta1)) (|m| + |g|)
v            beta2 Ev + (4u + e(beta2)) (v + g^2)
q = 1-beta^n relative ((n + 4) u beta^n + n e(beta) beta^(n-1)) / q + 2u, n = t + 1 gradients
u            Adam's: Em / (q1 den) + |u| (rel(q1) + (Ev/v + rel(q2)) / 2 + 6u + e(adam_epsilon)/den), den =
             sqrt(v/q2) + adam_epsilon; else exact
u2           n squares, their sum in any order, a division: (n + 1) u u2, and mean(2 |u| E(u) + E(u)^2)
sigma        measured: relative (k/2 + 2) u for k entries; else exact
shrink       1 / (1 + x): x has five roundings and what stores its numbers: 8u; squared: 16u; of the recurrence, which
             is summed or solved: (8t + 16) u
alpha        the relative errors of sigma, shrink and half of u2, + 7u + e(alpha_0)
rho          the relative error of shrink, + 6u + 2 e(alpha_0) + e(q)
delta        |alpha u| (rel(alpha) + 4u) + alpha E(u) + |theta| (E(rho) + 4u rho) + rho E(theta)
theta        E(theta) + E(delta) + u |theta'| + 2u |theta|, the last for (1 - rho) theta, as AdamW is written
===========  ====================================================================================================

The rest is as in judging/bound.py.
"""

from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.judging.bound import RunningBound
from amos_ref.conformance.judging.reading import Step


class Bound(RunningBound):
    """Error bounds of one leaf of the closed form."""

    like: ClassVar = {"theta": "old_theta", "m": "old_theta", "v": "old_theta"}
    theta: np.ndarray
    m: np.ndarray
    v: np.ndarray

    def _advance(self, s: Step) -> None:
        u = self.u
        n = s.old_theta.size // max(np.size(s.u2), 1)
        off = self._off_direction(s)
        off_u2 = (n + 1) * u * s.u2 + self._mean(2 * np.abs(s.u) * off + off * off, s)
        rel_u2 = off_u2 / np.fmax(s.u2, s.epsilon)
        rel_sigma = (s.old_theta.size / 2 + 2) * u if "sigma" in s.asked else 0.0
        rel_shrink = {"inverse-time": 8, "inverse-square": 16}.get(s.decay, 8 * float(s.t) + 16) * u
        stored = self._stored(s.alpha_0) / abs(s.alpha_0)
        rel_alpha = rel_sigma + rel_shrink + rel_u2 / 2 + 7 * u + stored
        rel_rho = rel_shrink + 6 * u + 2 * stored + self._stored(s.q) / abs(s.q)
        rho = np.abs(s.rho)
        delta = np.abs(s.alpha * s.u) * (rel_alpha + 4 * u) + np.abs(s.alpha) * off + rho * self.theta
        delta = delta + np.abs(s.old_theta) * rho * (rel_rho + 4 * u) + self._flushed(s.delta)
        self.theta = self.theta + delta + u * np.abs(s.theta) + 2 * u * np.abs(s.old_theta)
        self._settle(s, "theta")
        self._check(np.where(np.isfinite(s.alpha), rel_alpha, 0.0), np.where(np.isfinite(s.rho), rel_rho, 0.0))

    def _off_direction(self, s: Step) -> Any:
        """Renew m and v; return how far the direction may be off."""
        if s.m is None:
            return np.zeros(s.old_theta.shape)
        u = self.u
        size_m, size_v = np.abs(s.old_m) + np.abs(s.g), s.old_v + s.g * s.g
        self.m = s.beta1 * self.m + (4 * u + self._stored(s.beta1)) * size_m + self._flushed(size_m)
        self.v = s.beta2 * self.v + (4 * u + self._stored(s.beta2)) * size_v + self._flushed(size_v)
        self._settle(s, "m", "v")
        den = np.sqrt(s.v / s.q2) + s.adam_epsilon
        rel = self._rel_q(s, "1") + (np.where(s.v > 0, self.v / s.v, 0.0) + self._rel_q(s, "2")) / 2 + 6 * u
        rel = rel + self._stored(s.adam_epsilon) / den
        off = self.m / (s.q1 * den) + np.abs(s.u) * rel
        return np.where(np.isfinite(off), off, 0.0)

    def _rel_q(self, s: Step, which: str) -> float:
        beta, q, n = float(getattr(s, f"beta{which}")), getattr(s, f"q{which}"), float(s.t) + 1
        power = beta**n
        return ((n + 4) * self.u * power + n * self._stored(beta) * beta ** (n - 1)) / q + 2 * self.u

    def _mean(self, x: np.ndarray, s: Step) -> np.ndarray:
        """Return the mean of each slot."""
        aligned = (1,) * (x.ndim - len(s.slot)) + tuple(s.slot)
        axes = tuple(i for i, n in enumerate(aligned) if n != x.shape[i])
        return np.mean(x, axes, keepdims=True).reshape(s.slot)
