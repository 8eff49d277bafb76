"""Steps of both ports on four devices, which JAX simulates on the CPU: run as a program, it prints how far they part.

Parameters lie in parts on the devices, under jit and under shard_map, which sees a part at a time; or they are whole on
each, under pmap.
"""

import functools
import importlib.util
import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

PARTS = {"kernel": P("x", None), "bias": P("x")}
SLOTS = {"one": "tensor", "columns": {"kernel": (1, 6), ".*": "tensor"}, "rows": {"kernel": (8, 1), ".*": "element"}}


def draw(seed):
    numbers = np.random.default_rng(seed)
    return {"kernel": jnp.asarray(numbers.standard_normal((8, 6))), "bias": jnp.asarray(numbers.standard_normal(8))}


def run(update, params, state, seeds=(1, 2)):
    for seed in seeds:
        updates, state = update(draw(seed), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def parts_of(state):
    """Say how every array of a state lies: in parts if it has eight rows, else whole."""
    return jax.tree.map(lambda a: P(*["x", None][: a.ndim]) if a.shape[:1] == (8,) else P(), state)


def on_each(tree):
    return jax.tree.map(lambda a: jnp.stack([a] * 4), tree)


def compare(optimizer):
    """Return how far each way leads from the steps on one device."""
    mesh, params = Mesh(np.array(jax.devices()), ("x",)), draw(0)
    state = optimizer.init(params)
    whole = jax.pmap(lambda g, s, p: optimizer.update(jax.lax.pmean(g, "d"), s, p), axis_name="d")
    lying = jax.tree.map(lambda a, spec: jax.device_put(a, NamedSharding(mesh, spec)), params, PARTS)
    specs = (PARTS, parts_of(state), PARTS)
    found = {
        "jit": run(jax.jit(optimizer.update), lying, jax.jit(optimizer.init)(lying)),
        "shard_map": run(
            jax.jit(jax.shard_map(optimizer.update, mesh=mesh, in_specs=specs, out_specs=specs[:2])), params, state
        ),
        "pmap": jax.tree.map(
            lambda a: a[3], run(lambda g, s, p: whole(on_each(g), s, p), on_each(params), on_each(state))
        ),
    }
    one = run(optimizer.update, params, state)
    far = lambda a, b: float(jnp.max(jnp.abs(a - b)))  # noqa: E731
    return {way: max(map(far, jax.tree.leaves(one), jax.tree.leaves(other))) for way, other in found.items()}


def main(path):
    jax.config.update("jax_enable_x64", True)
    spec = importlib.util.spec_from_file_location("ports_optax", path)
    ports = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ports)
    paper = functools.partial(ports.amos, 0.25, 0.5, momentum=0.75)
    report = {f"paper {name}": compare(paper(slot_shape=slots)) for name, slots in SLOTS.items()}
    closed_form = functools.partial(ports.closed_form_amos, 0.25, half_life=3.0)
    report["closed form"] = compare(closed_form(direction="adam"))
    try:
        compare(closed_form(slot_shape=SLOTS["rows"]))
    except ValueError as error:
        report["closed form, rows"] = str(error)
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1])
