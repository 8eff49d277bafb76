"""Torch ports of Amos: two right ones, as most are written and with a path over lists, and wrong ones of them."""

import copy

import torch

EPS = 2.0**-125


class Amos(torch.optim.Optimizer):
    """One tensor after the other; the count is one for all groups, and a group that is added joins it."""

    def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999, momentum=0.0, extra_l2=0.0, eps=EPS, maximize=False):
        options = {"eta": eta, "beta": beta, "momentum": momentum, "extra_l2": extra_l2, "eps": eps}
        super().__init__(params, {"lr": lr, **options, "maximize": maximize, "step": 0})

    def add_param_group(self, param_group):
        taken = max((group["step"] for group in self.param_groups), default=0)
        super().add_param_group({"step": taken, **param_group})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            group["step"] += 1
            self.step_group(group, [p for p in group["params"] if p.grad is not None])
        return loss

    def step_group(self, group, params):
        for p in params:
            if p.grad.is_sparse:
                raise RuntimeError("Amos does not support sparse gradients")
            self.change(p, group)

    def own(self, p):
        return self.state[p]

    def gradient(self, p, group):
        return -p.grad if group["maximize"] else p.grad

    def prepared(self, p, group):
        """Parameter, gradient and state: of real and imaginary parts where p is complex."""
        g, state = self.gradient(p, group), self.own(p)
        if p.is_complex():
            p, g = torch.view_as_real(p), torch.view_as_real(g)
        if not state:
            state["v"], state["b"] = (torch.zeros((), dtype=p.dtype, device=p.device) for _ in "vb")
        if group["momentum"] and "m" not in state:
            state["m"] = torch.zeros_like(p)
        return p, g, state

    def mean_square(self, g):
        return g.square().mean()

    def decide(self, g2, state, group):
        """Renew v and b; return alpha and rho."""
        xi, eta, beta = group["lr"], group["eta"], group["beta"]
        v, b = state["v"], state["b"]
        v.mul_(beta).add_(g2 * (1 - beta))
        r = (1 - beta ** group["step"]) / v.clamp(min=group["eps"])
        gamma = xi * xi * r * g2 / (1 + 0.25 * xi**0.5 * b) ** 0.5
        d = 1 / (1 + 0.25 * (xi * eta) ** 0.5 * b)
        b.add_(gamma * (1 + b))
        return d * xi * eta * r.sqrt(), d * (gamma / 2 + group["extra_l2"])

    def change(self, p, group):
        p, g, state = self.prepared(p, group)
        alpha, rho = self.decide(self.mean_square(g), state, group)
        delta = -(alpha * g + rho * p)
        if group["momentum"]:
            delta = state["m"].mul_(group["momentum"]).add_(delta * (1 - group["momentum"]))
        p.add_(delta)


class ForeachAmos(Amos):
    """With foreach=True the changes of a group are made at once."""

    def __init__(
        self, params, lr=1e-3, eta=0.5, beta=0.999, momentum=0.0, extra_l2=0.0, eps=EPS, maximize=False, foreach=None
    ):
        super().__init__(params, lr, eta, beta, momentum, extra_l2, eps, maximize)
        self.defaults["foreach"] = foreach
        for group in self.param_groups:
            group["foreach"] = foreach

    def step_group(self, group, params):
        if not group["foreach"] or any(p.grad.is_sparse for p in params) or not params:
            return super().step_group(group, params)
        ps, gs, states = zip(*(self.prepared(p, group) for p in params), strict=True)
        self.change_all(list(ps), list(gs), states, group)
        return None

    def change_all(self, ps, gs, states, group):
        pairs = [self.decide(g.square().mean(), state, group) for g, state in zip(gs, states, strict=True)]
        deltas = torch._foreach_mul(gs, [alpha for alpha, _ in pairs])
        torch._foreach_add_(deltas, torch._foreach_mul(ps, [rho for _, rho in pairs]))
        torch._foreach_neg_(deltas)
        if group["momentum"]:
            averages = [state["m"] for state in states]
            torch._foreach_lerp_(averages, deltas, 1 - group["momentum"])
            deltas = averages
        torch._foreach_add_(ps, deltas)


WRONG = {}


def wrong(*names):
    """Mark a port as one that the judge must name so."""

    def keep(cls):
        WRONG[cls] = set(names)
        return cls

    return keep


@wrong("state-dict-loses-v")
class LosesV(Amos):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["v"] = torch.zeros_like(state["v"])


@wrong("state-dict-loses-b")
class LosesB(Amos):
    def state_dict(self):
        found = super().state_dict()
        for state in found["state"].values():
            state["b"] = torch.zeros_like(state["b"])
        return found


@wrong("state-dict-loses-m")
class LosesM(Amos):
    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state.pop("m", None)


@wrong("state-dict-loses-count")
class CountsByItself(Amos):
    """Keeps the count outside the groups; a pickle of it is not what it was either."""

    taken = 0

    def step_group(self, group, params):
        self.taken += group is self.param_groups[0]
        super().step_group({**group, "step": self.taken}, params)

    def __getstate__(self):
        return super().__getstate__() | {"taken": self.taken}


@wrong("deepcopy-loses-b")
class CopiesWithoutB(Amos):
    def __deepcopy__(self, memo):
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({k: copy.deepcopy(x, memo) for k, x in self.__dict__.items() if "hook" not in k})
        new.__setstate__({})
        for state in new.state.values():
            state["b"].zero_()
        return new


@wrong("pickle-restarts", "deepcopy-restarts")
class KeepsOptionsOnly(Amos):
    def __getstate__(self):
        groups = [{**group, "step": 0} for group in self.param_groups]
        return super().__getstate__() | {"state": type(self.state)(dict), "param_groups": groups}


@wrong("state-keyed-by-shape")
class KeyedByShape(Amos):
    def own(self, p):
        for q in list(self.state):
            if q.shape == p.shape:
                self.state[p] = self.state[q]
        return self.state[p]


@wrong("groups-count-each")
class CountsGroups(Amos):
    def step_group(self, group, params):
        self.param_groups[0].setdefault("taken", 0)
        self.param_groups[0]["taken"] += 1
        super().step_group({**group, "step": self.param_groups[0]["taken"]}, params)


@wrong("added-group-restarts-count")
class CountsOfGroups(Amos):
    def add_param_group(self, param_group):
        super().add_param_group({"step": 0, **param_group})


@wrong("lr-tensor-frozen")
class FloatOfTensor(Amos):
    def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999, momentum=0.0, extra_l2=0.0, eps=EPS, maximize=False):
        super().__init__(params, float(lr), eta, beta, momentum, extra_l2, eps, maximize)


@wrong("schedule-frozen", "groups-learning-rate-ignored", "loaded-state-dict-keeps-learning-rate")
class ReadsOnce(Amos):
    def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999, momentum=0.0, extra_l2=0.0, eps=EPS, maximize=False):
        super().__init__(params, lr, eta, beta, momentum, extra_l2, eps, maximize)
        self.lr = lr

    def __getstate__(self):
        return super().__getstate__() | {"lr": self.lr}

    def step_group(self, group, params):
        super().step_group({**group, "lr": self.lr}, params)


@wrong("loaded-state-dict-keeps-beta")
class BetaByItself(Amos):
    def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999, momentum=0.0, extra_l2=0.0, eps=EPS, maximize=False):
        super().__init__(params, lr, eta, beta, momentum, extra_l2, eps, maximize)
        self.beta = beta
        for group in self.param_groups:
            del group["beta"]

    def __getstate__(self):
        return super().__getstate__() | {"beta": self.beta}

    def step_group(self, group, params):
        super().step_group({**group, "beta": self.beta}, params)


@wrong("momentum-stays-off")
class MomentumOfStart(Amos):
    def prepared(self, p, group):
        if "m" not in self.own(p) and self.own(p):
            group = {**group, "momentum": 0.0}
        return super().prepared(p, group)

    def change(self, p, group):
        started = bool(self.own(p))
        super().change(p, {**group, "momentum": 0.0} if started and "m" not in self.own(p) else group)


@wrong("maximize-ignored")
class NeverClimbs(Amos):
    def gradient(self, p, group):
        return p.grad


@wrong("maximize-negates-in-place")
class NegatesInPlace(Amos):
    def gradient(self, p, group):
        return p.grad.neg_() if group["maximize"] else p.grad


@wrong("closure-ignored")
class IgnoresClosure(Amos):
    def step(self, closure=None):
        return super().step()


@wrong("closure-called-twice")
class CallsTwice(Amos):
    def step(self, closure=None):
        if closure is not None:
            with torch.enable_grad():
                closure()
        return super().step(closure)


@wrong("gradient-in-memory-order")
class ReadsMemory(Amos):
    def gradient(self, p, group):
        g = super().gradient(p, group)
        return g if 0 in g.stride() else g.as_strided(g.shape, torch.empty(g.shape).stride())


@wrong("parameters-in-memory-order")
class WritesMemory(Amos):
    def prepared(self, p, group):
        p, g, state = super().prepared(p, group)
        return p.as_strided(p.shape, torch.empty(p.shape).stride()), g, state


@wrong("complex-modulus")
class Modulus(Amos):
    def mean_square(self, g):
        return g.square().mean() * (2 if g.ndim and g.shape[-1] == 2 else 1)


@wrong("sparse-mean-of-present")
class MeanOfPresent(Amos):
    def step_group(self, group, params):
        for p in params:
            self.change(p, group)

    def mean_square(self, g):
        if g.is_sparse:
            return g.coalesce().values().square().mean()
        return super().mean_square(g)

    def change(self, p, group):
        if not p.grad.is_sparse:
            return super().change(p, group)
        g2 = self.mean_square(p.grad)
        p.grad = p.grad.to_dense()
        p, g, state = self.prepared(p, group)
        alpha, rho = self.decide(g2, state, group)
        return p.add_(-(alpha * g + rho * p))


@wrong("foreach-without-momentum")
class PathWithoutMomentum(ForeachAmos):
    def change_all(self, ps, gs, states, group):
        super().change_all(ps, gs, states, {**group, "momentum": 0.0})


@wrong("foreach-without-extra_l2")
class PathWithoutExtra(ForeachAmos):
    def change_all(self, ps, gs, states, group):
        super().change_all(ps, gs, states, {**group, "extra_l2": 0.0})


@wrong("groups-learning-rate-first", "groups-options-first", "eta-first")
class FirstGroup(Amos):
    def step_group(self, group, params):
        super().step_group({**self.param_groups[0], "step": group["step"]}, params)
