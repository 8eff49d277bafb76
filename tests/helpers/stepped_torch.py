"""The plain function of examples/ports as an optimizer of torch, in float64 inside."""

import torch

from examples.ports.amos_numpy import step as one_step


class Amos(torch.optim.Optimizer):
    """A right port."""

    def __init__(self, params, lr=1e-3, eta=0.5, beta=0.999):
        super().__init__(params, {"lr": lr, "eta": eta, "beta": beta, "t": 0})

    def eta_of(self, p, group):
        return group["eta"]

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else closure()
        for group in self.param_groups:
            group["t"] += 1
            for p in group["params"]:
                if p.grad is None:
                    continue
                own = self.state[p]
                state = {k: own[k].double().numpy() for k in ("v", "b", "m") if k in own}
                theta, g, eta = p.double().numpy(), p.grad.double().numpy(), self.eta_of(p, group)
                options = group["beta"], group.get("momentum")
                theta, state = one_step(theta, g, state, group["t"], group["lr"], eta, (), *options)
                p.copy_(torch.as_tensor(theta))
                own |= {k: torch.as_tensor(x).to(p.dtype) for k, x in state.items()}
        return loss
