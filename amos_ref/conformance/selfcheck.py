"""The installed backends against the page, and the page against the stored vectors: bit for bit."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.judging.judge import Result
from amos_ref.conformance.vectors import read as vectors
from amos_ref.errors import VectorError
from amos_ref.kernels import load_backend
from amos_ref.optimizers.amos import Amos, Rates
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
    checks = [(_vectors, backend, name) for backend in ("numpy", "cpu") for name in vectors.VECTOR_DTYPES]
    checks += [(_live, "cpu", name) for name in vectors.VECTOR_DTYPES]
    results = [_timed(check, backend, name) for check, backend, name in progress(checks)]
    if len(results) < len(checks):
        raise VectorError(
            f"{len(checks) - len(results)} of {len(checks)} checks were not run: `progress` left them out"
        )
    return results


def _timed(check: Callable[[str, str, str], Result], backend: str, dtype_name: str) -> Result:
    begun = time.perf_counter()
    return _guarded(check, backend, dtype_name)._replace(seconds=time.perf_counter() - begun)


def _guarded(check: Callable[[str, str, str], Result], backend: str, dtype_name: str) -> Result:
    label = f"{'page' if backend == 'numpy' else backend} = {'page' if check is _live else 'vectors'}"
    try:
        return check(label, backend, dtype_name)
    except VectorError as error:
        return Result(label, dtype_name, "", "departs", detail=str(error))


def _vectors(label: str, backend: str, dtype_name: str) -> Result:
    count, wrong = vectors.verify(dtype_name, backend)
    if not count:
        return Result(label, dtype_name, "stored cases", "departs", detail="there is no stored case to compare with")
    if wrong:
        return Result(label, dtype_name, "stored cases", "departs", detail=wrong[0])
    return Result(label, dtype_name, "stored cases", "conforms", detail=f"{count} cases, every bit")


def _live(label: str, backend: str, dtype_name: str) -> Result:
    about, count = "shapes, slots and memory layouts", 0
    for case in _live_cases(vectors.dtype_of(dtype_name)):
        count += 1
        difference = _difference(backend, *case)
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
