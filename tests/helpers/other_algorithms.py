"""Ports of what is not paper Amos, as plain functions; written apart from the readings of the package."""

import functools
import math

import numpy as np

from amos_ref.conformance.ports.function import NumpyPort

TINY = float(np.finfo(np.float32).tiny)


def reduce_to(x, shape):
    axes = tuple(i for i, n in enumerate(shape) if n == 1) if shape else None
    return np.mean(x, axis=axes, keepdims=axes is not None)


def tame(g, nu, beta2, done):
    """No entry beyond sqrt(nu_hat / (1 - beta2)) of the steps done so far."""
    if done == 0:
        return g
    bound = np.broadcast_to(np.sqrt(nu / (1 - beta2**done) / (1 - beta2)), g.shape)
    return np.where((bound > 0) & (np.abs(g) > bound), np.sign(g) * bound, g)


def follow_schedules(theta, u, g2, b, xi, eta, l2, adaptive, seed=lambda k: 1 / math.sqrt(k)):
    k = theta.size / np.size(g2)
    q = math.sqrt(1 - k**-0.5)
    tau = q * (math.log(k) / 2 + 2 * math.log1p(q))
    s = (1 + b) ** 0.5
    x = xi**2 / (np.maximum(g2, s) if adaptive else s)
    full = 1 + l2 * (tau + tau * tau / 4) ** 2
    late = 1 + l2 * b**2
    slow = 4 * s**2 / (1 + (1 + 2 * s / (2 + tau)) ** 0.5) ** 2 - 1
    ratio = (1 + l2 * b * slow) / (1 + l2 * late / full)
    change = -(x * (full / late * g2 + l2) / 2 * theta + eta * xi * u) / (1 + eta * s * ratio * slow)
    return change, b + x * ((g2 if adaptive else 1.0) * seed(k) + b)


def adam_with_amos(theta, g, state, t, learning_rate, eta, slot_shape=(), beta1=0.9, beta2=0.999, l2=0.0, wrong=""):
    own = state or {"mu": np.zeros_like(theta), "nu": np.zeros_like(theta), "b": np.zeros(slot_shape)}
    g = g if wrong == "untamed" else tame(g, own["nu"], beta2, t - 1)
    mu, nu = beta1 * own["mu"] + (1 - beta1) * g, beta2 * own["nu"] + (1 - beta2) * g * g
    hat = nu / (1 - beta2**t)
    m = mu / (1 - beta1**t) if wrong == "debiased" else mu
    g2 = (1 + beta1) / (1 - beta1) * reduce_to(m * m, slot_shape) / np.maximum(reduce_to(hat, slot_shape), TINY)
    u = m / np.sqrt(np.maximum(hat, TINY))
    change, b = follow_schedules(theta, u, g2, own["b"], learning_rate, eta, l2, True)
    return (theta + change).astype(theta.dtype), {"mu": mu, "nu": nu, "b": b}


def reduced_amos(theta, g, state, t, learning_rate, eta, slot_shape=(), beta1=0.9, beta2=0.999, l2=0.0, wrong=""):
    own = state or {"mu": np.zeros_like(theta), "nu": np.zeros(slot_shape), "b": np.float64(0.0)}
    g = tame(g, own["nu"], beta2, t - 1)
    g2 = reduce_to(g * g, slot_shape)
    nu = beta2 * own["nu"] + (1 - beta2) * g2
    hat = np.maximum(nu / (1 - beta2**t), TINY)
    seed = (lambda k: 1 / k) if wrong == "seed" else (lambda k: 1 / math.sqrt(k))
    change, b = follow_schedules(theta, g / np.sqrt(hat), g2 / hat, own["b"], learning_rate, eta, l2, False, seed)
    mu = beta1 * own["mu"] + (1 - beta1) * change
    return (theta + mu).astype(theta.dtype), {"mu": mu, "nu": nu, "b": b}


def reduced_with_fixed_beta1(theta, g, state, t, learning_rate, eta, beta2=0.999):
    return reduced_amos(theta, g, state, t, learning_rate, eta, (), 0.9, beta2)


def closed_form(theta, g, state, t, learning_rate, eta, half_life=250.0, q=1.0):
    shrink = 1 / (1 + (t - 1) / half_life)
    size = math.sqrt(max(float(np.mean(np.square(g, dtype=float))), TINY))
    change = shrink * (learning_rate * eta / size * g + learning_rate**2 / (2 * q) * theta)
    return (theta - change).astype(theta.dtype), {}


def closed_form_with_sign(theta, g, state, t, learning_rate, p_0=0.5):
    sigma = state.get("sigma") or (math.sqrt(np.mean(np.square(theta, dtype=float))) if theta.any() else 0.5)
    u = np.sign(g)
    size = math.sqrt(max(float(np.mean(u * u)), TINY))
    change = (learning_rate * sigma / size * u + learning_rate**2 / 2 * theta) / (
        1 + learning_rate * p_0 * (t - 1)
    ) ** 2
    return (theta - change).astype(theta.dtype), {"sigma": sigma}


def adam_w(theta, g, state, learning_rate, beta2=0.999, eps=1e-8, decay=0.01, decoupled=True, plain=False):
    m, v, t = state.get("m", 0.0), state.get("v", 0.0), state.get("t", 0) + 1
    g = g if decoupled else g + decay * theta
    m, v = 0.9 * m + (1 - 0.9) * g, beta2 * v + (1 - beta2) * g * g
    corrected = 1.0 if plain else 1 - 0.9**t
    u = m / corrected / (np.sqrt(v / (1 - beta2**t)) + eps)
    theta_new = (1 - learning_rate * decay * decoupled) * theta - learning_rate * u
    return theta_new.astype(theta.dtype), {"m": m, "v": v, "t": t}


def sgd(theta, g, state, learning_rate, momentum=0.0):
    m = momentum * state.get("m", 0.0) + g
    return (theta - learning_rate * m).astype(theta.dtype), {"m": m}


def port(function, **fixed):
    return NumpyPort(functools.partial(function, **fixed), function.__name__, {})
