"""A torch port of the closed form, written from docs/closed_form.md, and wrong ones of it."""

import torch


class ClosedForm(torch.optim.Optimizer):
    """Inverse-time alone; sigma is measured where a group has none. The count is one for all groups, from 0."""

    def __init__(
        self, params, lr=1e-3, half_life=1000.0, sigma=None, direction="gradient", betas=(0.9, 0.999), eps=1e-8
    ):
        if direction not in ("gradient", "adam", "sign"):
            raise ValueError(f"unknown direction {direction!r}")
        options = {"half_life": half_life, "sigma": sigma, "direction": direction, "betas": betas, "eps": eps}
        super().__init__(params, {"lr": lr, **options, "step": 0})

    def add_param_group(self, param_group):
        taken = max((group["step"] for group in self.param_groups), default=0)
        super().add_param_group({"step": taken, **param_group})
        for p in self.param_groups[-1]["params"]:
            self.state[p]["sigma"] = self.measure(p)

    def measure(self, p):
        flat = bool((p == 0).all() or (p == 1).all())
        return torch.tensor(0.5, dtype=p.dtype) if flat else p.detach().square().mean().sqrt()

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.change(p, group, group["step"])
            group["step"] += 1
        return loss

    def change(self, p, group, t):
        u = self.direct(p.grad, self.state[p], group, t + 1)
        alpha_0, sigma = group["lr"], self.state[p]["sigma"] if group["sigma"] is None else group["sigma"]
        shrink = 1 / (1 + t / group["half_life"])
        alpha = alpha_0 * sigma * u.square().mean().clamp_min(2.0**-125).rsqrt() * shrink
        p.sub_(alpha * u + self.decay(alpha_0) * shrink * p)

    def decay(self, alpha_0):
        return alpha_0**2 / 2

    def direct(self, g, state, group, n):
        if group["direction"] == "sign":
            return g.sign()
        if group["direction"] == "gradient":
            return g
        (beta1, beta2), eps = group["betas"], group["eps"]
        m, v = (state.setdefault(name, torch.zeros_like(g)) for name in ("exp_avg", "exp_avg_sq"))
        m.mul_(beta1).add_(g, alpha=1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        return m / (1 - beta1**n) / ((v / (1 - beta2**n)).sqrt() + eps)


class Early(ClosedForm):
    """Right too: what a group says of sigma when it is added is the state's, and holds from then on."""

    def add_param_group(self, param_group):
        super().add_param_group(param_group)
        given = self.param_groups[-1]["sigma"]
        for p in self.param_groups[-1]["params"] if given is not None else ():
            self.state[p]["sigma"] = torch.tensor(given, dtype=p.dtype)

    def change(self, p, group, t):
        super().change(p, {**group, "sigma": None}, t)


class Linear(ClosedForm):
    """The mistake: rho falls as alpha_0 / 2, not as its square."""

    def decay(self, alpha_0):
        return alpha_0 / 2


class Forgets(ClosedForm):
    """The mistake: a count outside of the groups, which a state_dict does not hold."""

    def __init__(self, params, lr=1e-3, half_life=1000.0, sigma=None):
        self.taken = 0
        super().__init__(params, lr, half_life, sigma)

    def step(self, closure=None):
        for group in self.param_groups:
            group["step"] = self.taken
        self.taken += 1
        return super().step(closure)
