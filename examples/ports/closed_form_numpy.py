"""The closed form as a plain function on NumPy arrays, which is what a porter has first.

Run: amos-ref check examples/ports/closed_form_numpy.py:step --algorithm closed-form
"""

import numpy as np


def step(
    theta, g, state, t, alpha_0, half_life=None, p_0=None, decay="inverse-time", q=1.0, sigma="init",
    direction="gradient", slot_shape=(), betas=(0.9, 0.999), eps=1e-8, epsilon=2.0**-125, clip=None,
):  # fmt: skip
    """Take step t = 0, 1, ... of one array; return the new theta and the new state, {} before the first step."""
    x, g = theta.astype(np.float64), g.astype(np.float64)
    state = state if "sigma" in state else state | {"sigma": measure(x)}
    u, state = direct(g if clip is None else np.clip(g, -clip, clip), state, t + 1, direction, *betas, eps)
    aligned = (1,) * (x.ndim - len(slot_shape)) + tuple(slot_shape)
    axes = tuple(axis for axis, n in enumerate(aligned) if n != x.shape[axis])
    u2 = np.mean(u * u, axis=axes, keepdims=True).reshape(slot_shape)
    shrink = shrink_of(t, alpha_0, half_life, p_0, decay)
    alpha = alpha_0 * (state["sigma"] if sigma == "init" else sigma) / np.sqrt(np.maximum(u2, epsilon)) * shrink
    rho = alpha_0**2 / (2 * q) * shrink
    return (x - (alpha * u + rho * x)).astype(theta.dtype), state


def measure(theta):
    """Return sigma of the initial entries: their root mean square, 0.5 where all are 0 or all are 1."""
    flat = np.all(theta == 0) or np.all(theta == 1)
    return 0.5 if flat else float(np.sqrt(np.mean(theta * theta)))


def shrink_of(t, alpha_0, half_life, p_0, decay):
    """Return exp(-2 S_t)."""
    if decay == "inverse-time":
        return 1 / (1 + (t / half_life if p_0 is None else 2 * alpha_0 * p_0 * t))
    if decay == "inverse-square":
        return 1 / (1 + ((2**0.5 - 1) * t / half_life if p_0 is None else alpha_0 * p_0 * t)) ** 2
    raise ValueError(f"there is no decay {decay!r} here")


def direct(g, state, n, direction, beta1, beta2, eps):
    """Return the direction after n gradients, and the new state."""
    if direction != "adam":
        return {"gradient": g, "sign": np.sign(g)}[direction], state
    m = beta1 * state.get("m", 0 * g) + (1 - beta1) * g
    v = beta2 * state.get("v", 0 * g) + (1 - beta2) * g * g
    return m / (1 - beta1**n) / (np.sqrt(v / (1 - beta2**n)) + eps), state | {"m": m, "v": v}
