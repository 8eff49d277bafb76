"""The closed form as a transformation of optax, written from docs/closed_form.md, and a wrong one of it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    count: Any
    sigma: Any


def closed_form(learning_rate, half_life, sigma_fn=None, *, first=0):
    """Inverse-time and the gradient alone; sigma is measured without a sigma_fn."""

    def measure(p):
        flat = jnp.all(p == 0) | jnp.all(p == 1)
        return jnp.where(flat, 0.5, jnp.sqrt(jnp.mean(p * p))).astype(p.dtype)

    def init(params):
        given = jax.tree_util.tree_map_with_path
        sigma = given(lambda path, p: measure(p) if sigma_fn is None else jnp.asarray(sigma_fn(path), p.dtype), params)
        return State(jnp.zeros((), jnp.int32), sigma)

    def update(grads, state, params):
        t = state.count + first

        def one(p, g, sigma):
            shrink = 1 / (1 + t.astype(p.dtype) / half_life)
            alpha = learning_rate * sigma / jnp.sqrt(jnp.maximum(jnp.mean(g * g), 2.0**-125)) * shrink
            return (-(alpha * g + learning_rate**2 / 2 * shrink * p)).astype(p.dtype)

        return jax.tree.map(one, params, grads, state.sigma), State(optax.safe_increment(state.count), state.sigma)

    return optax.GradientTransformation(init, update)


def from_one(learning_rate, half_life, sigma_fn=None):
    """The mistake: t counts from 1."""
    return closed_form(learning_rate, half_life, sigma_fn, first=1)


def by_word(learning_rate, half_life, sigma="init"):
    """A right one whose sigma is the word "init" or a function of a path."""
    return closed_form(learning_rate, half_life, None if isinstance(sigma, str) and sigma == "init" else sigma)
