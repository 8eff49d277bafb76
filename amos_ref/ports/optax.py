"""Amos for optax: paper Amos and the closed form, in one file that needs JAX, optax and nothing else.

``amos`` is paper Amos (Tian & Parikh 2022, arXiv 2210.11693); ``closed_form_amos`` is the Amos of Su Jianlin's article
(kexue.fm 9344), another algorithm. Both need the parameters, ``update(grads, state, params)``, and return negative
updates for ``optax.apply_updates``. A leaf is named by its path, as "dense/kernel". None and ``optax.MaskedNode`` among
the parameters are passed over; a leaf whose gradient is None is skipped while the count of steps goes on. Results are
those of the equations up to rounding, in float64 for float64 parameters and otherwise in float32, as the state is.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false, reportArgumentType=false
import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class AmosState(NamedTuple):
    """The state of :func:`amos`: trees like the parameters, in float32 or wider."""

    count: Any  # (), int32: steps taken; the next step is t = count + 1
    v: Any  # the slot's shape: running mean of the slot's mean squared gradient
    b: Any  # the slot's shape: decay clock, 0 at the start, never falling
    m: Any  # the parameter's shape: running mean of the changes; None without momentum


class ClosedFormAmosState(NamedTuple):
    """The state of :func:`closed_form_amos`: trees like the parameters, in float32 or wider."""

    count: Any  # (), int32: steps taken, which is the t of the next step
    sigma: Any  # (): the distance that an entry is expected to have to travel
    m: Any  # the parameter's shape: running mean of the gradients; None unless the direction is "adam"
    v: Any  # the parameter's shape: running mean of their squares; None likewise


def amos(
    learning_rate: Any, eta: Any, slot_shape: Any = "tensor", beta: Any = 0.999, momentum: Any = None,
    clip_value: Any = None, extra_l2: Any = 0.0, c_coef: Any = 0.25, d_coef: Any = 0.25, epsilon: Any = 2.0**-125,
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """Paper Amos; the equations stand over the code below, for steps t = 1, 2, ...

    Parameters
    ----------
    learning_rate : float or callable
        xi >= 0: about 1/sqrt(N) for N batches in the training set, constant after a warm-up. A schedule is called with
        t = 1 at the first step, where optax's own transformations call theirs with 0.
    eta : float, mapping or callable
        The scale > 0 that the trained entries are expected to have: a number; ``{regex: number}``, of which the first
        that matches at the start of a leaf's name wins; ``{name: number}`` with every leaf's name; or a callable of
        (name, shape), which may be a mapping's value too.
    slot_shape : {"tensor", "element"}, tuple, mapping or callable
        The shape of v and b: one slot for the array, one for each entry, or a shape that broadcasts to the array's, as
        (1, out) for means over the first axis; or a rule that says which, as for `eta`.
    beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon : float
        beta in [0, 1), with 1 - beta of the learning rate's order; momentum in [0, 1) averages the whole change, decay
        included, and is not debiased; clip_value > 0 clips each entry of the gradients before everything else;
        extra_l2 >= 0 is a decay beside Amos's own.
        c_coef, d_coef >= 0 say how fast decay and step size fall; epsilon > 0 is the least v that is divided by.

    Raises
    ------
    ValueError
        If an option is out of its range, a rule has no value or a wrong one for a leaf, a mapping by name names a leaf
        that does not exist, a leaf is not of a real floating-point dtype, or params are missing or do not match.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> params, grads = {"w": jnp.array([3.0, -4.0]), "b": jnp.array(0.0)}, {"w": jnp.ones(2), "b": jnp.array(2.0)}
    >>> optimizer = amos(0.125, eta={"b": 0.5, "w": 1.0}, momentum=0.5)
    >>> state = optimizer.init(params)
    >>> updates, state = jax.jit(optimizer.update)(grads, state, params)
    >>> [f"{x:.3f}" for x in optax.apply_updates(params, updates)["w"]]
    ['2.926', '-4.047']
    """
    _check(locals())
    momentum = momentum if isinstance(momentum, jax.Array) else momentum or None

    def init(params: Any) -> AmosState:
        leaves = _Leaves(params)
        leaves.scales(eta, "eta")  # a rule that lacks a leaf says so now
        slots = leaves.slots(slot_shape)
        v, b = (leaves.make(lambda leaf: jnp.zeros(slots[leaf.name], leaf.wide)) for _ in "vb")
        return AmosState(jnp.zeros([], jnp.int32), v, b, None if momentum is None else leaves.make(_Leaf.zeros))

    def update(updates: Any, state: AmosState, params: Any = None, **extra_args: Any) -> tuple[Any, AmosState]:
        leaves = _Leaves(params)
        etas = leaves.scales(eta, "eta")
        _check_state(state, AmosState, momentum is not None, f"momentum is {momentum!r:.40}")
        t = optax.safe_increment(state.count)
        rate = learning_rate(t) if callable(learning_rate) else learning_rate
        _require("learning_rate", rate, *_LIMITS["learning_rate"], coarse=callable(learning_rate))
        shared = (rate, _one_minus_power(beta, t), beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon)

        def step(leaf: _Leaf, g: Any, v: Any, b: Any, m: Any) -> tuple[Any, ...]:
            xi, q, beta, mu, chi, extra_l2, c_coef, d_coef, epsilon = map(leaf.widen, shared)
            eta, theta = leaf.widen(etas[leaf.name]), leaf.widen(leaf.theta)
            # g = clip(g, -chi, +chi),  g2 = mean(g^2 over the slot's reduced axes)
            g = g if chi is None else jnp.clip(g, -chi, chi)
            g2 = _mean_square(g, v.shape, _spread(leaf.theta) - _spread(v))
            # v = beta v + (1 - beta) g2,  r = (1 - beta^t) / max(v, epsilon)
            v = beta * v + (1.0 - beta) * g2
            r = q / jnp.maximum(v, epsilon)
            # c = 1 / sqrt(1 + c_coef sqrt(xi) b),  gamma = c xi^2 r g2        old b
            c = 1.0 / jnp.sqrt(1.0 + c_coef * jnp.sqrt(xi) * b)
            gamma = c * (xi * xi) * (r * g2)
            # d = 1 / (1 + d_coef sqrt(xi eta) b)                              old b
            d = 1.0 / (1.0 + d_coef * jnp.sqrt(xi * eta) * b)
            # delta = -d (xi eta sqrt(r) g + (gamma/2 + extra_l2) theta)
            delta = -(d * (xi * eta * jnp.sqrt(r)) * g + d * (gamma / 2.0 + extra_l2) * theta)
            # b = b + gamma (1 + b);  m = mu m + (1 - mu) delta and delta = m, with momentum
            b, m = b + gamma * (1.0 + b), None if mu is None else mu * m + (1.0 - mu) * delta
            return (delta if m is None else m), v, b, m

        updates, *parts = leaves.step(step, updates, *state[1:])
        return updates, AmosState(t, *parts)

    return optax.GradientTransformationExtraArgs(init, update)


def closed_form_amos(
    alpha_0: Any = 1e-3, half_life: Any = None, p_0: Any = None,
    decay: str = "inverse-time", p_t: str | None = None, q: Any = 1.0, sigma: Any = "init",
    slot_shape: Any = "tensor", direction: str | Callable[[str, Any, Any], Any] = "gradient",
    beta1: Any = 0.9, beta2: Any = 0.999, adam_epsilon: Any = 1e-8, clip_value: Any = None, epsilon: Any = 2.0**-125,
) -> optax.GradientTransformationExtraArgs:  # fmt: skip
    """The closed form, which is *not* paper Amos; the equations stand over the code below, for steps t = 0, 1, ...

    Parameters
    ----------
    alpha_0 : float
        In (0, 1): the relative size of the first step; 1e-3, or 1e-2 for easy tasks.
    half_life, p_0 : float, optional
        > 0, exactly one of them: the step at which alpha and rho are halved, about a tenth of all steps; or the cosine
        of direction and error at the start.
    decay, p_t : str
        How exp(-2 S_t) falls: "inverse-time", "inverse-square", or "recurrence", of which these are the limits. The
        recurrence has p_t "falling", p_0 exp(-S_t), unless it is "constant".
    sigma : "init", float, mapping or callable
        The distance > 0 that an entry is expected to have to travel. "init": the root mean square of the leaf's initial
        entries, 0.5 where all are 0 or all are 1. Otherwise a number or a rule, as eta of :func:`amos`, with values
        that may be "init". `init` fixes it, and the state keeps it.
    direction : {"gradient", "adam", "sign"} or callable
        u: the gradient; Adam's, with beta1, beta2 and adam_epsilon; the gradient's sign; or ``direction(name, g, t)``,
        an array like g that JAX can trace.
    q, slot_shape, epsilon, clip_value
        q >= alpha_0^2 / 2 is theta.eps / |eps|^2 for the error eps of theta; the others are those of :func:`amos`, with
        u^2 in the place of g^2, and gradients that are clipped before directions are made of them.

    Examples
    --------
    >>> f"{closed_form_amos(0.01, half_life=100).init({'w': jnp.array([3.0, -4.0])}).sigma['w']:.4f}"
    '3.5355'
    """
    _check(locals())
    if (half_life is None) == (p_0 is None):
        raise ValueError(f"half_life is {half_life!r:.40} and p_0 is {p_0!r:.40}; exactly one of them must be given")
    if p_t is not None and decay != "recurrence":
        raise ValueError(f"p_t is {p_t!r} with decay {decay!r}; only decay='recurrence' takes it")
    if not isinstance(alpha_0, jax.Array) and not isinstance(q, jax.Array) and alpha_0 * alpha_0 >= 2 * q:
        raise ValueError(f"q is {q!r}; it must be above alpha_0^2 / 2, or weights decay past 0")
    by_adam = isinstance(direction, str) and direction == "adam"
    falling = decay == "inverse-time" or (decay == "recurrence" and p_t != "constant")
    # x = rate t = alpha_0 p t, twice that for a falling p; at the half-life it is 1, or sqrt(2) - 1
    rate = (1.0 if falling else math.sqrt(2.0) - 1.0) / half_life if p_0 is None else alpha_0 * p_0 * (1.0 + falling)

    def init(params: Any) -> ClosedFormAmosState:
        leaves = _Leaves(params)
        leaves.slots(slot_shape)
        sigmas = leaves.scales(sigma, "sigma")
        start = leaves.make(lambda leaf: leaf.start_sigma(sigmas[leaf.name]))
        m, v = (leaves.make(_Leaf.zeros) if by_adam else None for _ in "mv")
        return ClosedFormAmosState(jnp.zeros([], jnp.int32), start, m, v)

    def update(updates: Any, state: ClosedFormAmosState, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        leaves = _Leaves(params)
        slots = leaves.slots(slot_shape)
        _check_state(state, ClosedFormAmosState, by_adam, f"direction is {direction!r:.40}")
        t, n = state.count, optax.safe_increment(state.count)
        corrections = [_one_minus_power(beta, n) for beta in (beta1, beta2)] if by_adam else [None, None]
        # exp(-2 S_t) = 1 / (1 + x) for a falling p, 1 / (1 + x)^2 for a constant one; S = R/2 or R in the recurrence
        shrunk = jnp.exp(-_recurrence(t, rate)) if decay == "recurrence" else 1.0 / (1.0 + rate * t)
        shrunk = shrunk if falling else shrunk * shrunk
        shared = (alpha_0, shrunk, q, clip_value, epsilon, beta1, beta2, adam_epsilon, *corrections)

        def step(leaf: _Leaf, g: Any, sigma: Any, m: Any, v: Any) -> tuple[Any, ...]:
            alpha_0, shrunk, q, chi, epsilon, beta1, beta2, adam_epsilon, q1, q2 = map(leaf.widen, shared)
            # u = clip(g, -chi, +chi), or what is made of it
            u = g if chi is None else jnp.clip(g, -chi, chi)
            if by_adam:
                # m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2
                m, v = beta1 * m + (1.0 - beta1) * u, beta2 * v + (1.0 - beta2) * (u * u)
                # u = m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + adam_epsilon)        n = t + 1
                u = m / q1 / (jnp.sqrt(v / q2) + adam_epsilon)
            elif callable(direction):
                u = leaf.fit(direction(leaf.name, u, t), "direction")
            elif direction == "sign":
                u = jnp.sign(u)
            # u2 = mean(u^2 over the slot's reduced axes)
            u2 = _mean_square(u, slots[leaf.name], leaf.spread_over(slots[leaf.name]))
            # alpha = alpha_0 sigma / sqrt(max(u2, epsilon)) exp(-2 S_t),  rho = alpha_0^2 / (2q) exp(-2 S_t)
            alpha = alpha_0 * (sigma / jnp.sqrt(jnp.maximum(u2, epsilon))) * shrunk
            rho = alpha_0 * alpha_0 / (2.0 * q) * shrunk
            # delta = -(alpha u + rho theta)
            return -(alpha * u + rho * leaf.widen(leaf.theta)), sigma, m, v

        updates, *parts = leaves.step(step, updates, *state[1:])
        return updates, ClosedFormAmosState(n, *parts)

    return optax.GradientTransformationExtraArgs(init, update)


def _mean_square(x: Any, slot: tuple[int, ...], spread: Collection[str]) -> Any:
    """Return the mean of x^2 over the axes that the slot does not keep, and over devices that hold other parts of x."""
    kept = (1,) * (x.ndim - len(slot)) + slot
    axes = tuple(i for i, n in enumerate(x.shape) if kept[i] != n)
    mean = (jnp.sum(x * x, axes) / max(math.prod(x.shape[i] for i in axes), 1)).reshape(slot)
    return jax.lax.pmean(mean, sorted(spread)) if spread else mean


def _spread(x: Any) -> frozenset[str]:
    """Return over which axes of a mesh an array differs, as JAX knows it inside shard_map (before 0.10 in vma)."""
    kind = jax.typeof(x)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else getattr(kind, "vma", frozenset())


def _one_minus_power(beta: Any, t: Any) -> Any:
    # 1 - beta^t = -expm1(t log(beta)), which keeps its digits where beta^t is near 1
    log = jnp.log(beta) if isinstance(beta, jax.Array) else math.log(beta) if beta > 0 else -math.inf
    return -jnp.expm1(t * log)


def _recurrence(t: Any, k: Any) -> Any:
    """Return R_t of R_0 = 0, R_{t+1} = R_t + k exp(-R_t): large steps one by one, at most 64, the rest at once."""
    # A(y_t) = A(y_0) + t for y = exp(R) / k and A(y) = y - log(y)/2 + c_1/y + ... + c_8/y^8
    c = (-443 / 80640, -18349 / 3175200, 37 / 103680, 41 / 4200, 1 / 48, 19 / 540, 1 / 16, 1 / 6, 0.0)
    t, k, zero = jnp.asarray(t, float), jnp.asarray(k, float), jnp.zeros((), float)
    more = lambda head: (head[0] < t) & (k * jnp.exp(-head[1]) > 1 / 64)  # noqa: E731
    grow = lambda head: (head[0] + 1.0, head[1] + k * jnp.exp(-head[1]))  # noqa: E731
    n, first = jax.lax.while_loop(more, grow, (zero, zero))
    z, c = k * jnp.exp(-first), jnp.asarray(c, float)
    way = after = t - n
    for _ in range(8):
        way = after + jnp.log1p(z * way) / 2 - (jnp.polyval(c, z / (1 + z * way)) - jnp.polyval(c, z))
    return first + jnp.log1p(z * way)


class _Leaf(NamedTuple):
    name: str
    theta: Any
    shape: tuple[int, ...]
    wide: Any  # the dtype in which it is stepped

    def widen(self, x: Any) -> Any:
        """Return an array in that dtype; a number of Python takes any dtype as it is."""
        return jnp.asarray(x, self.wide) if hasattr(x, "dtype") else x

    def zeros(self) -> Any:
        return jnp.zeros_like(self.theta, self.wide)

    def start_sigma(self, sigma: Any) -> Any:
        if not isinstance(sigma, str):
            return jnp.asarray(sigma, self.wide)
        # sigma^2 = |theta_0|^2 / k; 0.5 where all entries are 0 or all are 1
        flat = jnp.all(self.theta == 0.0) | jnp.all(self.theta == 1.0)
        return jnp.where(flat, self.widen(jnp.array(0.5)), jnp.sqrt(_mean_square(self.widen(self.theta), (), ())))

    def spread_over(self, slot: tuple[int, ...]) -> frozenset[str]:
        if math.prod(slot) != 1 and slot != self.shape and _spread(self.theta):
            raise ValueError(f"slots {slot} of leaf {self.name!r}, a shard: in shard_map use 'tensor' or 'element'")
        return _spread(self.theta) if math.prod(slot) == 1 else frozenset()

    def fit(self, x: Any, what: str) -> Any:
        if jnp.shape(x) != self.shape or not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            given = f"{what} of leaf {self.name!r} is {jnp.result_type(x)} of shape {jnp.shape(x)}"
            raise ValueError(f"{given}; it must be real floating-point of shape {self.shape}")
        return jnp.asarray(x, self.wide)


_ABSENT = (type(None), optax.MaskedNode)


class _Leaves:
    """The leaves of a tree of parameters by name: all of them, and those that are here, neither None nor masked."""

    def __init__(self, params: Any) -> None:
        if params is None:
            raise ValueError("Amos needs the parameters: update(grads, state, params)")
        found, self.form = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda x: isinstance(x, _ABSENT))
        names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in found]
        self.all = dict(zip(names, (theta for _, theta in found), strict=True))
        if len(self.all) != len(names):
            raise ValueError(f"two leaves are named {max(names, key=names.count)!r}")
        self.here = []
        for name, theta in self.all.items():
            if not isinstance(theta, _ABSENT):
                dtype = jnp.result_type(theta)
                if not jnp.issubdtype(dtype, jnp.floating):
                    raise ValueError(f"leaf {name!r} is {dtype}; Amos steps real floating-point arrays: mask it")
                self.here += [_Leaf(name, theta, jnp.shape(theta), jnp.float64 if dtype == "float64" else jnp.float32)]

    def make(self, function: Callable[[_Leaf], Any]) -> Any:
        return self.form.unflatten((self.all | {leaf.name: function(leaf) for leaf in self.here}).values())

    def step(self, function: Callable[..., Any], *trees: Any) -> list[Any]:
        """Return trees of what ``function(leaf, gradient, *parts)`` returns of each leaf; a part that is None stays."""
        columns = [[None] * len(self.all) if tree is None else self.form.flatten_up_to(tree) for tree in trees]
        rows = dict(zip(self.all, zip(*columns, strict=True), strict=True))
        for leaf in self.here:
            g, *parts = rows[leaf.name]
            # A leaf that is skipped gets -0.0, which changes no number that it is added to, not even another -0.0.
            skipped = isinstance(g, _ABSENT) and (jnp.full_like(leaf.theta, -0.0), *parts)
            rows[leaf.name] = skipped or function(leaf, leaf.fit(g, "gradient"), *parts)
        found = zip(trees, zip(*rows.values(), strict=True) if rows else [()] * len(trees), strict=True)
        return [None if tree is None else self.form.unflatten(leaves) for tree, leaves in found]

    def scales(self, rule: Any, option: str) -> dict[str, Any]:
        found = self._apply(rule, option, "eta")
        for name, value in found.items():
            if option != "sigma" or not isinstance(value, str) or value != "init":
                _require(f"{option} of leaf {name!r}", value, *_POSITIVE)
        return found

    def slots(self, rule: Any) -> dict[str, tuple[int, ...]]:
        found = self._apply(rule, "slot_shape", "slot_shape")
        for leaf in self.here:
            value, words = found[leaf.name], {"tensor": (), "element": leaf.shape}
            try:
                slot = words[value] if isinstance(value, str) else tuple(map(operator.index, value))
                if jnp.broadcast_shapes(slot, leaf.shape) != leaf.shape:
                    raise ValueError
            except (KeyError, TypeError, ValueError):
                where, fit = f"slot_shape of leaf {leaf.name!r}", f"a shape that broadcasts to {leaf.shape}"
                raise ValueError(f"{where} is {value!r:.60}; it must be 'tensor', 'element' or {fit}") from None
            found[leaf.name] = slot
        return found

    def _apply(self, rule: Any, option: str, part: str) -> dict[str, Any]:
        rule = getattr(rule, part, rule)  # of a pair of rules; below, of an entry of amos_ref.choose
        values = self._look_up(rule, option) if isinstance(rule, Mapping) else dict.fromkeys(self.all, rule)
        for leaf in self.here:
            if hasattr(entry := values[leaf.name], "slot_shape") and entry.shape != leaf.shape:
                raise ValueError(f"{option} of leaf {leaf.name!r} was chosen for shape {entry.shape}, not {leaf.shape}")
        values = {leaf.name: getattr(values[leaf.name], part, values[leaf.name]) for leaf in self.here}
        return {leaf.name: x(leaf.name, leaf.shape) if callable(x := values[leaf.name]) else x for leaf in self.here}

    def _look_up(self, rules: Mapping[Any, Any], option: str) -> dict[str, Any]:
        """Return a mapping's values: by name, if its keys are plain and some leaf has one for its name; or by regex."""
        plain = all(isinstance(key, str) and (key in self.all or re.fullmatch(r"[\w./ -]*", key)) for key in rules)
        by_name, found = plain and any(key in self.all for key in rules), {}
        for leaf in self.here:
            try:
                key = leaf.name if by_name else next((key for key in rules if re.match(key, leaf.name)), None)
            except (re.error, TypeError) as error:
                raise ValueError(f"{option}: a key of the rules is not a regular expression: {error}") from None
            found |= {leaf.name: rules[key]} if key in rules else {}
        masked = tuple(f"{name}/" for name, theta in self.all.items() if isinstance(theta, _ABSENT))
        extra = [key for key in rules if by_name and key not in self.all and not key.startswith(masked)]
        missing = [leaf.name for leaf in self.here if leaf.name not in found]
        if missing or extra:
            words = f"no rule for leaf {missing}" if missing else f"there is no leaf {extra}"
            raise ValueError(f"{option}: {words}; the rules are {list(rules)!s:.200}")
        return found


_POSITIVE = (lambda x: 0 < x < math.inf, "a finite number > 0")
_LIMITS = dict.fromkeys(("clip_value", "epsilon", "half_life", "p_0", "q", "adam_epsilon"), _POSITIVE)
_LIMITS |= dict.fromkeys(("beta", "beta1", "beta2", "momentum"), (lambda x: 0 <= x < 1, "a number in [0, 1)"))
_LIMITS |= dict.fromkeys(("extra_l2", "c_coef", "d_coef"), (lambda x: 0 <= x < math.inf, "a finite number >= 0"))
_LIMITS |= {"learning_rate": _LIMITS["extra_l2"], "alpha_0": (lambda x: 0 < x < 1, "a number in (0, 1)")}
_KINDS = {"decay": ("inverse-time", "inverse-square", "recurrence"), "p_t": (None, "falling", "constant")}
_KINDS |= {"direction": ("gradient", "adam", "sign")}


def _check(options: dict[Any, Any]) -> None:
    for name, value in options.items():
        if name in _KINDS and value not in _KINDS[name] and not (callable(value) and name == "direction"):
            raise ValueError(f"{name} is {value!r:.60}; it must be one of {', '.join(map(repr, _KINDS[name]))}")
        lacking = value is None and name in ("momentum", "clip_value", "half_life", "p_0")
        if name in _LIMITS and not lacking and not (callable(value) and name == "learning_rate"):
            _require(name, value, *_LIMITS[name])


def _require(where: str, value: Any, test: Callable[[float], bool], words: str, coarse: bool = False) -> None:
    traced, dtype = isinstance(value, jax.core.Tracer), getattr(value, "dtype", jnp.dtype(bool))
    number = isinstance(value, int | float) or any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer))
    if not number or isinstance(value, bool) or jnp.shape(value) or not (traced or test(float(value))):
        raise ValueError(f"{where} is {value!r:.60}; it must be {words}")
    if isinstance(value, jax.Array) and dtype.itemsize < 4 and not coarse:
        raise ValueError(f"{where} is a {dtype}, too coarse: inject_hyperparams(..., hyperparam_dtype='float32')")


def _check_state(state: Any, kind: Any, has_m: bool, given: str) -> None:
    if getattr(state, "_fields", None) != kind._fields or (state.m is not None) != has_m:
        raise ValueError(f"{given}, and the state is not one of that ({type(state).__name__}): init makes a new one")
