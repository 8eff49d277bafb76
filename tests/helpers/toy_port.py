"""A small right port in NumPy, computing in the parameters' own dtype, and wrong ones made from it."""

import numpy as np

OPTIONS = {
    "learning_rate", "eta", "slot_shape", "beta", "momentum", "clip_value", "extra_l2", "c_coef", "d_coef", "epsilon",
}  # fmt: skip


class ToyPort:
    """Amos written the way frameworks write it: v_hat first, lerp, repeated products, naive means."""

    name, options, skips_none = "toy", OPTIONS, True
    wrong = ""  # which mistake to make

    def __init__(self, wrong="", options=OPTIONS, form=""):
        self.wrong, self.options, self.form = wrong, set(options), form

    def init(self, params, hyper):
        self.p = {name: a.copy() for name, a in params.items()}
        self.h = {"momentum": None, "clip_value": None, "extra_l2": 0.0, "c_coef": 0.25, "d_coef": 0.25}
        self.h |= {"beta": 0.999, "epsilon": 2.0**-125, "slot_shape": dict.fromkeys(params, ())} | hyper
        self.t, self.power = 0, 1.0
        dtype = next(iter(params.values())).dtype
        self.f = dtype.type
        self.v = {name: np.zeros(self.h["slot_shape"][name], dtype) for name in params}
        self.b = {name: np.zeros_like(v) for name, v in self.v.items()}
        self.m = {name: np.zeros_like(a) for name, a in params.items()}

    def own_eta(self, params):
        return None

    def state(self):
        return {"v": self.v, "b": self.b} | ({"m": self.m} if self.h["momentum"] else {})

    def step(self, grads):
        f, h = self.f, self.h
        self.t += 1
        self.power = f(self.power * f(h["beta"]))
        xi = h["learning_rate"]
        if isinstance(xi, list):
            xi = xi[max(self.t - 2, 0)] if self.wrong == "schedule from 0" else xi[self.t - 1]
        for name, g in grads.items():
            if g is None and self.wrong != "None is zero":
                continue
            g = np.zeros_like(self.p[name]) if g is None else g
            delta = self.change(name, g, f(xi), f(h["eta"][name])).astype(f)
            if self.form == "adamw" and not h["momentum"]:
                alpha, rho, clipped = self.decision
                self.p[name] = (self.p[name] * (f(1) - rho) - alpha * clipped).astype(f)
            else:
                self.p[name] = self.p[name] + delta
        return self.p

    def mean(self, name, x):
        slot = self.v[name].shape
        aligned = (1,) * (x.ndim - len(slot)) + slot
        axes = tuple(i for i, n in enumerate(aligned) if n != x.shape[i])
        if self.wrong == "wrong axis" and len(axes) == 1:
            other = np.mean(x, axis=1 - axes[0], keepdims=True)
            return np.resize(other, slot)
        total = np.sum(x, axis=axes, keepdims=True, dtype=x.dtype).reshape(slot)
        return total if self.wrong == "sum for mean" else total / self.f(max(x.size // max(total.size, 1), 1))

    def change(self, name, g, xi, eta):
        f, h, wrong = self.f, self.h, self.wrong
        one, half = f(1), f(0.5)
        chi = h["clip_value"]
        clipped = g if chi is None else np.clip(g, f(-chi), f(chi))
        g2 = self.mean(name, g * g if wrong == "clip after" else clipped * clipped)
        g = clipped
        v, b = self.v[name], self.b[name]
        v = v + (one - f(h["beta"])) * (g2 - v)
        q = one - (self.power * f(h["beta"]) if wrong == "bias one off" else self.power)
        eps = f(h["epsilon"])
        r = q / (v + eps if wrong == "epsilon added" else np.maximum(v, eps))

        def c_of(b):
            return one / np.sqrt(one + f(h["c_coef"]) * (xi if wrong == "c with xi" else np.sqrt(xi)) * b)

        def gamma_of(c):
            return (one if wrong == "gamma without c" else c) * xi * xi * r * g2

        gamma = gamma_of(c_of(b))
        new_b = b * (one + gamma) + gamma
        if wrong == "new b":
            b = new_b
        d = one / (one + f(h["d_coef"]) * np.sqrt(xi if wrong == "d without eta" else xi * eta) * b)
        extra = f(h["extra_l2"]) * f({"extra_l2 sign": -1, "extra_l2 half": 0.5}.get(wrong, 1))
        theta = self.p[name]
        self.decision = d * xi * eta * np.sqrt(r), d * (half * gamma + extra), g
        if wrong == "extra_l2 outside d":
            delta = -d * (xi * eta * np.sqrt(r) * g + half * gamma * theta) - extra * theta
        else:
            delta = -d * (xi * eta * np.sqrt(r) * g + (half * gamma + extra) * theta)
        self.v[name], self.b[name] = v.astype(f), new_b.astype(f)
        mu = h["momentum"]
        if mu:
            if wrong == "momentum before decay":
                decay = -d * (half * gamma + extra) * theta
                self.m[name] = f(mu) * self.m[name] + (one - f(mu)) * (delta - decay)
                return self.m[name] + decay
            self.m[name] = f(mu) * self.m[name] + (one if wrong == "momentum undamped" else one - f(mu)) * delta
            delta = self.m[name] / (one - f(mu) ** f(self.t)) if wrong == "momentum debiased" else self.m[name]
        return delta


class Settable(ToyPort):
    """A toy port that can be started from a state."""

    def put(self, values):
        held = {"theta": self.p, "v": self.v, "b": self.b, "m": self.m}
        for what, arrays in values.items():
            for name, a in arrays.items():
                held[what][name] = a.astype(self.f)

    def put_count(self, n):
        self.t, self.power = n, self.f(self.f(self.h["beta"]) ** self.f(n))


class AllAxes(ToyPort):
    """A right port that wants slots with all axes of their leaf, as the authors' code does."""

    def mean(self, name, x):
        slot = self.v[name].shape
        assert [slot[i] for i in range(x.ndim)] if slot else True
        return super().mean(name, x)


#: Mistake -> the first stage that must show it, when v, b and m are shown.
MISTAKES = {
    "sum for mean": "v",
    "wrong axis": "v",
    "clip after": "v",
    "epsilon added": "b",
    "bias one off": "b",
    "c with xi": "b",
    "gamma without c": "b",
    "new b": "theta",
    "d without eta": "theta",
    "extra_l2 sign": "theta",
    "extra_l2 half": "theta",
    "extra_l2 outside d": "theta",
    "momentum before decay": "m",
    "momentum undamped": "m",
    "momentum debiased": "theta",
    "schedule from 0": "b",
    "None is zero": "v",
}
