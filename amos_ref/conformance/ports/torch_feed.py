"""How gradients and learning rates reach a torch optimizer, and how its numbers come back."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from amos_ref.conformance.ports.failures import Garbage, Unsupported, first_line
from amos_ref.dtypes import dtype_of


def import_torch() -> Any:
    """Return torch, as Any: a type checker takes torch.py beside this file for it."""
    return importlib.import_module("torch")


def to_tensor(a: np.ndarray) -> Any:
    """Return a tensor on the array's own memory; torch knows bfloat16, but not NumPy's."""
    torch = import_torch()

    if a.dtype.name == "bfloat16":
        return torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(a)


def to_numpy(tensor: Any) -> np.ndarray:
    """Return a tensor's numbers; those of complex tensors as pairs, but for a single number without imaginary part."""
    torch = import_torch()

    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_complex():
        lone = tensor.ndim == 0 and not tensor.imag
        tensor = tensor.real if lone else torch.view_as_real(tensor.resolve_conj())
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(dtype_of("bfloat16"))
    return tensor.numpy()


class Feed:
    """How each step's gradients and learning rate reach an optimizer; an event changes its attributes.

    Attributes
    ----------
    form : callable or None
        What makes p.grad of a tensor on the gradient's own memory; None leaves it as it is.
    sign : float
        Of the gradient: -1 for an optimizer that maximizes.
    keep : bool
        Whether the next step is to find the gradients that the last one left.
    closure, zero, freeze : bool
        Whether gradients come from a closure; whether zero_grad is called before each step and the gradient
        copied into what it leaves; whether a leaf without a gradient does not require one.
    scheduler : torch.optim.lr_scheduler.LRScheduler or None
    rate : Tensor or None
        The learning rate that the optimizer was given as a tensor, which is filled.
    blank : bool
        Whether step must be given a closure, which then computes nothing.
    refusable, eventful : bool
        Whether any error of the port means that it refuses what it is given; whether a NotImplementedError does.
    """

    form: Callable[[Any], Any] | None = None
    sign: float = 1.0
    keep: bool = False
    closure = zero = freeze = blank = refusable = eventful = False
    scheduler: Any = None
    rate: Any = None
    steps: int = 0

    def refuses(self, error: Exception) -> bool:
        """Whether an error says that the port does not do what it is asked."""
        return self.refusable or (self.eventful and isinstance(error, NotImplementedError))

    def set_rate(self, optimizer: Any, rate: float, key: Callable[[dict[str, Any]], str]) -> None:
        """Set the learning rate of a step as a user would."""
        if self.rate is not None:
            self.rate.fill_(rate)
        for group in optimizer.param_groups if self.scheduler is None else ():
            if hasattr(group[key(group)], "fill_"):
                group[key(group)].fill_(rate)
            elif self.rate is None:
                group[key(group)] = rate

    def step(self, optimizer: Any, leaves: dict[str, Any], grads: dict[str, np.ndarray | None]) -> None:
        """Give the gradients and take a step; an array whose tensor the port wrote to is written to as well."""
        self.steps += 1
        if self.zero:
            optimizer.zero_grad(set_to_none=bool(self.steps % 2))
        tensors = {name: self._tensor(g) for name, g in grads.items() if g is not None}
        copies = tensors if self.form or self.sign < 0 else {}  # not on the memory of the gradients themselves
        before = {name: to_numpy(t).copy() for name, t in copies.items()}
        for name, leaf in leaves.items():
            if self.freeze:
                leaf.requires_grad_(name in tensors)
            if not self.keep:
                self._set(leaf, tensors.get(name))
        self.keep = False
        if self.closure:
            self._step_with_closure(optimizer, leaves, tensors)
        elif self.blank:
            optimizer.step(lambda: to_tensor(np.zeros(())))
        else:
            optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        for name, t in copies.items():
            if not np.array_equal(to_numpy(t), before[name], equal_nan=True):
                grads[name][...] = self.sign * to_numpy(t).reshape(grads[name].shape)  # type: ignore[index]

    def _tensor(self, g: np.ndarray) -> Any:
        tensor = to_tensor(g.copy() if self.zero else g) if self.sign > 0 else -to_tensor(g)
        return tensor if self.form is None else self.form(tensor)

    def _set(self, leaf: Any, tensor: Any) -> None:
        if self.closure and tensor is not None:
            leaf.grad = import_torch().zeros_like(leaf)
        elif self.zero and tensor is not None and leaf.grad is not None:
            leaf.grad.copy_(tensor)
        else:
            leaf.grad = tensor

    def _step_with_closure(self, optimizer: Any, leaves: dict[str, Any], tensors: dict[str, Any]) -> None:
        """Take a step whose closure makes the gradients; those of a second call are others, as of another batch."""
        losses = []

        def closure() -> Any:
            for leaf in leaves.values():
                leaf.grad = None
            batch = tensors if not losses else {name: g.flip(tuple(range(g.ndim))) for name, g in tensors.items()}
            losses.append(sum((leaves[name] * g).sum() for name, g in batch.items()))
            losses[-1].backward()
            return losses[-1]

        try:
            returned = optimizer.step(closure)
        except Exception as error:
            if losses:
                raise
            raise Unsupported(f"the port refuses a closure: {first_line(error)}") from error
        number = returned.item() if hasattr(returned, "item") else returned
        if losses and number not in [loss.item() for loss in losses]:
            raise Garbage(f"step(closure) returned {number!r:.40}; it must return what the closure returned")
