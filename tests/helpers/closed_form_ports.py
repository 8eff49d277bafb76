"""Ports of the closed form as plain functions, written from docs/closed_form.md: a right one, and wrong ones of it."""

import numpy as np


def mean_square(u, slot_shape):
    aligned = (1,) * (u.ndim - len(slot_shape)) + tuple(slot_shape)
    axes = tuple(i for i, n in enumerate(aligned) if n != u.shape[i])
    return np.mean(u * u, axis=axes, keepdims=True).reshape(slot_shape)


def measured(theta):
    flat = np.all(theta == 0) or np.all(theta == 1)
    return 0.5 if flat else float(np.sqrt(np.mean(theta * theta)))


def shrink_of(t, alpha_0, half_life, p_0, decay):
    if decay not in ("inverse-time", "inverse-square"):
        raise ValueError(f"there is no decay {decay!r} here")
    if decay == "inverse-time":
        return 1 / (1 + (t / half_life if p_0 is None else 2 * alpha_0 * p_0 * t))
    return 1 / (1 + ((2**0.5 - 1) * t / half_life if p_0 is None else alpha_0 * p_0 * t)) ** 2


def direction_of(g, state, direction, beta1, beta2, eps):
    if direction != "adam":
        return {"gradient": g, "sign": np.sign(g)}[direction], state
    n = state.get("n", 0) + 1 if "n" in state else 1
    m = beta1 * state.get("m", 0 * g) + (1 - beta1) * g
    v = beta2 * state.get("v", 0 * g) + (1 - beta2) * g * g
    return m / (1 - beta1**n) / (np.sqrt(v / (1 - beta2**n)) + eps), state | {"m": m, "v": v, "n": n}


def step(
    theta, g, state, t, alpha_0, half_life=None, p_0=None, decay="inverse-time", q=1.0, sigma="init",
    direction="gradient", slot_shape=(), betas=(0.9, 0.999), eps=1e-8, epsilon=2.0**-125, clip=None,
):  # fmt: skip
    """A right one, computed in float64; Adam's count is t + 1, that of the tree."""
    x, g = theta.astype(np.float64), g.astype(np.float64)
    state = state | ({"sigma": measured(x)} if "sigma" not in state else {})
    g = g if clip is None else np.clip(g, -clip, clip)
    u, state = direction_of(g, state | {"n": t}, direction, *betas, eps)
    shrink = shrink_of(t, alpha_0, half_life, p_0, decay)
    scale = state["sigma"] if sigma == "init" else sigma
    alpha = alpha_0 * scale / np.sqrt(np.maximum(mean_square(u, slot_shape), epsilon)) * shrink
    rho = alpha_0**2 / (2 * q) * shrink
    return (x - (alpha * u + rho * x)).astype(theta.dtype), state


def from_one(theta, g, state, t, alpha_0, half_life, sigma="init", q=1.0):
    """The mistake: t counts from 1."""
    return step(theta, g, state, t + 1, alpha_0, half_life, sigma=sigma, q=q)


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
