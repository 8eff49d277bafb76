"""Optimizer states, with or without parameters, on disk, in the file format of :mod:`amos_ref.storage.container`.

The arrays of a leaf are named after the state's fields: "v/<leaf>", "b/<leaf>" and "m/<leaf>" of an AmosState, for
example. A file with parameters holds "theta/<leaf>" too. The texts beside them:

- format, version, package: what wrote the file; state: its type, unless it is an AmosState;
- count: the steps taken, in decimal digits; momentum: "yes" or "no"; leaves: their names in order, as JSON;
- optimizer, options (only with parameters): the class, and its options as JSON.
"""

import inspect
import io
import json
import os
import re
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from amos_ref import __version__, tree
from amos_ref.adamw import AdamW
from amos_ref.checks import Arrays, named_arrays
from amos_ref.dtypes import Shape, as_dtype, broadcasts
from amos_ref.errors import HyperParameterError, RuleError, StateError, StorageError, list_some
from amos_ref.foreign import as_array_tree, like_given
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos
from amos_ref.optimizers.state import (
    PARTS,
    AmosState,
    LeavesWarning,
    ScaledAmosState,
    State,
    check_fit,
    check_state,
    kind_of,
)
from amos_ref.storage import container
from amos_ref.storage.container import Header
from amos_ref.storage.files import name_errors, regular
from amos_ref.storage.options import decode_options, encode_options

STATE_FORMAT, STATE_VERSION = "amos-ref-state", "1"
MOST_DIGITS = 600  # of the count; Python always converts that many

#: The optimizers that a file can hold, by the name that it has for them.
OPTIMIZER_CLASSES: dict[str, Any] = {"Amos": Amos, "ClosedFormAmos": ClosedFormAmos, "AdamW": AdamW}
STATE_CLASSES = {state.__name__: state for state in PARTS}

Path = str | os.PathLike[str]


class Checkpoint(NamedTuple):
    """What :func:`load` returns."""

    params: Any  # a tree like `like`
    state: Any  # AmosState, ClosedFormState or AdamWState
    opt: Any  # Amos, ClosedFormAmos or AdamW


def save_state(path: Path, state: State) -> None:
    """Write a state to a file. If that fails, a file that was there before is still there, and intact.

    Parameters
    ----------
    path : str or path
        A file that exists is replaced. The new one gets its permissions, owner and group.
    state : AmosState, ClosedFormState or AdamWState
        Its arrays may have any of the four dtypes and any memory layout.

    Raises
    ------
    StateError
        If `state` is not a state.
    StorageError
        If the file cannot be written, for example because the folder does not exist or the disk is full.

    Warns
    -----
    RuntimeWarning
        If the system does not allow the new file to have the owner or group of the old one.

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
    with name_errors("write", path) as path:
        arrays = name_arrays(state, kind_of(state), None, momentum=getattr(state, "m", None) is not None)
        container.write(path, arrays, describe_state(state))


def save(path: Path, params: Any, state: State, opt: Any) -> None:
    """Write parameters, state and hyper-parameters to a file, as :func:`save_state` does.

    Parameters
    ----------
    path : str or path
        A file that exists is replaced, as by :func:`save_state`.
    params : tree of arrays
        Of float16, bfloat16, float32 or float64, and of any library whose arrays a step takes.
    state : AmosState, ClosedFormState or AdamWState
        The state of these parameters.
    opt : Amos, ClosedFormAmos or AdamW
        The optimizer, whose options are written. Of an option that is a callable only the name is written, and
        :func:`load` must be given the callable again.

    Raises
    ------
    StateError, DtypeError, TreeError, HyperParameterError
        If `params`, `state` or `opt` is of the wrong type, or they do not belong together.
    StorageError
        If the file cannot be written. An old file is then intact.

    Examples
    --------
    :func:`load` has one.
    """
    with name_errors("write", path) as path:
        name = type(opt).__name__
        if name not in OPTIMIZER_CLASSES:
            raise HyperParameterError(f"opt is {opt!r:.60}; it must be one of {', '.join(OPTIMIZER_CLASSES)}")
        thetas = named_arrays(as_array_tree(params, "params"))
        arrays = name_arrays(state, opt.state_type, thetas, momentum=opt.averages)
        arrays |= {f"theta/{leaf}": a for leaf, a in thetas.items()}
        options = json.dumps(encode_options(opt.options), ensure_ascii=False)
        container.write(path, arrays, describe_state(state) | {"optimizer": name, "options": options})


def load_state(
    path: Path, like: Any = None, state_dtype: str | None = None, *, strict: bool = True, start: Any = None
) -> Any:
    """Read the state that :func:`save_state` or :func:`save` wrote.

    Parameters
    ----------
    path : str or path
    like : tree of arrays, optional
        The parameters. Their leaves must have the names of those in the file, and shapes that the state fits. Without
        `like` the state is returned as it is in the file.
    state_dtype : {None, "float64", "param"}
        With None each array keeps its dtype and its bits. "float64" converts to float64, which is exact. "param" rounds
        once to the dtype of the parameter in `like`. It is the option of :class:`amos_ref.Amos` of the same name.
    strict : bool
        If False, the leaves of the file and of `like` may differ. Leaves that only the file has are dropped, and leaves
        that it lacks are taken from `start`.
    start : NamedTuple, optional
        A state for `like`, as ``opt.init(like)`` returns it; needed if `strict` is False and the file lacks leaves.

    Returns
    -------
    AmosState, ClosedFormState or AdamWState
        The state, with new and writeable arrays.

    Raises
    ------
    StorageError
        If the file cannot be read, is damaged, or is not of this format and version.
    StateError
        If the state does not fit `like`. The message lists leaves that are missing, extra or of another shape.

    Warns
    -----
    LeavesWarning
        If `strict` is False and the leaves differ. It lists those that were dropped and those that start anew.
    """
    if state_dtype not in (None, "float64", "param") or (state_dtype == "param" and like is None):
        raise HyperParameterError(f"state_dtype is {state_dtype!r}; it must be None, 'float64' or, with like, 'param'")
    thetas = None if like is None else named_arrays(as_array_tree(like, "like"), "like")
    with name_errors("read", path) as path, open(regular(path), "rb") as file:
        header, leaves = read_header(file)
        new = {} if thetas is None else _check_like(header, leaves, thetas, parameters=False, strict=strict)
        wanted = {entry.name for entry in header.entries if not entry.name.startswith("theta/")}
        arrays = container.read_arrays(file, header, wanted)
        dtypes = {} if state_dtype is None else dict.fromkeys(leaves, np.dtype(np.float64))
        if state_dtype == "param" and thetas is not None:
            dtypes = {name: a.dtype for name, a in thetas.items()}
        return build_state(header, arrays, leaves if thetas is None else list(thetas), dtypes, new, start)


def load(path: Path, like: Any, *, strict: bool = True, **options: Any) -> Checkpoint:
    """Read the parameters, state and optimizer that :func:`save` wrote.

    Parameters
    ----------
    path : str or path
    like : tree of arrays
        A tree of the form that is wanted, with arrays of the kind that is wanted: NumPy's, torch's or JAX's. Its leaves
        must have the names, shapes and dtypes of those in the file, and their numbers are not used.
    strict : bool
        If False, the leaves of the file and of `like` may differ. Leaves that only the file has are dropped. Those that
        it lacks get the numbers of `like`, copied, and the state that `init` gives them. A LeavesWarning lists both.
    **options
        Options of the optimizer that replace those in the file. An option that was a callable must be given again.

    Returns
    -------
    Checkpoint
        A NamedTuple ``(params, state, opt)``. All its arrays are new and writeable.

    Raises
    ------
    StorageError, StateError
        As in :func:`load_state`; and if the state in the file does not fit `options`: a `momentum` that it does not
        have, or other slots. With another `state_dtype` it is converted.
    HyperParameterError
        If `strict` is not a bool, or an option does not exist, or one that was a callable is not given.
    RuleError
        If the optimizer's rules have nothing for a leaf that the file lacks; `options` can replace them.

    Examples
    --------
    >>> import pathlib, tempfile, numpy as np, amos_ref
    >>> params = {"w": np.ones(3)}
    >>> opt = amos_ref.Amos(learning_rate=lambda t: 0.1 / t)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "training"
    ...     amos_ref.save(path, params, opt.init(params), opt)
    ...     params, state, opt = amos_ref.load(path, like=params, learning_rate=0.05)
    >>> params, state.count, opt.learning_rate
    ({'w': array([1., 1., 1.])}, 0, 0.05)
    """
    given = tree.present(like, "like")
    thetas = named_arrays(as_array_tree(like, "like"), "like")
    with name_errors("read", path) as path, open(regular(path), "rb") as file:
        header, leaves = read_header(file)
        if "optimizer" not in header.metadata:
            raise StorageError("it holds a state alone, without parameters and optimizer; load_state reads it")
        new = _check_like(header, leaves, thetas, parameters=True, strict=strict)
        opt = build_optimizer(header, options)
        arrays = container.read_arrays(file, header, {entry.name for entry in header.entries})
        arrays |= {f"theta/{name}": a.copy() for name, a in new.items()}
        params = tree.unflatten({name: like_given(arrays[f"theta/{name}"], a) for name, a in given.items()}, like)
        state = build_state(header, arrays, list(thetas), {}, new, _start(opt, params, options) if new else None)
        if options:
            state = fit_state(state, opt, thetas, {n: opt._leaf_rule(n, a.shape)[-1] for n, a in thetas.items()})
        return Checkpoint(params, state, opt)


def fit_state(state: Any, opt: Any, thetas: Arrays, slots: Mapping[str, Shape]) -> Any:
    """Return the state in the dtype that the optimizer keeps; raise StateError unless it could be its own."""
    dtypes = {name: opt._state_dtype(a.dtype) for name, a in thetas.items()}
    parts: dict[str, Any] = dict(zip(state._fields[1:], state[1:], strict=True))
    for part, arrays in parts.items():
        if arrays is not None and part not in PARTS[type(state)].constants:
            parts[part] = {name: as_dtype(a, dtypes[name]) for name, a in arrays.items()}
    state = state._replace(**parts)
    shapes = {name: (a.shape, slots[name]) for name, a in thetas.items()}
    check_state(state, shapes, dtypes, opt.state_type, optional=opt.averages)
    return state


def _start(opt: Any, params: Any, options: dict[str, Any]) -> Any:
    """Return the state that leaves have which the file lacks; `options` replaced some of the file's."""
    try:
        return opt.init(params)
    except RuleError as error:
        if options:
            raise
        words = "these are the rules in the file, and new ones can be given: load(path, like, strict=False, eta=...)"
        raise RuleError(f"{error} ({words})") from None


def name_arrays(state: Any, kind: type, thetas: Arrays | None, *, momentum: bool) -> Arrays:
    """Return ``{"v/<leaf>": array, ...}``; raise StateError unless this is a state (of these parameters)."""
    check_fit(state, kind, thetas, optional=momentum)
    named = {part: getattr(state, part) for part in parts_of(kind, momentum)}
    for part, arrays in named.items():
        if odd := [name for name in arrays if not isinstance(name, str)]:
            raise StateError(f"state.{part} has a leaf {odd[0]!r}; the name of a leaf must be a str")
    return {f"{part}/{name}": a for part, arrays in named.items() for name, a in arrays.items()}


def parts_of(kind: type, momentum: bool) -> tuple[str, ...]:
    """Return the names of the arrays that a state of this kind has for each leaf, in the order of a file."""
    return PARTS[kind].always + PARTS[kind].entries * momentum


def describe_state(state: State) -> dict[str, str]:
    """Return the texts that a file has beside the arrays of the state."""
    if int(state.count) >= 10**MOST_DIGITS:
        raise StateError(f"state.count has more than {MOST_DIGITS} digits, the most that a file holds")
    kind = kind_of(state)
    momentum = any(getattr(state, part) is not None for part in PARTS[kind].entries)
    return {
        "format": STATE_FORMAT,
        "version": STATE_VERSION,
        "package": f"amos_ref {__version__}",
        "count": str(int(state.count)),
        "momentum": "yes" if momentum else "no",
        "leaves": json.dumps(list(getattr(state, parts_of(kind, momentum)[0])), ensure_ascii=False),
    } | ({} if kind is AmosState else {"state": kind.__name__})


def read_header(file: io.BufferedReader) -> tuple[Header, list[str]]:
    """Return the header and the names of the leaves; raise StorageError unless the file holds a complete state."""
    header = container.read_header(file)
    texts = header.metadata
    _check_text(texts, "format", STATE_FORMAT, f"it must be {STATE_FORMAT!r}")
    _check_text(texts, "version", STATE_VERSION, f"this amos_ref reads version {STATE_VERSION!r}")
    # The rest comes after this, so that a damaged file is reported as damaged and not by what the damage did.
    container.verify(file, header)
    _check_text(texts, "count", f"[0-9]{{1,{MOST_DIGITS}}}", "it must be an integer >= 0")
    _check_text(texts, "momentum", "yes|no", "it must be 'yes' or 'no'")
    kinds = "|".join(STATE_CLASSES)
    _check_text({"state": "AmosState"} | texts, "state", kinds, f"it must be one of {kinds.replace('|', ', ')}")
    leaves = container.parse_json(texts.get("leaves", ""))
    if not isinstance(leaves, list) or not all(isinstance(name, str) for name in leaves):
        raise StorageError(f"its leaves are {leaves!r:.80}; they must be a list of names")
    parts = parts_of(_state_type(header), texts["momentum"] == "yes") + ("theta",) * ("optimizer" in texts)
    expected = [f"{part}/{name}" for part in parts for name in leaves]
    odd = sorted(set(expected) ^ {entry.name for entry in header.entries})
    if odd or len(set(leaves)) < len(leaves):
        raise StorageError(f"its arrays are not those of its leaves: {', '.join(map(repr, odd)) or 'a leaf twice'}")
    return header, leaves


def _check_text(texts: dict[str, str], name: str, pattern: str, words: str) -> None:
    if not re.fullmatch(pattern, texts.get(name, "")):
        raise StorageError(f"its {name} is {texts.get(name)!r:.80}; {words}")


def _state_type(header: Header) -> Any:
    return STATE_CLASSES[header.metadata.get("state", "AmosState")]


def _check_like(header: Header, leaves: list[str], thetas: Arrays, *, parameters: bool, strict: bool) -> Arrays:
    """Return the leaves that the file lacks; raise StateError that lists everything in which it and the tree differ."""
    if not isinstance(strict, bool):
        raise HyperParameterError(f"strict is {strict!r:.60}; it must be True or False")
    known = set(leaves)
    new = {name: a for name, a in thetas.items() if name not in known}
    odd = [f"missing leaf {name!r}" for name in new] + [f"extra leaf {name!r}" for name in leaves if name not in thetas]
    wrong, sizes = odd if strict else [], False
    for entry in header.entries:
        part, _, name = entry.name.partition("/")
        if name not in thetas or (part == "theta" and not parameters):
            continue
        theta = thetas[name]
        slot = part in PARTS[_state_type(header)].always
        if not (broadcasts(entry.shape, theta.shape) if slot else entry.shape == theta.shape):
            wrong.append(f"{part} of leaf {name!r} has shape {entry.shape} and the parameter {theta.shape}")
            sizes = True
        if part == "theta" and entry.dtype != theta.dtype:
            wrong.append(f"{part} of leaf {name!r} has dtype {entry.dtype} and the parameter {theta.dtype}")
    if wrong:
        hint = "" if strict or not sizes else "; a leaf of another shape starts anew under another name"
        raise StateError(f"it does not match like: {list_some(wrong, '; ')}{hint}")
    if odd:
        words = "a missing leaf starts anew, but at the file's count (see docs/storage.md), an extra one is dropped"
        warnings.warn(f"the file does not match like: {list_some(odd, '; ')}; {words}", LeavesWarning, stacklevel=3)
    return new


def build_optimizer(header: Header, options: dict[str, Any]) -> Any:
    """Return the optimizer that a file was written with; raise StorageError or HyperParameterError if there is none."""
    name, written = header.metadata["optimizer"], container.parse_json(header.metadata.get("options", ""))
    kind, wanted = OPTIMIZER_CLASSES.get(name), _state_type(header)
    states = (AmosState, ScaledAmosState) if kind is Amos else (getattr(kind, "state_type", None),)
    if wanted not in states or not isinstance(written, dict):
        raise StorageError(f"its optimizer is {name!r:.80} with options {written!r:.80}")
    known = inspect.signature(OPTIMIZER_CLASSES[name]).parameters
    if unknown := [repr(key) for key in options if key not in known]:
        raise HyperParameterError(f"its {name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        opt = OPTIMIZER_CLASSES[name](**decode_options(written, options))
    except TypeError as error:
        raise HyperParameterError(str(error)) from None
    if opt.state_type is not wanted:
        words = f"its Amos has states of type {opt.state_type.__name__}, and its state is a {wanted.__name__}"
        if options:
            raise HyperParameterError(f"{words}; eta='init' has the one and other etas the other")
        raise StorageError(words)
    return opt


def build_state(
    header: Header, arrays: Arrays, leaves: list[str], dtypes: dict[str, np.dtype], new: Arrays, start: Any
) -> Any:
    """Return the state with these leaves in this order, of the dtypes that are given; the new ones as in `start`."""
    if new and type(start) is not _state_type(header):
        raise StateError(f"it lacks leaf {next(iter(new))!r}; give start=opt.init(like), which says how it starts")
    kind = _state_type(header)
    fields: dict[str, Any] = dict.fromkeys(kind._fields) | {"count": int(header.metadata["count"])}
    for part in parts_of(kind, header.metadata["momentum"] == "yes"):
        fresh = (getattr(start, part) or {}) if new else {}
        if odd := [name for name in new if name not in fresh]:
            raise StateError(f"start has no {part} of leaf {odd[0]!r}; give start=opt.init(like)")
        named = {name: fresh[name].copy() if name in new else arrays[f"{part}/{name}"] for name in leaves}
        kept = part in PARTS[kind].constants  # float64, whatever the dtype of the rest
        fields[part] = {name: a if kept else as_dtype(a, dtypes.get(name, a.dtype)) for name, a in named.items()}
    return kind(**fields)
