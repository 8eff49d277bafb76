"""Amos as a plain function on NumPy arrays, which is what a porter has first.

Run: amos-ref check examples/ports/amos_numpy.py:step
"""

import numpy as np


def step(theta, g, state, t, learning_rate, eta, slot_shape=(), beta=0.999, momentum=None, extra_l2=0.0):
    """Take step t = 1, 2, ... of one array; return the new theta and the new state, {} before the first step."""
    v, b = state.get("v", np.zeros(slot_shape)), state.get("b", np.zeros(slot_shape))
    aligned = (1,) * (theta.ndim - len(slot_shape)) + tuple(slot_shape)
    axes = tuple(axis for axis, n in enumerate(aligned) if n == 1)
    g2 = np.mean(g * g, axis=axes, keepdims=True).reshape(slot_shape)
    v = beta * v + (1 - beta) * g2
    r = (1 - beta**t) / np.maximum(v, 2.0**-125)
    gamma = learning_rate**2 * r * g2 / np.sqrt(1 + 0.25 * np.sqrt(learning_rate) * b)
    d = 1 / (1 + 0.25 * np.sqrt(learning_rate * eta) * b)
    delta = -d * (learning_rate * eta * np.sqrt(r) * g + (gamma / 2 + extra_l2) * theta)
    after = {"v": v, "b": b + gamma * (1 + b)}
    if momentum:
        after["m"] = delta = momentum * state.get("m", 0.0) + (1 - momentum) * delta
    return theta + delta, after
