"""Amos as transformations of optax: a right one, and what goes wrong in the life of others."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class State(NamedTuple):
    """v and b are trees like the parameters."""

    count: Any
    v: Any
    b: Any


def amos(learning_rate, eta_fn, beta=0.999, clip_value=None, *, count=jnp.int32, greatest=jnp.maximum, clip=jnp.clip):
    """One slot an array. `count`, `greatest` and `clip` are where the wrong ones are wrong."""

    def init(params):
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros((), p.dtype), params)  # noqa: E731
        return State(jnp.zeros((), count), zeros(), zeros())

    def update(grads, state, params):
        t = optax.safe_increment(state.count) if count == jnp.int32 else (state.count + 1).astype(count)
        xi = learning_rate(t) if callable(learning_rate) else learning_rate

        def one(path, p, g, v, b):
            eta = eta_fn(path)
            g = g if clip_value is None else clip(g, -clip_value, clip_value)
            g2 = jnp.mean(g * g)
            v = beta * v + (1 - beta) * g2
            r = (1 - beta ** t.astype(v.dtype)) / greatest(v, 2.0**-125)
            gamma = xi**2 * r * g2 / jnp.sqrt(1 + 0.25 * jnp.sqrt(xi) * b)
            d = 1 / (1 + 0.25 * jnp.sqrt(xi * eta) * b)
            delta = -d * (xi * eta * jnp.sqrt(r) * g + gamma / 2 * p)
            return tuple(a.astype(p.dtype) for a in (delta, v, b + gamma * (1 + b)))

        found = jax.tree_util.tree_map_with_path(one, params, grads, state.v, state.b)
        updates, v, b = (jax.tree.map(lambda p, x, i=i: x[i], params, found) for i in range(3))
        return updates, State(t, v, b)

    return optax.GradientTransformation(init, update)


def counting_in_python(learning_rate, eta_fn, beta=0.999):
    """Keeps the count in the factory's frame."""
    inner, taken = amos(learning_rate, eta_fn, beta), [0]

    def update(grads, state, params):
        taken[0] += 1
        return inner.update(grads, state._replace(count=jnp.int32(taken[0] - 1)), params)

    return optax.GradientTransformation(inner.init, update)


def in_8_bits(learning_rate, eta_fn, beta=0.999):
    """Counts in uint8."""
    return amos(learning_rate, eta_fn, beta, count=jnp.uint8)


def dropping_by_max(learning_rate, eta_fn, beta=0.999):
    """Its maximum drops NaN."""
    return amos(learning_rate, eta_fn, beta, greatest=jnp.fmax)


def dropping_by_clip(learning_rate, eta_fn, beta=0.999, clip_value=None):
    """Its clipping drops NaN."""
    fmin_of_fmax = lambda g, low, high: jnp.fmin(jnp.fmax(g, low), high)  # noqa: E731
    return amos(learning_rate, eta_fn, beta, clip_value, clip=fmin_of_fmax)


#: Port -> what it must be found to do.
WRONG = {
    counting_in_python: ["count-outside-the-state"],
    in_8_bits: ["count-uint8"],
    dropping_by_max: ["nan-dropped-by-max"],
    dropping_by_clip: ["nan-clipped-to-lowest"],
}
