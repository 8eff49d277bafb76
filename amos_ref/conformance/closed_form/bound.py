"""How far a right port may be from the closed form's page in float64 and float32: a running bound on rounding errors.

As in judging/bound.py: u is the port's unit roundoff plus the page's own, E an absolute error, rel a relative one, all
to first order.

===========  ====================================================================================================
m            beta1 Em + 4u (|m| + |g|) + e(beta1) (|m| + |g|), e(x) = |fl(x) - x|; likewise v of g^2, whose
             square adds u g^2 (1 - beta2)
q = 1-b^n    as 1 - beta^t there: ((n + 4) u b^n + n e(b) b^(n-1)) / q + 2u, relative
u (Adam)     |u| (Em/|m| + rel(q1) + Ev/(2v) + rel(q2)/2 + 8u + e(adam_epsilon)/adam_epsilon); where m is 0, Em over
             what u divides by. Gradients and their signs are exact
u2           2 rms(Eu)/rms(u), by Cauchy and Schwarz, + (n + 1)u for squares, sum and division, + 3u for a norm over
             sqrt(n) that is squared again
sigma        given: e(sigma)/sigma. Measured: (n_0 + 1)/2 u + 3u, n_0 the entries of the array
x            5u for products and divisions, + e(option)/option for alpha_0, p_0 or half_life; of 1 + x it is at most
             that again, of (1 + x)^2 twice that
shrink       closed forms: 2 rel(x) + 6u, and for exp(-2S) with S = log(1 + x) or half of it, 2u (3 S + 2).
             The recurrence, summed in the port's precision: an error of S shrinks from step to step, and each adds at
             most u S + 4u k + k rel(x); so E(S) <= t u (S + 4k) + S rel(x), and shrink has 2 E(S) + 4u
alpha        the relative errors of shrink, sigma and half of u2, + 8u + e(alpha_0)/alpha_0
rho          that of shrink, + 6u + 2 e(alpha_0)/alpha_0 + e(q)/q
delta        |alpha u| (rel(alpha) + 4u) + |alpha| Eu + |theta| rho (rel(rho) + 4u) + rho E(theta)
theta        E(theta) + E(delta) + u |theta'| + 2u |theta|, the last for (1 - rho) theta
===========  ====================================================================================================
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref import spec
from amos_ref.conformance.closed_form.formulas import correction
from amos_ref.conformance.judging.bound import RunningBound
from amos_ref.conformance.judging.reading import Step


class Bound(RunningBound):
    """Error bounds of one leaf of the closed form."""

    like: ClassVar[Mapping[str, str]] = {"theta": "old_theta", "m": "old_theta", "v": "old_theta"}
    held: ClassVar[tuple[str, ...]] = ("m", "v", "u2", "alpha", "rho", "delta", "theta")
    theta: np.ndarray
    m: np.ndarray
    v: np.ndarray

    def _advance(self, s: Step) -> None:
        u = self.u
        if s.m is not None:
            self._average(s, "m", s.g, s.beta1)
            self._average(s, "v", s.g * s.g, s.beta2)
        error = self._directed(s)
        n = s.u.size // max(np.size(s.u2), 1)
        spread = np.sqrt(spec.mean_square(error, np.shape(s.u2)) / np.fmax(s.u2, s.epsilon))
        rel_u2 = 2 * np.where(np.isfinite(s.u2), spread, 0.0) + (n + 4) * u
        rel_shrink = self._rel_shrink(s)
        rel_alpha = rel_shrink + self._rel_sigma(s) + rel_u2 / 2 + 8 * u + self._lost(s.alpha_0)
        rel_rho = rel_shrink + 6 * u + 2 * self._lost(s.alpha_0) + self._lost(s.q)
        size = np.abs(s.rho)
        delta = np.abs(s.alpha * s.u) * (rel_alpha + 4 * u) + np.abs(s.alpha) * error
        delta = delta + np.abs(s.old_theta) * size * (rel_rho + 4 * u) + size * self.theta + self._flushed(s.delta)
        self.theta = self.theta + delta + u * np.abs(s.theta) + 2 * u * np.abs(s.old_theta)
        self._settle(s, "theta", *(("m", "v") if s.m is not None else ()))
        self._check(np.where(np.isfinite(s.alpha), rel_alpha, 0.0), rel_rho)

    def _average(self, s: Step, what: str, new: Any, beta: float) -> None:
        """Renew the bound of an average, whose new part is a square or a gradient."""
        old, average = getattr(s, f"old_{what}"), getattr(s, what)
        size = np.where(np.isfinite(old), np.abs(old), 0.0) + np.abs(new)
        error = beta * getattr(self, what) + (5 * self.u + self._stored(beta)) * size + self._flushed(size)
        # Where an average stays 0 although what is new cannot have vanished, a reading leaves that out: no errors.
        stays = (old == 0) & (average == 0) & ((1 - beta) * np.abs(new) > self.tiny)
        setattr(self, what, np.where(stays | ~np.isfinite(average), 0.0, error))

    def _directed(self, s: Step) -> Any:
        """Return how far u may be off."""
        if s.m is None or s.direction != "adam":
            return np.zeros(np.shape(s.u))
        root = np.sqrt(s.v / correction(s.beta2, s.n)) + s.adam_epsilon
        slope = np.where(s.m != 0, np.abs(s.u / s.m), 1.0 / (correction(s.beta1, s.n) * root))
        rel = self._rel_power(s.beta1, s.n) + self._rel_power(s.beta2, s.n) / 2 + 8 * self.u
        rel = rel + np.where(s.v > 0, self.v / (2 * s.v), 0.0) + self._lost(s.adam_epsilon)
        error = np.abs(s.u) * rel + slope * self.m
        return np.where(np.isfinite(error), error, 0.0)

    def _rel_power(self, beta: float, n: int) -> float:
        power, stored = beta ** float(n), n * self._stored(beta) * beta ** float(n - 1)
        return ((n + 4) * self.u * power + stored) / correction(beta, n) + 2 * self.u

    def _rel_sigma(self, s: Step) -> float:
        measured = (s.initial[s.name].size / 2 + 4) * self.u
        return measured if "sigma" in s.asked else self._lost(s.etas[s.name])

    def _rel_shrink(self, s: Step) -> Any:
        rel = 5 * self.u + sum(self._lost(x) for x in (s.alpha_0, s.p_0, s.half_life) if x is not None)
        k = abs(float(s.k))
        sums = -np.log(s.shrink) / 2 if 0 < s.shrink < 1 else 0.0
        if s.decay == "recurrence":
            return 2 * (float(s.t) * self.u * (sums + 4 * k) + sums * rel) + 4 * self.u
        # exp(-2S) over the page's at |x| is 1 on the page. Where terms of a reading cancel, it grows as errors do.
        cancelled = np.abs(s.shrink) * (1 + np.abs(s.x)) ** (1 if s.falling else 2)
        more = cancelled if 2 < cancelled < np.inf else 1.0
        return more * (2 * rel + 6 * self.u + 2 * self.u * (3 * sums + 2))

    def _lost(self, x: float) -> float:
        """How much storing a number in the port's precision changes it, relative to it."""
        return self._stored(x) / abs(x) if x else 0.0
