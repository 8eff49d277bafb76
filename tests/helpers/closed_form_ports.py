"""Ports of the closed form as plain functions, made of the example: right ones that have less, and wrong ones."""

from examples.ports.closed_form_numpy import step


def from_one(theta, g, state, t, alpha_0, half_life, sigma="init", q=1.0):
    """The mistake: t counts from 1."""
    return step(theta, g, state, t + 1, alpha_0, half_life, sigma=sigma, q=q)


def capped(theta, g, state, t, alpha_0, half_life, sigma="init", q=1.0):
    """The mistake: the count stops at 10,000, as that of no integer does."""
    return step(theta, g, state, min(t, 10_000), alpha_0, half_life, sigma=sigma, q=q)


def in_int16(theta, g, state, t, alpha_0, half_life, sigma="init", q=1.0):
    """The mistake: the count is kept in 16 bits."""
    return step(theta, g, state, (t + 2**15) % 2**16 - 2**15, alpha_0, half_life, sigma=sigma, q=q)


def whole_decay(theta, g, state, t, lr, T, sigma=None):
    """The mistake: rho without 1/2. It has inverse-time alone, and measures sigma where it is given none."""
    return step(theta, g, state, t, lr, T, q=0.5, sigma="init" if sigma is None else sigma)


def by_cosine(theta, g, state, t, alpha0, p0, sigma):
    """A right one that takes p_0 and the number sigma."""
    return step(theta, g, state, t, alpha0, p_0=p0, sigma=sigma)


def squared(theta, g, state, t, alpha_0, half_life):
    """A right one that hard-codes inverse-square, and measures sigma."""
    return step(theta, g, state, t, alpha_0, half_life, decay="inverse-square")


def adam(theta, g, state, t, lr, half_life, sigma, beta1=0.9, beta2=0.999, adam_eps=1e-8):
    """A right one that hard-codes Adam's direction."""
    return step(theta, g, state, t, lr, half_life, sigma=sigma, direction="adam", betas=(beta1, beta2), eps=adam_eps)
