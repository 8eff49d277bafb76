"""What a torch optimizer can undergo: each event of docs/life.md done to a TorchPort as a user would do it."""

import copy
import importlib
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

from amos_ref.conformance.ports.failures import Unsupported, first_line
from amos_ref.conformance.ports.port import LEAF_NAME
from amos_ref.conformance.ports.torch_feed import import_torch


def _rebuild(port: Any, **other: Any) -> None:
    """Make the optimizer anew, with parameters of the same values."""
    torch = import_torch()

    leaves = {name: torch.nn.Parameter(leaf.detach().clone(), leaf.requires_grad) for name, leaf in port.leaves.items()}
    port.build(leaves, **other)


def _need(port: Any, *names: str) -> None:
    """Raise Unsupported where an optimizer, which need not be derived from torch's, lacks something."""
    for name in names:
        if not hasattr(port.optimizer, name):
            raise Unsupported(f"the optimizer has no {name}")


# in the middle of a run


def _state_dict(port: Any, **other: Any) -> None:
    torch = import_torch()

    _need(port, "state_dict", "load_state_dict")
    saved = port.optimizer.state_dict()
    try:
        file = io.BytesIO()
        torch.save(saved, file)
        file.seek(0)
        saved = torch.load(file, weights_only=False)
    except Exception:  # it holds something that cannot be pickled
        saved = copy.deepcopy(saved)
    _rebuild(port, **other)
    port.optimizer.load_state_dict(saved)


def _loaded_otherwise(port: Any) -> None:
    _state_dict(port, **port.algorithm.otherwise)


def _pickle(port: Any) -> None:
    cls = type(port.optimizer)
    if "<locals>" in cls.__qualname__:
        raise Unsupported(f"{cls.__qualname__} is defined inside a function, where pickle does not find it")
    try:
        data = pickle.dumps((port.leaves, port.optimizer))
    except Exception as error:
        raise Unsupported(f"the optimizer cannot be pickled: {first_line(error)}") from error
    _go_on_with(port, *pickle.loads(data))


def _deepcopy(port: Any) -> None:
    _go_on_with(port, *copy.deepcopy((port.leaves, port.optimizer)))


def _go_on_with(port: Any, leaves: dict[str, Any], optimizer: Any) -> None:
    port.leaves, port.optimizer = leaves, optimizer
    for name, leaf in leaves.items():
        setattr(leaf, LEAF_NAME, name)


def _same_gradients(port: Any) -> None:
    port.feed.keep = True


def _momentum_on(port: Any) -> None:
    for name, values in port.changing.items():
        key, value = port.group_option(name, max(values))
        for group in port.optimizer.param_groups:
            group[key] = value


def _leave_out(port: Any) -> None:
    port.outside = {list(port.leaves)[-1]}
    _rebuild(port)


def _add_param_group(port: Any) -> None:
    _need(port, "add_param_group")
    (name,), port.outside = port.outside, set()
    group: dict[str, Any] = {"params": [port.leaves[name]]}
    if port.apart:
        group[port.group_key(port.algorithm.scale)] = port.etas[name]
    port.optimizer.add_param_group(group)


# from the start


def _groups(port: Any) -> None:
    for options in port.groups.values():
        for name in options:
            port.group_key(name)
    port.grouped = True
    _rebuild(port)


def _with_option(name: str, refusable: bool = True) -> Callable[[Any], None]:
    """Return the event of an optimizer that is made with an option switched on."""

    def begin(port: Any) -> None:
        if name not in port.signature.parameters:
            raise Unsupported(f"the port has no parameter {name!r}")
        port.extra[name] = True
        port.feed.refusable = refusable
        _rebuild_or_refuse(port)

    return begin


def _rebuild_or_refuse(port: Any) -> None:
    try:
        _rebuild(port)
    except Exception as error:
        raise Unsupported(f"it is refused: {first_line(error)}") from error


def _maximize(port: Any) -> None:
    _with_option("maximize", refusable=False)(port)
    port.feed.sign = -1.0


def _lr_tensor(port: Any) -> None:
    torch = import_torch()

    rate = port.hyper[port.algorithm.rate]
    port.hyper[port.algorithm.rate] = port.feed.rate = torch.tensor(rate, dtype=torch.float64)
    _rebuild_or_refuse(port)


def _lr_scheduler(port: Any) -> None:
    _need(port, "param_groups")
    rates = list(port.rates)
    scheduler = importlib.import_module("torch.optim.lr_scheduler").LambdaLR
    if "lr" not in port.optimizer.param_groups[0]:
        raise Unsupported("the port's parameter groups have no 'lr', which torch's schedulers set")
    port.rates, last = None, len(rates) - 1
    port.feed.scheduler = scheduler(port.optimizer, lambda t: rates[min(t, last)] / rates[0])


def _closure(port: Any) -> None:
    parameters = inspect.signature(port.optimizer.step).parameters
    if not parameters:
        raise Unsupported("the port's step takes no closure")
    port.feed.closure = True


def _zero_grad(port: Any) -> None:
    _need(port, "zero_grad")
    port.feed.zero = True


def _frozen(port: Any) -> None:
    port.feed.freeze = True


def _in_columns(tensor: Any) -> Any:
    """Return a tensor of the same numbers that lie in memory by columns."""
    axes = tuple(range(tensor.ndim - 1, -1, -1))
    return tensor.permute(axes).contiguous().permute(axes)


def _gradients_transposed(port: Any) -> None:
    port.feed.form = _in_columns


def _gradients_expanded(port: Any) -> None:
    port.feed.form = lambda g: g[:1].clone().expand(g.shape)


def _gradients_sparse(port: Any) -> None:
    port.feed.form, port.feed.refusable = lambda g: g.to_sparse(), True


def _parameters_transposed(port: Any) -> None:
    torch = import_torch()

    port.build({name: torch.nn.Parameter(_in_columns(leaf.detach().clone())) for name, leaf in port.leaves.items()})


def _parameters_complex(port: Any) -> None:
    torch = import_torch()

    if not all(leaf.dtype in (torch.float32, torch.float64) for leaf in port.leaves.values()):
        raise Unsupported("torch has complex numbers of float32 and float64 only")
    port.feed.refusable, port.feed.form = True, lambda g: torch.view_as_complex(g.clone())
    leaves = {name: torch.view_as_complex(leaf.detach().clone()) for name, leaf in port.leaves.items()}
    try:
        port.build({name: torch.nn.Parameter(leaf) for name, leaf in leaves.items()})
    except Exception as error:
        raise Unsupported(f"it is refused: {first_line(error)}") from error


EVENTS: dict[str, Callable[[Any], None]] = {
    "state_dict": _state_dict,
    "state_dict-otherwise": _loaded_otherwise,
    "pickle": _pickle,
    "deepcopy": _deepcopy,
    "same-gradients": _same_gradients,
    "momentum-on": _momentum_on,
    "leave-out": _leave_out,
    "add_param_group": _add_param_group,
    "groups": _groups,
    "foreach": _with_option("foreach", refusable=False),
    "fused": _with_option("fused"),
    "capturable": _with_option("capturable"),
    "differentiable": _with_option("differentiable"),
    "maximize": _maximize,
    "lr-tensor": _lr_tensor,
    "lr-scheduler": _lr_scheduler,
    "closure": _closure,
    "zero_grad": _zero_grad,
    "frozen": _frozen,
    "gradients-transposed": _gradients_transposed,
    "gradients-expanded": _gradients_expanded,
    "gradients-sparse": _gradients_sparse,
    "parameters-transposed": _parameters_transposed,
    "parameters-complex": _parameters_complex,
}
