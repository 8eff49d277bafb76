"""A step that must be refused, and what must be true of its error."""

import numpy as np
import optree
import pytest

from helpers import strategies as own
from helpers.messages import one_line
from helpers.optimizers import backends_of, make


class Attempt:
    """Arguments of one step of a tree whose last leaf goes wrong, so that the others could have moved before."""

    def __init__(self, name, **options):
        self.name, self.options = name, options
        rng = np.random.default_rng(8)
        self.params = {"a": {"w": [rng.normal(size=(2, 2)), rng.normal(size=4)]}, "z": rng.normal(size=(2, 3))}
        self.grads = optree.tree_map(lambda a: rng.normal(size=a.shape), self.params)
        opt = make(name, **options)
        _, self.state = opt.update(self.grads, opt.init(self.params), self.params)

    def call(self, method, backend="numpy"):
        opt = make(self.name, backend, **self.options)
        if method == "step":
            return opt.step(self.params, self.grads, self.state)
        return getattr(opt, method)(self.grads, self.state, self.params)

    def bits(self):
        leaves = optree.tree_leaves((self.params, self.grads, self.state), none_is_leaf=True)
        return [own.bits(a) if isinstance(a, np.ndarray) else repr(a) for a in leaves]

    def replace(self, part, arrays):
        self.state = self.state._replace(**{part: arrays})

    def fails(self, error, words, methods=("step", "update", "trace")):
        """The step in place, with each backend, and the pure ones raise this error and change nothing."""
        before = self.bits()
        for method in methods:
            for backend in backends_of(self.name) if method == "step" else ["numpy"]:
                with pytest.raises(error) as caught:
                    self.call(method, backend)
                assert type(caught.value) is error
                one_line(caught.value, words)
                assert self.bits() == before
