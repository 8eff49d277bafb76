"""Arrays of other libraries as NumPy's, over the same memory where that is possible. No library is imported for it.

They are told by what they offer: torch's tensors by ``data_ptr`` and ``stride``, others by DLPack or ``__array__``.
"""

import sys
from collections.abc import Collection
from typing import Any

import numpy as np
import optree

from amos_ref import tree
from amos_ref.dtypes import dtype_of
from amos_ref.errors import DtypeError
from amos_ref.outside import pass_on

HOST = 1  # how DLPack numbers NumPy's memory


def as_array(a: Any, where: str) -> Any:
    """Return an array of another library as NumPy's; whatever is no such array as it is, for checks to refuse.

    An array whose memory cannot be shared is read-only, so that no step writes into a copy that nobody sees.

    Raises
    ------
    DtypeError
        If it has no numbers that could be read here: a tracer, a tensor that is sparse or on the meta device, ...
    """
    if a is None or isinstance(a, np.ndarray | np.generic):
        return a
    if any(kind.__name__ == "Tracer" and kind.__module__.startswith("jax") for kind in type(a).__mro__):
        raise DtypeError(
            f"{where} is a JAX tracer, which has no numbers: call the optimizer outside of jit and grad, or by "
            "jax.pure_callback (the documentation's page on training has a recipe)"
        )
    try:
        if is_tensor(a):
            return _from_torch(a, where)
        if hasattr(a, "__dlpack__") and int(a.__dlpack_device__()[0]) != HOST:
            return a  # on a GPU, which checks say
        return _from_protocols(a)
    except DtypeError:
        raise
    except Exception as error:  # whatever the other library raises
        pass_on(error)
        raise DtypeError(
            f"{where} is a {type(a).__name__} that cannot be read as a NumPy array: {type(error).__name__}: {error}"
        ) from error


def as_array_tree(params: Any, what: str) -> Any:
    """Return a tree with its arrays as NumPy's: the tree itself, if they all are."""
    try:
        leaves = optree.tree_leaves(params, none_is_leaf=True)
    except RecursionError:
        return params  # which is refused where its leaves get their names
    if all(type(a) is np.ndarray or a is None for a in leaves):
        return params
    word = {"grads": "gradient of"}.get(what, what)
    found = {name: as_array(a, f"{word} leaf {name!r}") for name, a in tree.flatten(params, what).items()}
    return tree.unflatten(found, params)


def like_given(new: np.ndarray, theta: Any) -> Any:
    """Return a new array as one of the kind of `theta`: of JAX, torch (also in requiring a gradient) or NumPy."""
    if isinstance(theta, np.ndarray):
        return new
    if is_tensor(theta):
        tensor = theta.detach().clone()
        as_array(tensor, "")[...] = new
        return tensor.requires_grad_(theta.requires_grad)
    if hasattr(theta, "__array_namespace__"):
        return theta.__array_namespace__().asarray(new)
    return new


def tensors_of(params: Any, names: Collection[str]) -> list[Any]:
    """Return torch's tensors among the leaves of these names."""
    if all(type(a) is np.ndarray for a in optree.tree_leaves(params)):
        return []
    leaves = tree.flatten(params)
    return [leaves[name] for name in names if is_tensor(leaves[name])]


def mark_written(tensors: list[Any]) -> None:
    """Raise the version counters of tensors that were written, as torch's own steps in place do.

    By them autograd sees that a graph which is still needed was made of other numbers, and raises its error.
    """
    if tensors:
        graph = sys.modules["torch"].autograd.graph  # whose tensors they are
        for a in tensors:
            graph.increment_version(a)


def is_tensor(a: Any) -> bool:
    """Whether this is a tensor of torch."""
    return hasattr(a, "data_ptr") and hasattr(a, "stride") and hasattr(a, "detach")


class _Bits:
    """The memory of a bfloat16 tensor, which torch shows to nobody: 16 bits an entry."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor  # so that the memory stays
        self.__array_interface__ = {
            "version": 3,
            "data": (tensor.data_ptr(), False),
            "shape": tuple(tensor.shape),
            "strides": tuple(2 * n for n in tensor.stride()),
            "typestr": "<u2",
        }


def _from_torch(a: Any, where: str) -> Any:
    device, layout = a.device.type, str(a.layout).rpartition(".")[2]
    if device == "meta":
        raise DtypeError(f"{where} is on the meta device, which holds no numbers: load its weights first")
    if layout != "strided":
        raise DtypeError(f"{where} is a sparse tensor ({layout}); give to_dense() of it, or None to skip the leaf")
    if device == "cuda":
        return a
    if device != "cpu":
        raise DtypeError(f"{where} is on the device {device!r}; give cpu() of it")
    tensor = a.detach()
    if str(a.dtype) != "torch.bfloat16":
        return tensor.numpy()
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), dtype_of("bfloat16"))
    return np.asarray(_Bits(tensor)).view(dtype_of("bfloat16"))


def _from_protocols(a: Any) -> Any:
    if hasattr(a, "__dlpack__"):
        try:
            return np.from_dlpack(a)
        except Exception as error:  # of bfloat16, for which NumPy has no name
            pass_on(error)
            if not hasattr(a, "__array__"):
                raise
    if not hasattr(a, "__array__"):
        return a
    found = np.asarray(a)
    if found.flags.writeable and not np.shares_memory(found, np.asarray(a)):
        found = found.view()
        found.flags.writeable = False
    return found
