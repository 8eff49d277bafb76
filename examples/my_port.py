"""
A port to check
===============

A port of Amos with a mistake in it: b is renewed before it is used.

Run: amos-ref check examples/my_port.py:MyPort
"""

import numpy as np


class MyPort:
    """The smallest port: one slot an array, no options beyond learning rate, beta and eta."""

    name = "my port"
    options = frozenset({"learning_rate", "beta", "eta"})
    skips_none = True

    def init(self, params, hyper):
        """Take the parameters, NumPy arrays by name, and the options of the case."""
        self.params = {name: a.copy() for name, a in params.items()}
        self.hyper = hyper
        self.t = 0
        self.v, self.b = dict.fromkeys(params, 0.0), dict.fromkeys(params, 0.0)

    def step(self, grads):
        """Take one step; a gradient may be None."""
        self.t += 1
        xi, beta = self.hyper["learning_rate"], self.hyper["beta"]
        xi = xi[self.t - 1] if isinstance(xi, list) else xi
        for name, g in grads.items():
            if g is None:
                continue
            eta = self.hyper["eta"][name]
            g2 = np.mean(g * g)
            self.v[name] = beta * self.v[name] + (1 - beta) * g2
            r = (1 - beta**self.t) / max(self.v[name], 2.0**-125)
            b = self.b[name]
            gamma = xi**2 * r * g2 / np.sqrt(1 + 0.25 * np.sqrt(xi) * b)
            b = self.b[name] = b + gamma * (1 + b)  # the mistake: belongs after the next line
            d = 1 / (1 + 0.25 * np.sqrt(xi * eta) * b)
            theta = self.params[name]
            self.params[name] = theta - d * (xi * eta * np.sqrt(r) * g + gamma / 2 * theta)
        return self.params

    def state(self):
        """Show v and b, so that the check can tell the first stage that departs."""
        return {"v": self.v, "b": self.b}

    def own_eta(self, params):
        """Say which eta the port sets by itself: none, it is given."""
        return
