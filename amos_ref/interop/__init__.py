"""States from and to those of other implementations, under optax and under torch.

An :class:`amos_ref.AmosState` goes to the authors' code (jestimator), to pytorch_optimizer's Amos and to the port in
:mod:`amos_ref.ports.optax`, and comes from them; a :class:`amos_ref.ClosedFormState` has a layout of its own in each
framework, which docs/storage.md writes down.
With a converted state the next step is the same up to rounding, provided that both optimizers have the same options: a
state does not hold them. A framework is imported only where its arrays are built.
"""

from amos_ref.interop.optax_states import from_optax, to_optax
from amos_ref.interop.torch_states import from_torch, to_torch

__all__ = ["from_optax", "from_torch", "to_optax", "to_torch"]
