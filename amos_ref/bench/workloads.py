"""What is stepped: arrays of given sizes and trees of given shapes, in a dtype, with slots, on some threads."""

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from amos_ref.dtypes import FLOATS, dtype_of
from amos_ref.errors import HyperParameterError

Shape = tuple[int, ...]

SLOTS = ("tensor", "row", "column", "element")
STATES = ("param", "float64")
MOMENTUM = 0.9
#: Hidden size and layers of the published BERT models (Turc et al. 2019, arXiv 1908.08962).
BERTS = {"bert-tiny": (128, 2), "bert-mini": (256, 4), "bert-small": (512, 4), "bert-base": (768, 12)}
MOST = 10**10  # parameters
#: Backend -> a size at which a float32 array and its gradient are past the caches of most machines, and of most GPUs.
LARGE = {"cpu": "1e7", "cuda": "64e6"}


@dataclass(frozen=True)
class Workload:
    """What one step is taken on."""

    name: str  # of the size or tree: "1e6", "bert-base"
    shapes: tuple[Shape, ...]
    slot: str = "tensor"  # one of SLOTS
    dtype: str = "float32"
    threads: int = 1  # 0 on a GPU
    momentum: bool = False
    state: str = "param"  # one of STATES

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes))

    @property
    def slots(self) -> int:
        return sum(math.prod(slot_shape(self.slot, shape)) for shape in self.shapes)

    @property
    def itemsize(self) -> int:
        return dtype_of(self.dtype).itemsize

    @property
    def state_itemsize(self) -> int:
        return self.itemsize if self.state == "param" else 8

    @property
    def bytes(self) -> int:
        """What a step must read and write: g, then g again, theta twice; v and b twice, and m twice.

        The first g is the sum of squares, or for element slots the look for what is not finite: both come before
        anything is written.
        """
        states = 4 * self.slots + (2 * self.parameters if self.momentum else 0)
        return 4 * self.parameters * self.itemsize + states * self.state_itemsize

    def __str__(self) -> str:
        arrays = f" in {len(self.shapes)} arrays" if len(self.shapes) > 1 else ""
        state = f", state in {self.state}" if self.state != "param" else ""
        momentum = f", momentum {MOMENTUM}" if self.momentum else ""
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        return f"{self.name}: {self.parameters} {self.dtype}{arrays}, {self.slot} slots{momentum}{state}{threads}"


def slot_shape(slot: str, shape: Shape) -> Shape:
    """Return the shape of v and b: one slot an array, a row, a column (the paper's for kernels) or an element."""
    return {"tensor": (), "row": (*shape[:-1], 1), "column": (1, *shape[1:]), "element": shape}[slot]


def drawn(work: Workload) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return parameters and gradients by name, the same for every contender.

    A few numbers over and over: 1e8 random ones take longer than all steps on them.
    """
    rng = np.random.default_rng(2022)
    dtype, made = dtype_of(work.dtype), []
    for scale in (0.5, 0.01):
        block = (scale * rng.standard_normal(65537)).astype(dtype)
        made.append({f"leaf{i:04}": np.resize(block[: math.prod(shape)], shape) for i, shape in enumerate(work.shapes)})
    return made[0], made[1]


# shapes


def array(parameters: int) -> tuple[Shape, ...]:
    """Return the shape of one array, with fewer rows than columns."""
    rows = max(d for d in range(1, math.isqrt(max(parameters // 2, 1)) + 1) if parameters % d == 0)
    return ((rows, parameters // rows),)


def bert(hidden: int, layers: int, vocabulary: int = 30522, positions: int = 512) -> tuple[Shape, ...]:
    """Return the shapes of BERT's parameters, kernels as (in, out)."""
    norm, square = [(hidden,), (hidden,)], [(hidden, hidden), (hidden,)]
    wide = [(hidden, 4 * hidden), (4 * hidden,), (4 * hidden, hidden), (hidden,)]
    embeddings = [(vocabulary, hidden), (positions, hidden), (2, hidden), *norm]
    return (*embeddings, *layers * (4 * square + norm + wide + norm), *square)


def sized(text: str) -> Workload:
    """Return the workload of one array, of "1e6" or "1000000" parameters."""
    try:
        number = float(text)
        parameters = int(number)
    except (ValueError, OverflowError):
        number, parameters = math.nan, 0
    if number != parameters or not 1 <= parameters <= MOST:
        raise HyperParameterError(f"size {text!r} is not a whole number of parameters from 1 to {MOST}, such as 1e6")
    return Workload(text, array(parameters))


def tree(text: str) -> Workload:
    """Return the workload of a tree: one of BERTS, or "1000x64" for 1,000 arrays of 64."""
    if text in BERTS:
        return Workload(text, bert(*BERTS[text]))
    found = re.fullmatch(r"([1-9]\d{0,9})x([1-9]\d{0,9})", text, re.ASCII)
    if found is None or math.prod(map(int, found.groups())) > MOST or int(found[1]) > 10**6:
        raise HyperParameterError(f"tree {text!r} is none of {', '.join(BERTS)}, nor of the form 1000x64")
    return Workload(text, int(found[1]) * ((int(found[2]),),))


# which of them


def cores() -> int:
    """How many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def selected(
    sizes: Iterable[str],
    trees: Iterable[str],
    slots: Iterable[str],
    dtypes: Iterable[str],
    threads: Iterable[str],
    momentum: bool,
    state: str,
) -> list[Workload]:
    """Return every combination of what is asked for.

    Raises
    ------
    HyperParameterError
        If a size, a tree, a kind of slots, a dtype or a number of threads does not exist.
    """
    bases = [*map(sized, sizes), *map(tree, trees)]
    numbers = [_threads(text) for text in threads]
    for what, given, known in (("slots", slots, SLOTS), ("dtype", dtypes, FLOATS)):
        for name in given:
            if name not in known:
                raise HyperParameterError(f"{what} {name!r} is none of {', '.join(known)}")
    return [
        replace(base, slot=slot, dtype=dtype, threads=n, momentum=momentum, state=state)
        for base, slot, dtype, n in itertools.product(bases, slots, dtypes, numbers)
    ]


def _threads(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= cores():
        raise HyperParameterError(f"threads {text!r} is no number from 1 to {cores()}, the cores of this process")
    return int(text)


def plan(quick: bool, backend: str = "cpu") -> list[Workload]:
    """Return what is measured where nothing is asked for: each thing varied by itself."""
    if backend == "cuda":
        return list(_on_device(quick))
    return list(dict.fromkeys(replace(work, threads=work.threads or cores()) for work in _on_cpu(quick)))


def _on_cpu(quick: bool) -> Iterator[Workload]:
    """Yield the workloads of a plan; 0 threads stands for all."""
    large = _without_threads(LARGE["cpu"])
    for text in ("1e3", "1e5", large.name) if quick else ("1e3", "1e4", "1e5", "1e6", large.name, "1e8"):
        yield _without_threads(text)
    yield from _varied(large, () if quick else ("float64", "float16", "bfloat16"))
    yield replace(large, threads=1)
    if not quick:
        for slot in SLOTS[1:]:
            yield replace(_without_threads("1e5"), slot=slot)
    for text in ("1000x64", "bert-mini") if quick else ("1000x64", "200x4096", "bert-mini", "bert-base"):
        yield replace(tree(text), threads=0)


def _on_device(quick: bool) -> Iterator[Workload]:
    """Yield the workloads of a plan for a GPU."""
    large = _without_threads(LARGE["cuda"])
    sizes = ("1e3", "1e6", large.name)
    for text in sizes if quick else ("1e3", "1e4", "1e5", "1e6", "1e7", large.name, "1e8", "2e8"):
        yield _without_threads(text)
    yield from _varied(large, () if quick else ("float64", "float16", "bfloat16"))
    if not quick:
        yield replace(_without_threads("2e8"), slot="row")
    for text in ("1000x64", "bert-base") if quick else ("1000x64", "200x4096", "bert-mini", "bert-base"):
        yield replace(tree(text), threads=0)


def _varied(large: Workload, elements: tuple[str, ...]) -> Iterator[Workload]:
    """Yield a large array with other slots, with momentum and of other dtypes; of some with element slots too."""
    for slot in SLOTS[1:]:
        yield replace(large, slot=slot)
    yield replace(large, slot="element", state="float64")
    yield replace(large, momentum=True)
    for dtype in ("float64", "float16", "bfloat16"):
        yield replace(large, dtype=dtype)
        if dtype in elements:
            yield replace(large, dtype=dtype, slot="element")


def _without_threads(size: str) -> Workload:
    return replace(sized(size), threads=0)
