"""The installed backends against the page, and the page against the stored vectors: bit for bit."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.vectors import read as vectors
from amos_ref.conformance.vectors.schedules import SCHEDULES_FORMAT, verify_schedules
from amos_ref.errors import VectorError
from amos_ref.kernels import load_backend
from amos_ref.optimizers.amos import Amos, Rates
from amos_ref.optimizers.closed_form import ClosedFormAmos
from amos_ref.optimizers.leaf import Leaf

#: Shapes with their slots: chunk and row-group boundaries, and every kind of slot.
SHAPES: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()),
    ((0, 3), (1, 3)),
    ((127,), ()),
    ((8193,), ()),
    ((3, 2731), ()),
    ((5, 300), (5, 1)),
    ((2, 8200), (2, 1)),
    ((65, 40), (1, 40)),
    ((66, 2050), (1, 2050)),
    ((3, 4, 5, 6), (1, 4, 1, 6)),
    ((3, 4, 5, 6), (3, 1, 5, 1)),
    ((4, 33), (4, 33)),
)

Place = Callable[[np.ndarray], np.ndarray]

#: How an array lies in memory.
LAYOUTS: dict[str, Place] = {
    "C": lambda a: a.copy(),
    "F": lambda a: np.array(a, order="F"),
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a.copy(),
    "reversed": lambda a: a[..., ::-1].copy()[..., ::-1] if a.ndim else a.copy(),
}


def self_check(progress: Callable[[Any], Any] = iter) -> list[Result]:
    """Return a result a check: vectors on each backend and dtype, then kernels beside the page on live data."""
    checks = [
        (_vectors, algorithm, backend, name)
        for algorithm in vectors.VECTOR_ALGORITHMS
        for backend in ("numpy", "cpu")
        for name in vectors.VECTOR_DTYPES
    ]
    checks += [
        (_live, algorithm, "cpu", name) for algorithm in vectors.VECTOR_ALGORITHMS for name in vectors.VECTOR_DTYPES
    ]
    checks.append((_schedules, "closed", "numpy", "float64"))
    results = [_timed(*check) for check in progress(checks)]
    if len(results) < len(checks):
        raise VectorError(
            f"{len(checks) - len(results)} of {len(checks)} checks were not run: `progress` left them out"
        )
    return results


Check = Callable[[str, str, str, str], Result]


def _timed(check: Check, algorithm: str, backend: str, dtype_name: str) -> Result:
    begun = time.perf_counter()
    return _guarded(check, algorithm, backend, dtype_name)._replace(seconds=time.perf_counter() - begun)


def _guarded(check: Check, algorithm: str, backend: str, dtype_name: str) -> Result:
    label = f"{'page' if backend == 'numpy' else backend} = {'page' if check is _live else 'vectors'}"
    label = label if algorithm == "paper" else f"closed form: {label}"
    try:
        return check(label, algorithm, backend, dtype_name)
    except VectorError as error:
        return Result(label, dtype_name, "", "departs", detail=str(error))


def _vectors(label: str, algorithm: str, backend: str, dtype_name: str) -> Result:
    return _compared(label, dtype_name, "stored cases", *vectors.verify(dtype_name, backend, algorithm=algorithm))


def _schedules(label: str, algorithm: str, backend: str, dtype_name: str) -> Result:
    document = vectors.load_json("schedules.json", "schedules", SCHEDULES_FORMAT)
    found = _compared(label, dtype_name, "stored schedules", *verify_schedules(document))
    return found._replace(detail=found.detail.replace("cases, every bit", "numbers, each within its bound"))


def _compared(label: str, dtype_name: str, about: str, count: int, wrong: list[str]) -> Result:
    if not count:
        return Result(label, dtype_name, about, "departs", detail="there is no stored case to compare with")
    if wrong:
        return Result(label, dtype_name, about, "departs", detail=wrong[0])
    return Result(label, dtype_name, about, "conforms", detail=f"{count} cases, every bit")


def _live(label: str, algorithm: str, backend: str, dtype_name: str) -> Result:
    about, count, dtype = "shapes, slots and memory layouts", 0, vectors.dtype_of(dtype_name)
    ways: dict[str, Any] = {"paper": (_live_cases, _difference), "closed": (_closed_cases, _closed_difference)}
    cases, compare = ways[algorithm]
    for case in cases(dtype):
        count += 1
        difference = compare(backend, *case)
        if difference:
            return Result(label, dtype_name, about, "departs", detail=difference)
    return Result(label, dtype_name, about, "conforms", detail=f"{count} cases, every bit")


def _live_cases(dtype: np.dtype) -> Iterator[tuple[str, Place, Leaf, Rates]]:
    rng = np.random.default_rng(20221021)
    plain = Rates(spec.one_minus_power(0.75, 3), 0.25, 0.75, None, None, 0.125, 0.25, 0.25, 2.0**-125)
    for shape, slot in SHAPES:
        for layout, place in LAYOUTS.items():
            theta, g = (np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(2))
            v, b = (np.asarray(rng.random(slot)) for _ in range(2))
            leaf = Leaf("", theta, g, v, b, None, 0.5)
            where = f"shape {shape}, slot {slot}, layout {layout}"
            yield where, place, leaf, plain
            leaf = leaf._replace(m=np.asarray(rng.standard_normal(shape)))
            yield f"{where}, momentum, clip", place, leaf, plain._replace(momentum=0.75, clip_value=1.5)


def _difference(backend: str, where: str, place: Place, leaf: Leaf, rates: Rates) -> str:
    """Step two copies of a leaf, one on each backend; say what differs."""
    after = []
    for name in ("numpy", backend):
        copy = leaf._replace(**{what: place(a) for what, a in leaf._asdict().items() if isinstance(a, np.ndarray)})
        load_backend(name).prepare([copy], Amos.method).run(rates)
        after.append(copy)
    for (what, ref), (_, got) in zip(after[0].written().items(), after[1].written().items(), strict=True):
        if ref.tobytes() != got.tobytes():
            return f"{what} has other bits ({where})"
    return ""


def _closed_cases(dtype: np.dtype) -> Iterator[tuple[str, Place, np.ndarray, list[np.ndarray], str, tuple[int, ...]]]:
    """Yield where a case stands, its layout, theta, two gradients, direction and slot shape."""
    rng = np.random.default_rng(9344)
    for shape, slot in SHAPES:
        for layout, direction in zip(LAYOUTS, ("gradient", "adam", "sign", "adam"), strict=True):
            theta, *grads = (np.asarray(rng.standard_normal(shape)).astype(dtype) for _ in range(3))
            where = f"shape {shape}, slot {slot}, layout {layout}, direction {direction}"
            yield where, LAYOUTS[layout], theta, grads, direction, slot


def _closed_difference(
    backend: str, where: str, place: Place, theta: np.ndarray, grads: list[np.ndarray], direction: str, slot: Any
) -> str:
    """Take two steps on each backend; say what differs."""
    after: list[dict[str, Any]] = []
    rule: dict[str, Any] = dict(direction=direction, slot_shape=lambda name, shape: slot)
    for name in ("numpy", backend):
        opt = ClosedFormAmos(0.3, half_life=3.0, q=0.75, backend=name, **rule)
        params = {"": place(theta)}
        state = opt.init(params)
        for g in grads:
            state = opt.step(params, {"": place(g)}, state)
        after.append({"theta": params, "m": state.m or {}, "v": state.v or {}})
    for what, held in after[0].items():
        if any(a.tobytes() != after[1][what][name].tobytes() for name, a in held.items()):
            return f"{what} has other bits ({where})"
    return ""
