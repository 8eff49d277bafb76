"""States converted from and to those of other implementations, under optax, torch and Keras.

An :class:`amos_ref.AmosState` is converted from and to the states of the authors' code (jestimator), of
pytorch_optimizer's Amos and of the ports in :mod:`amos_ref.ports`. A :class:`amos_ref.ClosedFormState` has a
layout in each framework that docs/storage.md describes. With a converted state the next step is the same up to
rounding, if both optimizers have the same options, which a state does not hold. A framework is imported only where its
arrays are built.
"""

from amos_ref.interop.keras_states import from_keras, to_keras
from amos_ref.interop.optax_states import from_optax, to_optax
from amos_ref.interop.torch_states import from_torch, to_torch

__all__ = ["from_keras", "from_optax", "from_torch", "to_keras", "to_optax", "to_torch"]
