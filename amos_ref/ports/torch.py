"""Amos for torch in one file: :class:`Amos` is paper Amos, :class:`ClosedFormAmos` is the closed form.

The file imports torch and the standard library only, so it can be copied into another project as it is (Apache 2.0).
Both optimizers move each slot of a parameter theta along a direction u, and shrink it::

    theta = theta - (alpha u + rho theta)

Each class says how it decides alpha and rho. Results are those of amos_ref within rounding, which
``amos-ref check amos_ref.ports.torch:Amos`` checks.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

_RANGES: dict[str, Any] = {  # what an option may be: a number in a range, or one of several words
    **dict.fromkeys(("lr", "extra_l2", "c_coef", "d_coef"), "[0, inf)"),
    **dict.fromkeys(("eta", "sigma", "epsilon", "q", "adam_epsilon"), "(0, inf)"),
    **dict.fromkeys(("clip_value", "half_life", "p_0"), "(0, inf) or None"),
    **{"beta": "[0, 1)", "momentum": "[0, 1) or None", "beta1": "[0, 1)", "beta2": "[0, 1)", "alpha_0": "(0, 1)"},
    **{"maximize": (False, True), "foreach": (None, False, True), "capturable": (False, True)},
    **{"direction": ("gradient", "sign", "adam"), "state_dtype": ("wide", "param", "float64")},
    **{"decay": ("inverse-time", "inverse-square", "recurrence"), "p_t": (None, "falling", "constant")},
}
_OF_TORCH = {"params", "param_names", "name", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}
_CACHED = 1 << 17  # entries that a thread of a CPU passes over several times while they are in its cache
_SUMS: dict[float, list[float]] = {}  # of the recurrence: k -> R_0, R_1, ... as far as they were asked for


class _Leaf(NamedTuple):
    theta: Tensor
    g: Tensor
    state: dict[str, Tensor]
    scale: float  # eta, or sigma
    slot: tuple[int, ...]  # with theta's number of axes
    wide: torch.dtype  # of the arithmetic


def _pieces(theta: Tensor, *arrays: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut arrays along theta's first axis; one of another size there belongs to every piece."""
    rows = theta.shape[0] if theta.ndim and theta.device.type == "cpu" and not torch.compiler.is_compiling() else 0
    if rows < 2 or theta.numel() <= (size := _CACHED * torch.get_num_threads()):
        return [(theta, *arrays)]
    few = max(size * rows // theta.numel(), 1)
    cut = (a.split(few) if a.shape[0] == rows else [a] * -(-rows // few) for a in (theta, *arrays))
    return list(zip(*cut, strict=True))


def _root_mean_square(u: Tensor, leaf: _Leaf) -> Tensor:
    # sqrt(mean(u^2 over the slot's reduced axes)), axes kept
    axes = [i for i, (n, kept) in enumerate(zip(u.shape, leaf.slot, strict=True)) if n != kept]
    if not axes:
        return u.to(leaf.wide).abs()
    # of a single slot in pieces, since a float32 cannot sum up the squares of millions
    pieces = [(u,)] if math.prod(leaf.slot) > 1 else _pieces(u)
    norms = [torch.linalg.vector_norm(piece, dim=axes, keepdim=True, dtype=leaf.wide) for (piece,) in pieces]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)
    return norm / max(math.prod([u.shape[i] for i in axes]), 1) ** 0.5


class _Family(torch.optim.Optimizer):
    """What both algorithms have in common: options, groups, state_dicts, and the passes over the arrays."""

    _scale: ClassVar[str]  # "eta" or "sigma"
    _decide: Callable[..., tuple[Tensor, Tensor]]  # alpha and rho of the slots of some leaves, side by side

    def __init__(self, params: Any, options: dict[str, Any]) -> None:
        super().__init__(params, {k: x for k, x in options.items() if k not in ("self", "params", "__class__")})
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        for option in (self._scale, "slot_shape"):
            if isinstance(rule := options[option], Mapping) and (extra := [name for name in rule if name not in names]):
                raise ValueError(f"{option} has entries for {extra}; the parameters are {names}")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, which goes on from the count of steps that the others have."""
        if unknown := sorted(set(param_group) - self.defaults.keys() - _OF_TORCH):
            raise ValueError(f"a group has unknown options {unknown}; there are {', '.join(self.defaults)}")
        super().add_param_group(dict(param_group))
        group = self.param_groups.pop()  # until it is checked
        self._check(group)
        group |= {option: self._resolve(option, group) for option in (self._scale, "slot_shape")}
        group["step"] = max((int(other["step"]) for other in self.param_groups), default=0)
        self._place_count(group)
        self.param_groups.append(group)

    def _check(self, group: dict[str, Any]) -> None:
        for name in self.defaults.keys() - {self._scale, "slot_shape"}:
            group[name] = self._check_option(name, group[name], name)
        for i, p in enumerate(group["params"]):
            if getattr(p, "_fsdp_flattened", False) or hasattr(p, "placements"):
                raise TypeError(f"{self._name(group, i)} is a part of an array (FSDP, DTensor), whose means it lacks")
            if not p.is_floating_point() or p.dtype.itemsize < 2:
                raise TypeError(f"{self._name(group, i)} has dtype {p.dtype}; it must be real, of 16 bits or more")
        devices, lr = {str(p.device) for p in group["params"]}, group.get("lr")
        if len(devices) > 1:
            raise ValueError(f"a group has parameters on {' and '.join(sorted(devices))}; make a group for each device")
        if isinstance(lr, Tensor) and str(lr.device) not in {*devices, *([] if group["capturable"] else ["cpu"])}:
            raise ValueError(f"lr is a tensor on {lr.device}; the parameters of its group are on {devices.pop()}")
        if group["state_dtype"] == "param" and any(p.dtype.itemsize < 4 for p in group["params"]):
            warnings.warn("state_dtype='param' in half precision: v underflows, small changes are lost", stacklevel=6)

    def _check_option(self, name: str, x: Any, where: str) -> Any:
        """Return an option's value if it fits, a number of NumPy as one of Python, which every state_dict can hold."""
        allowed, number = _RANGES[name], isinstance(x, Real) and not isinstance(x, bool)
        fits, words = x is None and "None" in allowed, f"a number in {allowed}"
        if isinstance(allowed, tuple):
            fits, words = any(type(x) is type(word) and x == word for word in allowed), f"one of {allowed}"
        elif number or (name == "lr" and isinstance(x, Tensor) and x.numel() == 1 and not x.is_complex()):
            low, high = map(float, allowed[1 : allowed.index(")")].split(","))
            fits = getattr(x, "is_meta", False) or ((low <= x if "[" in allowed else low < x) and x < high)
        if not fits:
            raise ValueError(f"{where} is {x!r:.60}; it must be {words}")
        return float(x) if number and type(x) is not int else x

    def _resolve(self, option: str, group: dict[str, Any]) -> Any:
        """Return an option as plain data, which can be saved: one value for all, or a list with each parameter's."""
        rule, params, names = group[option], group["params"], group.get("param_names")
        each: list[Any] = [rule] * len(params)
        if isinstance(rule, Mapping):
            if names is None:
                raise ValueError(f"{option} is a mapping by name; give the names: model.named_parameters()")
            if missing := [name for name in names if name not in rule]:
                raise ValueError(f"{option} has no entry for {missing}")
            part = "slot_shape" if option == "slot_shape" else "eta"  # an entry of amos_ref.choose has both
            each = [getattr(rule[name], part, rule[name]) for name in names]
        elif callable(rule):
            each = [rule(names[i] if names else None, tuple(p.shape)) for i, p in enumerate(params)]
        for i, (x, p) in enumerate(zip(each, params, strict=True)):
            where = f"{option} of {self._name(group, i)}"
            if option == "sigma" and isinstance(x, str) and x == "init":
                # sigma^2 = |theta_0|^2 / k; 0.5 where all entries are 0 or all are 1
                wide = p.detach().cpu().double()
                x = 0.5 if bool((wide == 0).all() | (wide == 1).all()) else float(wide.square().mean().sqrt())
            each[i] = self._slot_of(x, p, where) if option == "slot_shape" else self._check_option(option, x, where)
        if isinstance(rule, tuple | list):
            return tuple(map(int, rule))
        return float(rule) if isinstance(rule, Real) else rule if rule in ("tensor", "element") else each

    def _name(self, group: dict[str, Any], i: int) -> str:
        return f"parameter {group['param_names'][i]!r}" if "param_names" in group else f"parameter {i} of its group"

    def _slot_of(self, rule: Any, p: Tensor, where: str = "slot_shape") -> tuple[int, ...]:
        slot = {"tensor": (), "element": tuple(p.shape)}.get(rule, rule) if isinstance(rule, str) else rule
        pairs = zip(slot[::-1], p.shape[::-1], strict=False) if isinstance(slot, tuple | list) else [(0, 1)]
        if any(not isinstance(n, Integral) or n is True or n not in (1, m) for n, m in pairs) or len(slot) > p.ndim:
            raise ValueError(f"{where} is {rule!r:.60}; it must be 'tensor', 'element' or broadcast to {(*p.shape,)}")
        return tuple(map(int, slot))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state_dict: by names if both sides have them, and else by order, as torch does."""
        with self.register_load_state_dict_pre_hook(lambda _, given: self._match(given)):
            super().load_state_dict(state_dict)

    def _match(self, given: dict[str, Any]) -> dict[str, Any]:
        saved, own = given["param_groups"], self.param_groups
        if lost := {self._scale, "slot_shape", "step"}.difference(*saved[:1]):
            raise ValueError(f"the state_dict is of another optimizer: it has no {', '.join(sorted(lost))}")
        if all("param_names" in group for group in [*saved, *own]):
            saved = [self._in_order(group["param_names"], saved) for group in own]
        for theirs, ours in zip(saved, own, strict=False):
            for i, (key, p) in enumerate(zip(theirs["params"], ours["params"], strict=False)):
                for part, x in given["state"].get(key, {}).items():
                    self._slot_of(tuple(x.shape), p, f"the shape of {part} of {self._name(ours, i)} in the state_dict")
        # Tensors are hidden from torch, which would round them to the dtypes of their parameters.
        hidden = {key: {part: lambda x=x: x for part, x in entry.items()} for key, entry in given["state"].items()}
        return {**given, "state": hidden, "param_groups": saved}

    def _in_order(self, names: list[str], saved: list[dict[str, Any]]) -> dict[str, Any]:
        for group in saved:
            if set(group["param_names"]) == set(names):
                order = [group["param_names"].index(name) for name in names]
                return {key: [x[i] for i in order] if isinstance(x, list) else x for key, x in group.items()}
        raise ValueError(f"no group of the state_dict has just {names}; they have {[g['param_names'] for g in saved]}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # which torch puts there
        for group in self.param_groups:
            group |= {name: default for name, default in self.defaults.items() if name not in group}
            self._place_count(group)
            own = [(p, part, x) for p in group["params"] for part, x in self.state.get(p, {}).items()]
            for p, part, x in [entry for entry in own if callable(entry[-1])]:  # hidden by _match
                self.state[p][part] = x().detach().to(p.device, self._dtypes(group, p)[0], copy=True)

    def _place_count(self, group: dict[str, Any]) -> None:
        step, device = int(group["step"]), group["params"][0].device if group["params"] else None
        group["step"] = torch.tensor(step, dtype=torch.float64, device=device) if group["capturable"] else step

    def _dtypes(self, group: dict[str, Any], p: Tensor) -> tuple[torch.dtype, torch.dtype]:  # state, arithmetic
        wide = torch.promote_types(p.dtype, torch.float32)
        dtype = {"wide": wide, "param": p.dtype, "float64": torch.float64}[group["state_dtype"]]
        return dtype, torch.promote_types(wide, dtype)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Take a step, in which parameters without a gradient stay; return what the closure returned, called once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        stepping = [self._collect(group) for group in self.param_groups]
        for group, leaves in zip(self.param_groups, stepping, strict=True):
            alike = [[x for x in leaves if x.theta.dtype == dtype] for dtype in {x.theta.dtype for x in leaves}]
            for part in [[leaf] for leaf in leaves] if group["foreach"] is False else alike:
                us = [self._direction(group, leaf) for leaf in part]
                for leaf, u, rates in zip(part, us, self._rates(group, part, us), strict=True):
                    self._apply(leaf, u, rates, group.get("momentum"))
            group["step"] += 1
        return loss

    def _collect(self, group: dict[str, Any]) -> list[_Leaf]:
        """Return the leaves that step, with their state, which is made with the first gradient."""
        found, paper = [], self._scale == "eta"
        if isinstance(lr := group.get("lr"), Real) and not torch.compiler.is_compiling():  # schedulers write it
            group["lr"] = self._check_option("lr", lr, "lr")
        parts = ("vbm" if group["momentum"] else "vb") if paper else "mv" * (group["direction"] == "adam")
        params, options = group["params"], (group[self._scale], group["slot_shape"])
        each = [x if isinstance(x, list) else [x] * len(params) for x in options]
        for i, (p, scale, slot) in enumerate(zip(params, *each, strict=True)):
            if p.grad is None:
                continue
            if p.grad.layout != torch.strided:
                raise TypeError(f"the gradient of {self._name(group, i)} is sparse; use a dense one (sparse=False)")
            state, (dtype, wide) = self.state[p], self._dtypes(group, p)
            slot = tuple(state["v"].shape) if paper and state else self._slot_of(slot, p)
            for part in [part for part in parts if part not in state]:
                state[part] = p.new_zeros(slot if paper and part != "m" else p.shape, dtype=dtype)
            found.append(_Leaf(p.detach(), p.grad, state, scale, (1,) * (p.ndim - len(slot)) + slot, wide))
        return found

    def _direction(self, group: dict[str, Any], leaf: _Leaf) -> Tensor:
        g, chi = -leaf.g if group["maximize"] else leaf.g, group["clip_value"]
        # g = clip(g, -chi, chi)
        return g if chi is None else g.to(leaf.wide).clamp(-chi, chi)

    def _rates(self, group: dict[str, Any], leaves: list[_Leaf], us: list[Tensor]) -> list[list[Tensor]]:
        """Return [-alpha, -rho] of each leaf; means are decided all at once, and slots of one entry leaf by leaf."""
        roots, found = [_root_mean_square(u, leaf) for u, leaf in zip(us, leaves, strict=True)], [[]] * len(us)
        means = [i for i, u in enumerate(us) if roots[i].numel() < u.numel()]
        for part in [means] * bool(means) + [[i] for i in range(len(us)) if i not in set(means)]:
            counts, of = [roots[i].numel() for i in part], [leaves[i] for i in part]
            root = torch.cat([roots[i].reshape(-1) for i in part])
            root = root.double() if part is means and root.device.type != "mps" else root  # few numbers
            scale = torch.ones_like(root)
            torch._foreach_mul_(scale.split(counts), [leaf.scale for leaf in of])
            rates = self._decide(group, of, root.square(), scale, counts)
            for i, leaf, *both in zip(part, of, *((-x).to(leaves[0].wide).split(counts) for x in rates), strict=True):
                found[i] = [x.view(leaf.slot) for x in both]
        return found

    def _apply(self, leaf: _Leaf, u: Tensor, rates: list[Tensor], mu: float | None) -> None:
        for theta, g, alpha, rho, *m in _pieces(leaf.theta, u, *rates, *([leaf.state["m"]] if mu else [])):
            # delta = -(alpha u + rho theta), with -alpha and -rho
            delta = torch.mul(g.to(leaf.wide), alpha).addcmul_(theta.to(leaf.wide), rho)
            # m = mu m + (1 - mu) delta, in the place of delta
            delta = m[0].mul_(mu).add_(delta, alpha=1 - mu) if mu else delta
            # theta = theta + delta
            theta.add_(delta)


class Amos(_Family):
    """Paper Amos (Tian & Parikh 2022, arXiv 2210.11693).

    For each slot of a parameter theta with gradient g, at step t = 1, 2, ...::

        v     = beta v + (1 - beta) mean(g^2)         r = (1 - beta^t) / max(v, epsilon)
        gamma = xi^2 r mean(g^2) / sqrt(1 + c_coef sqrt(xi) b)
        theta = theta - (xi eta sqrt(r) g + (gamma/2 + extra_l2) theta) / (1 + d_coef sqrt(xi eta) b)
        b     = b + gamma (1 + b)

    lr is xi, a number or a tensor of one. eta and slot_shape are a value for all, a mapping with the name of every
    parameter, or a callable of (name, shape); for names give ``model.named_parameters()``. A slot_shape is "tensor",
    "element", or a shape that broadcasts to the parameter's, whose axes of size 1 are averaged over. state_dtype "wide"
    is the parameter's, but float32 for half precision; in "float64", b grows even where gamma, about xi^2, is tiny.
    foreach=False steps one parameter after the other, with the same results. capturable keeps the count on the device,
    for CUDA graphs and torch.compile. All else is as in ``amos_ref.Amos``, and a group may have any option.

    Examples
    --------
    >>> import torch
    >>> from amos_ref.ports.torch import Amos
    >>> w = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    >>> optimizer = Amos([w], lr=0.1, eta=0.5)
    >>> (w * torch.tensor([3.0, 4.0])).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([ 0.9526, -2.0466])
    """

    _scale = "eta"

    def __init__(
        self, params: Any, lr: float | Tensor = 1e-3, eta: Any = 0.5, slot_shape: Any = "tensor", *,
        beta: float = 0.999, momentum: float | None = None, clip_value: float | None = None, extra_l2: float = 0.0,
        c_coef: float = 0.25, d_coef: float = 0.25, epsilon: float = 2.0**-125, state_dtype: str = "wide",
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, locals())

    def _decide(self, group: Any, leaves: Any, g2: Tensor, eta: Tensor, counts: Any) -> tuple[Tensor, Tensor]:
        xi, beta, t = group["lr"], group["beta"], group["step"] + 1
        xi = xi.to(g2) if isinstance(xi, Tensor) else xi
        v, b = (torch.cat([leaf.state[part].reshape(-1) for leaf in leaves]).to(g2.dtype) for part in "vb")
        # v = beta v + (1 - beta) g2, r = (1 - beta^t) / max(v, epsilon)
        v = beta * v + (1 - beta) * g2
        r = (1 - beta**t) / v.clamp(min=group["epsilon"])
        # c = 1 / sqrt(1 + c_coef sqrt(xi) b) with the old b, gamma = c xi^2 r g2
        c = 1 / (1 + group["c_coef"] * xi**0.5 * b).sqrt()
        gamma = c * xi**2 * (r * g2)
        # d = 1 / (1 + d_coef sqrt(xi eta) b) with the old b
        d = 1 / (1 + group["d_coef"] * (xi * eta) ** 0.5 * b)
        # alpha = d xi eta sqrt(r), rho = d (gamma/2 + extra_l2)
        alpha, rho = d * (xi * eta * r.sqrt()), d * (gamma / 2 + group["extra_l2"])
        # b = b + gamma (1 + b)
        b = b + gamma * (1 + b)
        for part, x in (("v", v), ("b", b)):
            for leaf, new in zip(leaves, x.split(counts), strict=True):
                leaf.state[part].copy_(new.view_as(leaf.state[part]))
        return alpha, rho


class ClosedFormAmos(_Family):
    """The closed form: step size and weight decay follow one plan. It is *not* paper Amos.

    For each slot of a parameter theta, with a direction u made of its gradient, at step t = 0, 1, ...::

        alpha = alpha_0 sigma / sqrt(max(mean(u^2), epsilon)) exp(-2 S_t)
        rho   = alpha_0^2 / (2 q) exp(-2 S_t)                                exp(-2 S_t) = 1 / (1 + t / half_life)
        theta = theta - (alpha u + rho theta)

    sigma is as eta of :class:`Amos`, or "init": the root mean square of a parameter's entries when its group is added,
    0.5 where all are 0 or all are 1. The options are those of ``amos_ref.ClosedFormAmos``, without callables for
    direction and p_t, and of :class:`Amos`. alpha_0 is a constant of the plan, which needs no scheduler.

    Examples
    --------
    >>> import torch
    >>> from amos_ref.ports.torch import ClosedFormAmos
    >>> w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    >>> optimizer = ClosedFormAmos([w], alpha_0=0.01, half_life=100)
    >>> (w * torch.tensor([0.6, -0.8])).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    tensor([ 2.9699, -3.9598])
    """

    _scale = "sigma"

    def __init__(
        self, params: Any, alpha_0: float = 1e-3, *, half_life: float | None = None, p_0: float | None = None,
        decay: str = "inverse-time", p_t: str | None = None, q: float = 1.0, sigma: Any = "init",
        slot_shape: Any = "tensor", direction: str = "gradient", beta1: float = 0.9, beta2: float = 0.999,
        adam_epsilon: float = 1e-8, clip_value: float | None = None, epsilon: float = 2.0**-125,
        state_dtype: str = "wide", maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(params, locals())

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        half_life, p_0, p_t, decay = (group[name] for name in ("half_life", "p_0", "p_t", "decay"))
        if (half_life is None) == (p_0 is None):
            raise ValueError(f"half_life is {half_life!r} and p_0 is {p_0!r}; exactly one of them must be given")
        if p_t is not None and decay != "recurrence":
            raise ValueError(f"p_t is {p_t!r} with decay {decay!r}; only decay='recurrence' takes it")
        if group["q"] <= group["alpha_0"] ** 2 / 2:
            raise ValueError(f"q is {group['q']!r}; it must be above alpha_0^2/2, or weights decay past 0")

    def _direction(self, group: dict[str, Any], leaf: _Leaf) -> Tensor:
        g, (beta1, beta2, n) = super()._direction(group, leaf), (group["beta1"], group["beta2"], group["step"] + 1)
        if group["direction"] != "adam":
            return g.sign() if group["direction"] == "sign" else g
        # m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2
        m = leaf.state["m"].mul_(beta1).add_(g, alpha=1 - beta1).to(leaf.wide)
        v = leaf.state["v"].mul_(beta2).addcmul_(g.to(leaf.wide), g, value=1 - beta2).to(leaf.wide)
        # u = m / (1 - beta1^n) / (sqrt(v / (1 - beta2^n)) + adam_epsilon)
        return (m / (1 - beta1**n)).div_((v / (1 - beta2**n)).sqrt_().add_(group["adam_epsilon"]))

    def _decide(self, group: Any, leaves: Any, u2: Tensor, sigma: Tensor, counts: Any) -> tuple[Tensor, Tensor]:
        alpha_0, shrink = group["alpha_0"], self._shrink(group)
        # alpha = alpha_0 sigma / sqrt(max(u2, epsilon)) exp(-2 S_t), rho = alpha_0^2 / (2q) exp(-2 S_t)
        alpha = alpha_0 * (sigma / u2.clamp(min=group["epsilon"]).sqrt()) * shrink
        return alpha, torch.ones_like(u2) * (alpha_0 * alpha_0 / (2 * group["q"]) * shrink)

    def _shrink(self, group: dict[str, Any]) -> Any:
        # exp(-2 S_t) of S_{t+1} = S_t + alpha_0 p_t exp(-S_t), where p_t is p_0 exp(-S_t), or constant
        recurs = group["decay"] == "recurrence"
        falls = group["p_t"] != "constant" if recurs else group["decay"] == "inverse-time"
        half = 1.0 if falls else math.sqrt(2) - 1
        k = half / group["half_life"] if group["p_0"] is None else group["alpha_0"] * group["p_0"] * (2 if falls else 1)
        if recurs:
            # R_{t+1} = R_t + k exp(-R_t): S is R for a constant p, and R/2 for one that falls
            sums, t = _SUMS.setdefault(k, [0.0]), int(group["step"])
            while len(sums) <= t:
                sums.append(sums[-1] + k * math.exp(-sums[-1]))
            return math.exp((-1 if falls else -2) * sums[t])
        x = k * group["step"]
        return 1 / (1 + x) if falls else 1 / (1 + x * (2 + x))
