"""Amos for Keras 3 in one file: :class:`Amos` is paper Amos, :class:`ClosedFormAmos` is the closed form.

The file imports keras and the standard library only, so it can be copied into another project as it is (Apache 2.0). It
runs on every backend of Keras. Both optimizers move each slot of a variable theta along a direction u, and shrink it::

    theta = theta - (alpha u + rho theta)

Each class says how it decides alpha and rho. A variable is named by its path, as "dense/kernel". Results are those of
amos_ref within rounding, which ``amos-ref check amos_ref.ports.keras:Amos`` checks. Steps and state are in float32, and
in float64 for variables in float64 where the backend has it.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, ClassVar

import keras
from keras import ops

_FITTING: dict[str, Any] = {  # what an option may be: a number in a range, or one of several words
    **dict.fromkeys(("learning_rate", "extra_l2", "c_coef", "d_coef"), "[0, inf)"),
    **dict.fromkeys(("eta", "sigma", "epsilon", "q", "adam_epsilon"), "(0, inf)"),
    **dict.fromkeys(("clip_value", "half_life", "p_0"), "(0, inf) or None"),
    **{"beta": "[0, 1)", "momentum": "[0, 1) or None", "beta1": "[0, 1)", "beta2": "[0, 1)", "alpha_0": "(0, 1)"},
    **{"direction": ("gradient", "sign", "adam"), "p_t": (None, "falling", "constant")},
    **{"decay": ("inverse-time", "inverse-square", "recurrence")},
}


def _check(name: str, x: Any, where: str = "") -> Any:
    """Return an option's value if it fits, a number of NumPy as one of Python, which every config can hold."""
    allowed, number = _FITTING[name], isinstance(x, Real) and not isinstance(x, bool)
    fits, words = x is None and "None" in allowed, f"a number in {allowed}"
    if isinstance(allowed, tuple):
        fits, words = any(type(x) is type(word) and x == word for word in allowed), f"one of {allowed}"
    elif number:
        low, high = map(float, allowed[1 : allowed.index(")")].split(","))
        fits = (low <= x if "[" in allowed else low < x) and x < high
    if not fits:
        raise ValueError(f"{where or name} is {x!r:.60}; it must be {words}")
    return float(x) if number else x


def _slot(x: Any, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Return a slot shape, whose axes of size 1, and those that it lacks in front, are averaged over."""
    slot = {"tensor": (), "element": shape}.get(x, x) if isinstance(x, str) else x
    pairs = zip(slot[::-1], shape[::-1], strict=False) if isinstance(slot, tuple | list) else [(0, 1)]
    if any(not isinstance(n, Integral) or n is True or n not in (1, m) for n, m in pairs) or len(slot) > len(shape):
        raise ValueError(f"{where} is {x!r:.60}; it must be 'tensor', 'element' or broadcast to {shape}")
    return tuple(map(int, slot))


def _look_up(rules: Mapping[str, Any], names: list[str], option: str) -> list[Any]:
    """Return each variable's value: of a mapping with its whole name, or of the first regex that matches its start."""
    plain = all(key in names or re.fullmatch(r"[\w./ -]*", key) for key in rules)
    by_name = plain and any(key in names for key in rules)
    keys = [name if by_name else next((key for key in rules if re.match(key, name)), None) for name in names]
    missing = [name for name, key in zip(names, keys, strict=True) if key not in rules]
    if missing or (extra := [key for key in rules if by_name and key not in names]):
        words = f"no rule for variable {missing}" if missing else f"there is no variable {extra}"
        raise ValueError(f"{option}: {words}; the rules are {list(rules)!s:.200}")
    return [rules[key] for key in keys]


class _Family(keras.optimizers.Optimizer):
    """What both algorithms have in common: options, rules, configs, and how a variable is stepped."""

    _scale: ClassVar[str]  # "eta" or "sigma"

    def __init__(self, learning_rate: Any, options: dict[str, Any], of_base: dict[str, Any]) -> None:
        if of_base.pop("weight_decay", None) is not None:
            raise ValueError("weight_decay is not for Amos, which has a decay of its own; more of it is extra_l2")
        for name in options.keys() & _FITTING.keys() - {self._scale}:
            options[name] = _check(name, options[name])
        for name, part in ((self._scale, "eta"), ("slot_shape", "slot_shape")):
            if isinstance(rule := options[name], Mapping):  # an entry of amos_ref.choose has both parts
                options[name] = {key: getattr(x, part, x) for key, x in rule.items()}
            elif isinstance(rule, Real):
                options[name] = _check(name, rule) if name == self._scale else rule
        number = isinstance(learning_rate, Real)
        super().__init__(_check("learning_rate", learning_rate) if number else learning_rate, **of_base)
        self.options = options

    def build(self, variables: Any) -> None:
        """Ask the rules, and make the state of all variables."""
        super().build(variables)
        self.paths = names = [getattr(x, "path", x.name) for x in variables]
        shapes = [tuple(x.shape) for x in variables]
        for name, x in zip(names, variables, strict=True):
            if not keras.backend.is_float_dtype(x.dtype):
                raise ValueError(f"variable {name!r} is {x.dtype}; Amos steps real floating-point variables")
        slots, scales = (self._each(option, names, shapes) for option in ("slot_shape", self._scale))
        self.slots = [_slot(*x) for x in zip(slots, shapes, [f"slot_shape of {n!r}" for n in names], strict=True)]
        self.scales = self._measure(variables, names, scales)
        # A model that is loaded may call its variables otherwise, so a config has each one's values in their order.
        self.answers = {"slot_shape": [list(slot) for slot in self.slots], self._scale: scales}
        for part, whole in self.parts().items():
            made = [self._make(part, x, x.shape if whole else s) for x, s in zip(variables, self.slots, strict=True)]
            setattr(self, part, made)

    def _each(self, option: str, names: list[str], shapes: list[tuple[int, ...]]) -> list[Any]:
        rule = self.options[option]
        if isinstance(rule, Mapping):
            found = _look_up(rule, names, option)
        elif isinstance(rule, list) and not (option == "slot_shape" and all(isinstance(n, Integral) for n in rule)):
            found = rule
            if len(rule) != len(names):
                raise ValueError(f"{option} has {len(rule)} values; there are {len(names)} variables: {names}")
        else:
            found = [rule] * len(names)
        return [x(name, shape) if callable(x) else x for x, name, shape in zip(found, names, shapes, strict=True)]

    def _measure(self, variables: Any, names: list[str], scales: list[Any]) -> list[Any]:
        return [_check(self._scale, x, f"{self._scale} of {name!r}") for x, name in zip(scales, names, strict=True)]

    def _make(self, part: str, variable: Any, shape: Any, start: Any = "zeros") -> Any:
        if getattr(variable, "overwrite_with_gradient", False):  # which Keras sets to its gradient, and does not step
            return None
        layout = getattr(variable, "_layout", None) if tuple(shape) == tuple(variable.shape) else None
        of_layout = {} if layout is None else {"layout": layout}
        name = f"{getattr(variable, 'path', variable.name).replace('/', '_')}_{part}"
        return self.add_variable(tuple(shape), start, self._wide(variable), name=name, **of_layout)

    @staticmethod
    def _wide(variable: Any) -> str:
        return "float64" if keras.backend.standardize_dtype(variable.dtype) == "float64" else "float32"

    def _count(self, wide: str) -> Any:
        n = ops.cast(self.iterations, wide)  # of an int32, which goes on below 0 after 2^31 - 1
        return ops.where(n < 0, n + 2.0**32, n)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Step one variable."""
        i, wide, chi = self._get_variable_index(variable), self._wide(variable), self.options["clip_value"]
        theta, g = (ops.cast(ops.stop_gradient(ops.convert_to_tensor(x)), wide) for x in (variable, gradient))
        # g = clip(g, -chi, chi)
        g = g if chi is None else ops.clip(g, -chi, chi)
        u = self._direction(i, g, wide)
        # u2 = mean(u^2 over the slot's reduced axes)
        slot, shape = tuple(self.slots[i]), tuple(variable.shape)
        kept = (1,) * (len(shape) - len(slot)) + slot
        axes = [axis for axis, n in enumerate(shape) if n != kept[axis]]
        count = max(math.prod(shape[axis] for axis in axes), 1)
        u2 = ops.reshape(ops.sum(u * u, axes) / count if axes else u * u, slot)
        # delta = -(alpha u + rho theta)
        alpha, rho = self._decide(i, u2, ops.cast(learning_rate, wide), wide)
        delta = -(alpha * u + rho * theta)
        if self.options.get("momentum"):
            # m = mu m + (1 - mu) delta, in the place of delta
            delta = self.options["momentum"] * self._read("m", i) + (1 - self.options["momentum"]) * delta
            self.m[i].assign(delta)
        # theta = theta + delta
        variable.assign(ops.cast(theta + delta, variable.dtype))

    def _read(self, part: str, i: int) -> Any:
        return ops.convert_to_tensor(getattr(self, part)[i])

    def get_config(self) -> dict[str, Any]:
        """Return the options of both classes; once it is built, with each variable's values in the place of rules."""
        own = {k: list(x) if isinstance(x, tuple) else x for k, x in self.options.items()}
        for option in [k for k, x in own.items() if callable(x) or isinstance(x, Mapping)]:
            rule = keras.saving.serialize_keras_object(own[option]) if not self.built else self.answers[option]
            own[option] = rule
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Return an optimizer of these options, with no state yet."""
        load = keras.saving.deserialize_keras_object
        of_class = {k: load(x, custom_objects) for k, x in config.items() if isinstance(x, dict)}
        return cls(**{**config, **of_class})


@keras.saving.register_keras_serializable("amos_ref")
class Amos(_Family):
    """Paper Amos (Tian & Parikh 2022, arXiv 2210.11693).

    For each slot of a variable theta with gradient g, at step t = 1, 2, ...::

        v     = beta v + (1 - beta) mean(g^2)         r = (1 - beta^t) / max(v, epsilon)
        gamma = xi^2 r mean(g^2) / sqrt(1 + c_coef sqrt(xi) b)
        theta = theta - (xi eta sqrt(r) g + (gamma/2 + extra_l2) theta) / (1 + d_coef sqrt(xi eta) b)
        b     = b + gamma (1 + b)

    learning_rate is xi: a number, or one of Keras's schedules, which are called with 0 first. eta and slot_shape are a
    value for all; a mapping with the path of every variable, or of regular expressions, of which the first that matches
    at the start of a path wins; a callable of (path, shape); or a list with a value for each variable. A slot_shape is
    "tensor", "element", or a shape that broadcasts to the variable's, whose axes of size 1 are averaged over, as
    (1, out) for the kernel of a Dense layer. All else is as in ``amos_ref.Amos``. Keras's own options work as with all
    of its optimizers, its clipping before clip_value, except weight_decay, which is refused.

    Examples
    --------
    >>> import keras
    >>> from amos_ref.ports.keras import Amos
    >>> w = keras.Variable([1.0, -2.0])
    >>> optimizer = Amos(0.1, eta=0.5)
    >>> optimizer.apply([keras.ops.array([3.0, 4.0])], [w])
    >>> [f"{x:.4f}" for x in keras.ops.convert_to_numpy(w.value)]
    ['0.9526', '-2.0466']
    """

    _scale = "eta"

    def __init__(
        self, learning_rate: Any = 1e-3, eta: Any = 0.5, slot_shape: Any = "tensor", beta: float = 0.999,
        momentum: float | None = None, clip_value: float | None = None, extra_l2: float = 0.0, c_coef: float = 0.25,
        d_coef: float = 0.25, epsilon: float = 2.0**-125, name: str = "amos", **kwargs: Any,
    ) -> None:  # fmt: skip
        own = dict(eta=eta, slot_shape=slot_shape, beta=beta, momentum=momentum, clip_value=clip_value)
        own |= dict(extra_l2=extra_l2, c_coef=c_coef, d_coef=d_coef, epsilon=epsilon)
        super().__init__(learning_rate, own, {"name": name, **kwargs})

    def parts(self) -> dict[str, bool]:
        """Return the parts of the state, and whether one has the variable's shape, or else the slot's."""
        return {"v": False, "b": False} | ({"m": True} if self.options["momentum"] else {})

    def _direction(self, i: int, g: Any, wide: str) -> Any:
        return g

    def _decide(self, i: int, g2: Any, xi: Any, wide: str) -> tuple[Any, Any]:
        eta, beta, o = self.scales[i], self.options["beta"], self.options
        v, b = self._read("v", i), self._read("b", i)
        t = self._count(wide) + 1
        # v = beta v + (1 - beta) g2, r = (1 - beta^t) / max(v, epsilon)
        v = beta * v + (1 - beta) * g2
        r = _one_minus_power(beta, t) / ops.clip(v, o["epsilon"], math.inf)
        # c = 1 / sqrt(1 + c_coef sqrt(xi) b) with the old b, gamma = c xi^2 r g2
        c = 1 / ops.sqrt(1 + o["c_coef"] * ops.sqrt(xi) * b)
        gamma = c * (xi * xi) * (r * g2)
        # d = 1 / (1 + d_coef sqrt(xi eta) b) with the old b
        d = 1 / (1 + o["d_coef"] * ops.sqrt(xi * eta) * b)
        # b = b + gamma (1 + b)
        self.v[i].assign(v)
        self.b[i].assign(b + gamma * (1 + b))
        # alpha = d xi eta sqrt(r), rho = d (gamma/2 + extra_l2)
        return d * (xi * eta * ops.sqrt(r)), d * (gamma / 2 + o["extra_l2"])


@keras.saving.register_keras_serializable("amos_ref")
class ClosedFormAmos(_Family):
    """The closed form: step size and weight decay follow one plan. It is *not* paper Amos.

    For each slot of a variable theta, with a direction u made of its gradient, at step t = 0, 1, ...::

        alpha = alpha_0 sigma / sqrt(max(mean(u^2), epsilon)) exp(-2 S_t)
        rho   = alpha_0^2 / (2 q) exp(-2 S_t)                                exp(-2 S_t) = 1 / (1 + t / half_life)
        theta = theta - (alpha u + rho theta)

    sigma is as eta of :class:`Amos`, or "init": the root mean square of a variable's entries when the optimizer is
    built, 0.5 where all are 0 or all are 1. It is part of the state. The options are those of
    ``amos_ref.ClosedFormAmos``, without callables for direction and p_t. alpha_0 is a constant of the plan, so there is
    no learning rate to be set.

    Examples
    --------
    >>> import keras
    >>> from amos_ref.ports.keras import ClosedFormAmos
    >>> w = keras.Variable([3.0, -4.0])
    >>> optimizer = ClosedFormAmos(alpha_0=0.01, half_life=100)
    >>> optimizer.apply([keras.ops.array([0.6, -0.8])], [w])
    >>> [f"{x:.4f}" for x in keras.ops.convert_to_numpy(w.value)]
    ['2.9699', '-3.9598']
    """

    _scale = "sigma"

    def __init__(
        self, alpha_0: float = 1e-3, half_life: float | None = None, p_0: float | None = None,
        decay: str = "inverse-time", p_t: str | None = None, q: float = 1.0, sigma: Any = "init",
        slot_shape: Any = "tensor", direction: str = "gradient", beta1: float = 0.9, beta2: float = 0.999,
        adam_epsilon: float = 1e-8, clip_value: float | None = None, epsilon: float = 2.0**-125,
        name: str = "closed_form_amos", **kwargs: Any,
    ) -> None:  # fmt: skip
        own = dict(alpha_0=alpha_0, half_life=half_life, p_0=p_0, decay=decay, p_t=p_t, q=q, sigma=sigma)
        own |= dict(slot_shape=slot_shape, direction=direction, beta1=beta1, beta2=beta2, adam_epsilon=adam_epsilon)
        own |= dict(clip_value=clip_value, epsilon=epsilon)
        if "learning_rate" in kwargs:
            raise ValueError("there is no learning_rate; alpha_0 is the relative size of the first step")
        if (half_life is None) == (p_0 is None):
            raise ValueError(f"half_life is {half_life!r} and p_0 is {p_0!r}; exactly one of them must be given")
        if p_t is not None and decay != "recurrence":
            raise ValueError(f"p_t is {p_t!r} with decay {decay!r}; only decay='recurrence' takes it")
        if _check("q", q) <= _check("alpha_0", alpha_0) ** 2 / 2:
            raise ValueError(f"q is {q!r}; it must be above alpha_0^2/2, or weights decay past 0")
        super().__init__(alpha_0, own, {"name": name, **kwargs})

    @property
    def learning_rate(self) -> Any:
        """alpha_0, for whoever shows a learning rate."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        raise AttributeError("alpha_0 is a constant of the plan, which no learning rate or callback changes")

    def get_config(self) -> dict[str, Any]:
        """Return the options, with alpha_0 in the place of a learning rate."""
        return {k: x for k, x in super().get_config().items() if k != "learning_rate"}

    def parts(self) -> dict[str, bool]:
        """Return the parts of the state, which have the variable's shape."""
        return {"m": True, "v": True} if self.options["direction"] == "adam" else {}

    def _measure(self, variables: Any, names: list[str], scales: list[Any]) -> list[Any]:
        """Return sigma in variables, since a model that is loaded is built before it has its weights."""
        found = []
        for x, name, sigma in zip(variables, names, scales, strict=True):
            if isinstance(sigma, str) and sigma == "init":
                # sigma^2 = |theta_0|^2 / k; 0.5 where all entries are 0 or all are 1
                a = ops.convert_to_numpy(x.value).astype("float64")
                sigma = 0.5 if (a == 0).all() or (a == 1).all() else float((a * a).mean() ** 0.5)
            sigma = _check("sigma", sigma, f"sigma of {name!r}")
            found.append(self._make("sigma", x, (), keras.initializers.Constant(sigma)))
        return found

    def _direction(self, i: int, g: Any, wide: str) -> Any:
        o, n = self.options, self._count(wide) + 1
        if o["direction"] != "adam":
            return ops.sign(g) if o["direction"] == "sign" else g
        # m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
        m = o["beta1"] * self._read("m", i) + (1 - o["beta1"]) * g
        v = o["beta2"] * self._read("v", i) + (1 - o["beta2"]) * (g * g)
        self.m[i].assign(m)
        self.v[i].assign(v)
        # u = m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + adam_epsilon)
        q1, q2 = (_one_minus_power(o[name], n) for name in ("beta1", "beta2"))
        return m / q1 / (ops.sqrt(v / q2) + o["adam_epsilon"])

    def _decide(self, i: int, u2: Any, _: Any, wide: str) -> tuple[Any, Any]:
        o, shrunk, sigma = self.options, self._shrink(wide), self._read("scales", i)
        # alpha = alpha_0 sigma / sqrt(max(u2, epsilon)) exp(-2 S_t), rho = alpha_0^2 / (2q) exp(-2 S_t)
        alpha = o["alpha_0"] * (sigma / ops.sqrt(ops.clip(u2, o["epsilon"], math.inf))) * shrunk
        return alpha, o["alpha_0"] * o["alpha_0"] / (2 * o["q"]) * shrunk

    def _shrink(self, wide: str) -> Any:
        # exp(-2 S_t) of S_{t+1} = S_t + alpha_0 p_t exp(-S_t), where p_t is p_0 exp(-S_t), or constant
        o, t = self.options, self._count(wide)
        falls = o["p_t"] != "constant" if o["decay"] == "recurrence" else o["decay"] == "inverse-time"
        half = 1.0 if falls else math.sqrt(2) - 1
        k = half / o["half_life"] if o["p_0"] is None else o["alpha_0"] * o["p_0"] * (2 if falls else 1)
        # the limits of exp(-S_t), and of its square where p falls: 1 / (1 + k t)
        root = _recurrence(t, k) if o["decay"] == "recurrence" else 1 / (1 + k * t)
        return root if falls else root * root


def _one_minus_power(beta: float, t: Any) -> Any:
    # 1 - beta^t = -expm1(t log(beta)), which keeps its digits where beta^t is near 1
    return -ops.expm1(t * math.log(beta)) if beta else ops.ones_like(t)


def _recurrence(t: Any, k: float) -> Any:
    """Return exp(-R_t) of R_0 = 0, R_{t+1} = R_t + k exp(-R_t): large steps one by one, the rest at once."""
    firsts = [0.0]
    while len(firsts) <= 64 and k * math.exp(-firsts[-1]) > 1 / 64:
        firsts.append(firsts[-1] + k * math.exp(-firsts[-1]))
    n = ops.cast(ops.clip(t, 0, len(firsts) - 1), "int32")
    root = ops.take(ops.convert_to_tensor([math.exp(-x) for x in firsts], t.dtype), n)
    # A(y_t) = A(y_0) + t for y = exp(R) / k and A(y) = y - log(y)/2 + c_1/y + ... + c_8/y^8
    z, after = k * root, t - ops.cast(n, t.dtype)
    way = after
    for _ in range(8):
        way = after + ops.log1p(z * way) / 2 - (_series(z / (1 + z * way)) - _series(z))
    return root / (1 + z * way)


def _series(x: Any) -> Any:
    total: Any = 0.0
    for c in (-443 / 80640, -18349 / 3175200, 37 / 103680, 41 / 4200, 1 / 48, 19 / 540, 1 / 16, 1 / 6, 0.0):
        total = total * x + c
    return total
