"""What a transformation of optax can undergo: each event of docs/life.md done to an OptaxPort as a user would do it."""

import copy
import functools
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.conformance.ports.failures import Unsupported, first_line


def _import_optax() -> Any:
    return importlib.import_module("optax")  # as Any: what a type checker knows of it is another version's


def _state_dict(port: Any) -> None:
    """Store the leaves of the state as arrays, as libraries for checkpoints do, and put them into a new state."""
    import jax  # pyright: ignore[reportMissingImports]

    leaves = [np.array(leaf) for leaf in jax.tree.leaves(port.opt_state)]
    port.start()
    port.opt_state = jax.tree.unflatten(jax.tree.structure(port.opt_state), [jax.numpy.asarray(a) for a in leaves])


def _pickle(port: Any) -> None:
    """Pickle parameters and state, and go on with a transformation made anew: a function is not pickled."""
    try:
        data = pickle.dumps((port.params, port.opt_state))
    except Exception as error:
        raise Unsupported(f"the state cannot be pickled: {first_line(error)}") from error
    port.start()
    port.params, port.opt_state = pickle.loads(data)


def _deepcopy(port: Any) -> None:
    port.params, port.opt_state = copy.deepcopy((port.params, port.opt_state))


def _jit(port: Any, **how: Any) -> None:
    import jax  # pyright: ignore[reportMissingImports]

    port.compile = functools.partial(jax.jit, **how)
    port.start()


def _by_label(port: Any, groups: dict[str, Any]) -> None:
    """Give each leaf a transformation of its own, in which optax.MaskedNode stands for the other leaves."""
    optax = _import_optax()

    partition = getattr(optax, "partition", None) or optax.multi_transform
    make = port.make
    port.make = lambda rate: partition(
        {name: make(own.pop(port.algorithm.rate, rate), **own) for name, own in groups.items()},
        {name: name for name in groups},
    )
    port.start()


def _masked(port: Any) -> None:
    _by_label(port, {name: {} for name in port.params})


def _groups(port: Any) -> None:
    _by_label(port, {name: dict(port.hyper["groups"].get(name, {})) for name in port.params})


def _inject_hyperparams(port: Any) -> None:
    """Change the learning rate in the state, before each step."""
    import jax  # pyright: ignore[reportMissingImports]

    optax = _import_optax()

    theirs, rates = port.signature.theirs[port.algorithm.rate], port.rates
    given = port.signature.keywords(port.hyper | {port.algorithm.rate: rates[0]})
    made = optax.inject_hyperparams(port.target, static_args=set(port.signature.parameters) - {theirs})

    def around(advance: Any) -> Any:
        def inject(grads: Any, state: Any, params: Any) -> Any:
            dtype = next(iter(params.values())).dtype
            state.hyperparams[theirs] = jax.numpy.asarray(rates[port.t - 1], dtype)
            return advance(grads, state, params)

        return inject

    port.make, port.around, port.by_step = lambda rate: made(**given), around, False
    port.start()


def _multi_steps(port: Any) -> None:
    """Take each step from two gradients whose mean is the case's: its double, and zero."""
    optax = _import_optax()

    make = port.make

    def around(advance: Any) -> Any:
        def twice(grads: Any, state: Any, params: Any) -> Any:
            for factor in (2.0, 0.0):
                params, state = advance({name: factor * g for name, g in grads.items()}, state, params)
            return params, state

        return twice

    port.make, port.around = lambda rate: optax.MultiSteps(make(rate), 2), around
    port.start()


#: Ways to use a transformation: where one raises an error, the port is not fit for it.
WAYS: dict[str, Callable[[Any], None]] = {
    "jit": _jit,
    "donate": functools.partial(_jit, donate_argnums=(1, 2)),
    "masked": _masked,
    "groups": _groups,
    "inject_hyperparams": _inject_hyperparams,
    "multi-steps": _multi_steps,
}

#: Event -> what is done.
OPTAX_EVENTS: dict[str, Callable[..., Any]] = {
    "state_dict": _state_dict,
    "pickle": _pickle,
    "deepcopy": _deepcopy,
    **WAYS,
}
