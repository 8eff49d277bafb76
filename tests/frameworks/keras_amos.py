"""Amos as a Keras optimizer, and with the decay's extra part left out of d."""

import keras
from keras import ops


class Amos(keras.optimizers.Optimizer):
    """One slot an array; eta_fn gives eta by the variable's name."""

    outside = False

    def __init__(self, learning_rate=1e-3, eta_fn=lambda name: 0.5, beta=0.999, extra_l2=0.0, name="amos", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.eta_fn, self.beta, self.extra_l2 = eta_fn, beta, extra_l2

    def build(self, variables):
        super().build(variables)
        self.v = [self.add_variable((), dtype=x.dtype, name=f"{x.name}_v") for x in variables]
        self.b = [self.add_variable((), dtype=x.dtype, name=f"{x.name}_b") for x in variables]

    def update_step(self, gradient, variable, learning_rate):
        i = self._get_variable_index(variable)
        b, eta, extra = ops.convert_to_tensor(self.b[i]), self.eta_fn(variable.name), self.extra_l2
        xi = ops.cast(learning_rate, variable.dtype)
        g2 = ops.mean(ops.square(gradient))
        self.v[i].assign(self.beta * self.v[i] + (1 - self.beta) * g2)
        t = ops.cast(self.iterations + 1, variable.dtype)
        r = (1 - ops.power(ops.cast(self.beta, variable.dtype), t)) / ops.maximum(self.v[i], 2.0**-125)
        gamma = xi * xi * r * g2 / ops.sqrt(1 + 0.25 * ops.sqrt(xi) * b)
        d = 1 / (1 + 0.25 * ops.sqrt(xi * eta) * b)
        rho = d * gamma / 2 + extra if self.outside else d * (gamma / 2 + extra)
        variable.assign(variable - (d * xi * eta * ops.sqrt(r) * gradient + rho * variable))
        self.b[i].assign(b + gamma * (1 + b))


class Outside(Amos):
    """The mistake: extra_l2 is not damped by d."""

    outside = True


class Listed(Amos):
    """It has an eta of its own, which a single number lacks, and its variables tell no leaf by their names."""

    def __init__(self, learning_rate=1e-3, beta=0.99, extra_l2=0.0, ema_momentum=0.99, **kwargs):
        super().__init__(learning_rate, self.get_scale, beta, extra_l2, ema_momentum=ema_momentum, **kwargs)

    @staticmethod
    def get_scale(variable):
        return 0.5 if isinstance(variable, str) else 0.5 * variable.shape[0] / variable.shape[0]

    def add_variable(self, shape, name=None, **kwargs):
        return super().add_variable(shape, name=None if name and name.endswith(("_v", "_b")) else name, **kwargs)


class Number(Amos):
    """Eta is a number, so that each leaf gets an optimizer of its own."""

    def __init__(self, learning_rate=1e-3, eta=0.5, beta=0.999, extra_l2=0.0, **kwargs):
        super().__init__(learning_rate, lambda name: eta, beta, extra_l2, **kwargs)


class ClosedForm(keras.optimizers.Optimizer):
    """The closed form with inverse-time and the gradient; sigma_fn gives sigma by the variable's name."""

    first = 0

    def __init__(self, learning_rate=1e-3, half_life=100.0, sigma_fn=None, q=1.0, name="closed_form", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.half_life, self.sigma_fn, self.q = half_life, sigma_fn, q

    def build(self, variables):
        super().build(variables)
        self.sigma = [self.measure(x) if self.sigma_fn is None else self.sigma_fn(x.name) for x in variables]

    def measure(self, x):
        flat = bool(ops.all(ops.equal(x, 0))) or bool(ops.all(ops.equal(x, 1)))
        return 0.5 if flat else float(ops.sqrt(ops.mean(ops.square(x))))

    def update_step(self, gradient, variable, learning_rate):
        alpha_0, t = ops.cast(learning_rate, variable.dtype), ops.cast(self.iterations + self.first, variable.dtype)
        shrink = 1 / (1 + t / self.half_life)
        root = ops.sqrt(ops.maximum(ops.mean(ops.square(gradient)), 2.0**-125))
        alpha = alpha_0 * self.sigma[self._get_variable_index(variable)] / root * shrink
        rho = alpha_0 * alpha_0 / (2 * self.q) * shrink
        variable.assign(variable - (alpha * gradient + rho * variable))


class FromOne(ClosedForm):
    """The mistake: t counts from 1."""

    first = 1
