"""A keras.optimizers.Optimizer class as a port, on whichever backend Keras runs."""

import importlib
import inspect
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from amos_ref.conformance.ports.port import Adapter, Arrays, as_counted


def _import_keras() -> Any:
    return importlib.import_module("keras")  # as Any: a type checker takes this file, which has its name, for keras


class KerasPort(Adapter):
    """Drives an optimizer class through build and apply, and reads its variables by name.

    An eta that is a number makes an optimizer a leaf, since Keras has no parameter groups. v, b and m are the
    variables that ``add_variable_from_reference(variable, name="v")`` and its like would name so: "kernel_v"; or those
    in a list of the optimizer that is called so, one for each leaf.
    It is run in float32 alone: what keras.ops computes from float64, it computes in float32
    (``keras.backend.result_type("float64", "float64")`` is "float32").
    """

    apart: bool
    skips_none: bool
    leaves: dict[str, Any]
    optimizers: list[tuple[Any, Any]]

    dtypes: ClassVar[tuple[str, ...]] = ("float32",)

    def __init__(self, cls: Any, name: str, renamed: Mapping[str, str], *of_algorithm: Any) -> None:
        super().__init__(cls, name, renamed, *of_algorithm)
        theirs = self.signature.theirs.get(self.algorithm.scale, "")
        self.apart = bool(theirs) and not (theirs.endswith("fn") or theirs.startswith("get"))
        self.skips_none = not self.apart  # an optimizer refuses a step in which no leaf of its has a gradient

    def of_framework(self) -> Mapping[str, Any]:
        """Return the options of Keras's own base class."""
        bases = [vars(cls).get("__init__") for cls in reversed(_import_keras().optimizers.Optimizer.__mro__)]
        parameters = [inspect.signature(init).parameters for init in bases if init and init is not object.__init__]
        return {name: p.default for of_base in parameters for name, p in of_base.items()} | {"name": ...}

    def own_eta(self, params: Arrays) -> dict[str, float] | None:
        """Ask get_scale, of the class or of an optimizer, for the eta that the port hard-codes."""
        keras = _import_keras()

        leaves = {name: keras.Variable(a, dtype=a.dtype.name) for name, a in params.items()}
        return self.ask_scale(leaves, lambda: self.target(**self.signature.keywords({self.algorithm.rate: 0.25})))

    def init(self, params: Arrays, hyper: dict[str, Any]) -> None:
        """Make the variables and the optimizer, or one a leaf."""
        keras = _import_keras()

        self.leaves = {k: keras.Variable(a, dtype=a.dtype.name, name=k.replace("/", "_")) for k, a in params.items()}
        self.forget_events(params, hyper)
        scale = self.algorithm.scale
        etas: Any = hyper[scale]
        hyper = self.prepare(hyper, params)
        apart = self.apart and etas != self.algorithm.measured
        groups = [[name] for name in params] if apart else [list(params)]
        self.optimizers = []
        for names in groups:
            eta = etas[names[0]] if apart else self.by_leaf(etas, params)
            optimizer = self.target(**self.signature.keywords(hyper | {scale: eta}))
            optimizer.build([self.leaves[name] for name in names])
            self.optimizers.append((optimizer, names))

    def step(self, grads: dict[str, np.ndarray | None]) -> Arrays:
        """Set the learning rate and apply the gradients; Keras warns of those that are None."""
        keras = _import_keras()

        self.step_other(grads)
        rate = None if self.rates is None else next(self.rates)
        for optimizer, names in self.optimizers:
            if rate is not None:
                optimizer.learning_rate = rate
            given = [None if grads[name] is None else keras.ops.convert_to_tensor(grads[name]) for name in names]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Gradients do not exist for variables")
                optimizer.apply(given, [self.leaves[name] for name in names])
        return {name: self.to_numpy(leaf) for name, leaf in self.leaves.items()}

    def find(self, part: str, leaf: str) -> Any:
        """Return the variable that holds this part of a leaf's state, by its name or in a list of the optimizer."""
        variables = {v.name: v for optimizer, names in self.optimizers if leaf in names for v in optimizer.variables}
        names = [f"{self.leaves[leaf].name}_{theirs}" for theirs in self.state_names[part]]
        found = next((variables[name] for name in names if name in variables), None)
        if found is not None:
            return found
        optimizer, leaves = next((optimizer, names) for optimizer, names in self.optimizers if leaf in names)
        lists = [getattr(optimizer, theirs, None) for theirs in self.state_names[part]]
        of_leaf = [held[leaves.index(leaf)] for held in lists if isinstance(held, list) and len(held) == len(leaves)]
        return next((value for value in of_leaf if hasattr(value, "assign")), None)

    def put_count(self, n: int) -> None:
        """Set the count that every optimizer of Keras has."""
        for optimizer, _ in self.optimizers:
            optimizer.iterations.assign(as_counted(n, optimizer.iterations.dtype))

    def to_numpy(self, value: Any) -> np.ndarray:
        """Return a variable's numbers."""
        keras = _import_keras()

        return np.asarray(keras.ops.convert_to_numpy(value))

    def assign(self, value: Any, a: np.ndarray) -> None:
        """Overwrite a variable."""
        value.assign(a.astype(value.dtype).reshape(tuple(value.shape)))
