"""State, and parameters with it, on disk, in the file format of :mod:`amos_ref.storage.container`.

The arrays of a leaf are named "v/<leaf>", "b/<leaf>", "m/<leaf>" (of a ClosedFormState "sigma/<leaf>", "m/<leaf>",
"v/<leaf>") and, where parameters are kept, "theta/<leaf>". The texts beside them:

- format, version, package: what wrote the file; state: its kind, unless it is an AmosState;
- count: the steps taken, in decimal digits; momentum: "yes" or "no"; leaves: their names in order, as JSON;
- optimizer, options (only with parameters): the class, and its options as JSON.
"""

import io
import json
import os
import re
from typing import Any, NamedTuple

import numpy as np

from amos_ref import __version__, tree
from amos_ref.checks import Arrays, named_arrays
from amos_ref.dtypes import as_dtype, broadcasts
from amos_ref.errors import HyperParameterError, StateError, StorageError
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos
from amos_ref.optimizers.state import PARTS, AmosState, State, check_state, kind_of
from amos_ref.options import read_options, written_options
from amos_ref.storage import container
from amos_ref.storage.container import Header

FORMAT, VERSION = "amos-ref-state", "1"
MOST_DIGITS = 600  # of the count; Python always converts that many

_OPTIMIZERS = {"Amos": Amos, "ClosedFormAmos": ClosedFormAmos}
_STATES = {kind.__name__: kind for kind in PARTS}

Path = str | os.PathLike[str]


class Saved(NamedTuple):
    """What :func:`load` returns."""

    params: Any  # a tree like `like`
    state: Any  # AmosState or ClosedFormState
    opt: Any  # Amos or ClosedFormAmos


def save_state(path: Path, state: State) -> None:
    """Write the state to a file, which afterwards is either whole or what it was before.

    Parameters
    ----------
    path : str or path
        A file that is there already is replaced, and keeps its permissions.
    state : AmosState or ClosedFormState
        Of any of the four dtypes, in any memory layout.

    Raises
    ------
    StateError
        If it is no state.
    StorageError
        If it cannot be written: no such folder, disk full, ... The old file is intact.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, amos_ref
    >>> params = {"w": np.ones(3)}
    >>> state = amos_ref.Amos().init(params)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "state.safetensors"
    ...     amos_ref.save_state(path, state)
    ...     amos_ref.load_state(path, like=params)
    AmosState(count=0, v={'w': array(0.)}, b={'w': array(0.)}, m=None)
    """
    with container.named("write", path) as path:
        arrays = _state_arrays(state, kind_of(state), None, momentum=getattr(state, "m", None) is not None)
        container.write(path, arrays, _texts(state))


def save(path: Path, params: Any, state: State, opt: Amos | ClosedFormAmos) -> None:
    """Write parameters, state and hyper-parameters to a file, as :func:`save_state` does.

    Parameters
    ----------
    path : str or path
    params : tree of arrays
    state : AmosState or ClosedFormState
        The state of these parameters.
    opt : Amos or ClosedFormAmos
        Its options are written; of a callable only its name, and :func:`load` wants it back.

    Raises
    ------
    StateError, DtypeError, TreeError, HyperParameterError
        If parameters, state and optimizer are none or do not belong together.
    StorageError
        If the file cannot be written. The old one is intact.
    """
    with container.named("write", path) as path:
        if type(opt).__name__ not in _OPTIMIZERS:
            raise HyperParameterError(f"opt is {opt!r:.60}; it must be an Amos or a ClosedFormAmos")
        thetas = named_arrays(params)
        arrays = _state_arrays(state, opt.state_type, thetas, momentum=opt.averages)
        arrays |= {f"theta/{name}": a for name, a in thetas.items()}
        options = json.dumps(written_options(opt.options), ensure_ascii=False)
        container.write(path, arrays, _texts(state) | {"optimizer": type(opt).__name__, "options": options})


def load_state(path: Path, like: Any = None, state_dtype: str | None = None) -> Any:
    """Read the state that :func:`save_state` or :func:`save` wrote.

    Parameters
    ----------
    path : str or path
    like : tree of arrays, optional
        The parameters. Leaves must have the same names, and shapes that the state fits. Without it the state comes
        as the file has it.
    state_dtype : {None, "float64", "param"}
        None leaves each array in its dtype, to the bit. The others convert, as the option of
        :class:`amos_ref.Amos` of this name asks: to float64, which is exact, or to the dtype of the parameter in
        `like`, rounding once.

    Returns
    -------
    AmosState or ClosedFormState
        With new, writeable arrays.

    Raises
    ------
    StorageError
        If the file cannot be read, is damaged, or is no file of this format and version.
    StateError
        If the state does not fit `like`; the message lists every leaf that is missing, extra or of another shape.
    """
    if state_dtype not in (None, "float64", "param") or (state_dtype == "param" and like is None):
        raise HyperParameterError(f"state_dtype is {state_dtype!r}; it must be None, 'float64' or, with like, 'param'")
    thetas = None if like is None else named_arrays(like, "like")
    with container.named("read", path) as path, container.opened(path) as file:
        header, leaves = _read_header(file)
        if thetas is not None:
            _check_like(header, leaves, thetas, parameters=False)
        wanted = {entry.name for entry in header.entries if not entry.name.startswith("theta/")}
        arrays = container.read_arrays(file, header, wanted)
    dtypes = {} if state_dtype is None else dict.fromkeys(leaves, np.dtype(np.float64))
    if state_dtype == "param" and thetas is not None:
        dtypes = {name: a.dtype for name, a in thetas.items()}
    return _state(header, arrays, leaves if thetas is None else list(thetas), dtypes)


def load(path: Path, like: Any, **options: Any) -> Saved:
    """Read the parameters, state and optimizer that :func:`save` wrote.

    Parameters
    ----------
    path : str or path
    like : tree of arrays
        Says the form of the tree; leaves must have the same names, shapes and dtypes. Its numbers are not used.
    **options
        Options of the optimizer that take the place of the written ones. Those that were callables when
        saved must be given.

    Returns
    -------
    Saved
        ``(params, state, opt)``; all arrays are new and writeable.

    Raises
    ------
    StorageError, StateError
        As in :func:`load_state`.
    HyperParameterError
        If an option that is not in the file is not given, or one is given that does not exist.
    """
    thetas = named_arrays(like, "like")
    with container.named("read", path) as path, container.opened(path) as file:
        header, leaves = _read_header(file)
        if "optimizer" not in header.metadata:
            raise StorageError("it holds a state alone, without parameters and optimizer; load_state reads it")
        _check_like(header, leaves, thetas, parameters=True)
        opt = _optimizer(header, options)
        arrays = container.read_arrays(file, header, {entry.name for entry in header.entries})
    params = tree.unflatten({name: arrays[f"theta/{name}"] for name in thetas}, like)
    return Saved(params, _state(header, arrays, list(thetas), {}), opt)


def _state_arrays(state: Any, kind: type, thetas: Arrays | None, *, momentum: bool) -> Arrays:
    """Return ``{"v/<leaf>": array, ...}``, or raise StateError for what is no state (of these parameters)."""
    (first, *_), entries, _ = PARTS[kind]
    slots, full = (a if isinstance(a := getattr(state, part, None), dict) else {} for part in (first, entries[0]))
    like = full if thetas is None else thetas
    names = slots if thetas is None else thetas
    shapes: dict[str, Any] = {
        name: (getattr(like.get(name), "shape", None), getattr(slots.get(name), "shape", None)) for name in names
    }
    dtypes: dict[str, Any] = {name: getattr(slots.get(name), "dtype", None) for name in names}
    check_state(state, shapes, dtypes, momentum=momentum, kind=kind)
    for name, (shape, slot) in shapes.items():
        if not isinstance(name, str):
            raise StateError(f"state.{first} has a leaf {name!r}; the name of a leaf must be a str")
        if shape is not None and not broadcasts(slot, shape):
            raise StateError(f"state.{first} of leaf {name!r} has shape {slot}, which does not broadcast to {shape}")
    return {f"{part}/{name}": getattr(state, part)[name] for part in _parts(kind, momentum) for name in names}


def _parts(kind: type, momentum: bool) -> tuple[str, ...]:
    return PARTS[kind].slots + PARTS[kind].entries * momentum


def _texts(state: State) -> dict[str, str]:
    if state.count >= 10**MOST_DIGITS:
        raise StateError(f"state.count has more than {MOST_DIGITS} digits, the most that a file holds")
    return {
        "format": FORMAT,
        "version": VERSION,
        "package": f"amos_ref {__version__}",
        "count": str(int(state.count)),
        "momentum": "no" if state.m is None else "yes",
        "leaves": json.dumps(list(getattr(state, PARTS[kind_of(state)].slots[0])), ensure_ascii=False),
    } | ({} if isinstance(state, AmosState) else {"state": kind_of(state).__name__})


def _read_header(file: io.BufferedReader) -> tuple[Header, list[str]]:
    """Return the header and the names of the leaves, or raise StorageError unless the file is a whole state."""
    header = container.read_header(file)
    texts = header.metadata
    if texts.get("format") != FORMAT:
        raise StorageError(f"its format is {texts.get('format')!r:.80}; it must be {FORMAT!r}")
    if texts.get("version") != VERSION:
        raise StorageError(f"its version is {texts.get('version')!r:.80}; this amos_ref reads version {VERSION!r}")
    # Before anything else is made of it: a damaged file shall be called damaged.
    container.verify(file, header)
    if not re.fullmatch(f"[0-9]{{1,{MOST_DIGITS}}}", texts.get("count", "")):
        raise StorageError(f"its count is {texts.get('count')!r:.80}; it must be an integer >= 0")
    if texts.get("momentum") not in ("yes", "no"):
        raise StorageError(f"its momentum is {texts.get('momentum')!r:.80}; it must be 'yes' or 'no'")
    leaves = container.parsed(texts.get("leaves", ""))
    if not isinstance(leaves, list) or not all(isinstance(name, str) for name in leaves):
        raise StorageError(f"its leaves are {leaves!r:.80}; they must be a list of names")
    if texts.get("state", "AmosState") not in _STATES:
        raise StorageError(f"its state is {texts['state']!r:.80}; it must be one of {', '.join(map(repr, _STATES))}")
    parts = _parts(_kind(header), texts["momentum"] == "yes") + ("theta",) * ("optimizer" in texts)
    expected = [f"{part}/{name}" for part in parts for name in leaves]
    odd = sorted(set(expected) ^ {entry.name for entry in header.entries})
    if odd or len(set(leaves)) < len(leaves):
        raise StorageError(f"its arrays are not those of its leaves: {', '.join(map(repr, odd)) or 'a leaf twice'}")
    return header, leaves


def _kind(header: Header) -> type:
    return _STATES[header.metadata.get("state", "AmosState")]


def _check_like(header: Header, leaves: list[str], thetas: Arrays, *, parameters: bool) -> None:
    """Raise StateError that lists everything in which the file and the tree differ."""
    known = set(leaves)
    wrong = [f"missing leaf {name!r}" for name in thetas if name not in known]
    wrong += [f"extra leaf {name!r}" for name in leaves if name not in thetas]
    for entry in header.entries:
        part, _, name = entry.name.partition("/")
        if name not in thetas or (part == "theta" and not parameters):
            continue
        theta = thetas[name]
        slot = part in PARTS[_kind(header)].slots
        if not (broadcasts(entry.shape, theta.shape) if slot else entry.shape == theta.shape):
            wrong.append(f"{part} of leaf {name!r} has shape {entry.shape} and the parameter {theta.shape}")
        if part == "theta" and entry.dtype != theta.dtype:
            wrong.append(f"{part} of leaf {name!r} has dtype {entry.dtype} and the parameter {theta.dtype}")
    if wrong:
        raise StateError(f"it does not match like: {'; '.join(wrong)}")


def _optimizer(header: Header, options: dict[str, Any]) -> Amos | ClosedFormAmos:
    name, written = header.metadata["optimizer"], container.parsed(header.metadata.get("options", ""))
    known = name in _OPTIMIZERS and _OPTIMIZERS[name].state_type is _kind(header)
    if not known or not isinstance(written, dict):
        raise StorageError(f"its optimizer is {name!r:.80} with options {written!r:.80}")
    merged = read_options(written, options)
    try:
        return _OPTIMIZERS[name](**merged)
    except TypeError as error:
        raise HyperParameterError(str(error)) from None


def _state(header: Header, arrays: Arrays, leaves: list[str], dtypes: dict[str, np.dtype]) -> Any:
    def arrays_of(part: str) -> Arrays | None:
        if part not in present:
            return None
        found = {name: arrays[f"{part}/{name}"] for name in leaves}
        return {name: as_dtype(a, dtypes.get(name, a.dtype)) for name, a in found.items()}

    kind: Any = _kind(header)
    present = _parts(kind, header.metadata["momentum"] == "yes")
    return kind(int(header.metadata["count"]), *(arrays_of(part) for part in kind._fields[1:]))
