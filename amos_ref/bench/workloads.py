"""Workloads: arrays of given sizes and trees of given shapes, with a dtype, a kind of slots and a number of threads."""

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

SLOT_NAMES = ("tensor", "row", "column", "element")
STATES = ("param", "float64")
BENCH_ALGORITHMS, BENCH_DIRECTIONS = ("paper", "closed-form"), ("gradient", "adam")
MOMENTUM = 0.9
#: Hidden size and layers of the published BERT models (Turc et al. 2019, arXiv 1908.08962).
BERTS = {"bert-tiny": (128, 2), "bert-mini": (256, 4), "bert-small": (512, 4), "bert-base": (768, 12)}
MOST_PARAMETERS = 10**10  # parameters
#: Backend -> a size at which a float32 array and its gradient are past the caches of most machines, and of most GPUs.
LARGE = {"cpu": "1e7", "cuda": "64e6"}


@dataclass(frozen=True)
class Workload:
    """The arrays that one step updates, and how."""

    name: str  # of the size or tree: "1e6", "bert-base"
    shapes: tuple[Shape, ...]
    slot: str = "tensor"  # one of SLOT_NAMES
    dtype: str = "float32"
    threads: int = 1  # 0 on a GPU
    momentum: bool = False
    state: str = "param"  # one of STATES
    direction: str | None = None  # of the closed form; None for paper Amos

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
        """The bytes that a step must read and write: g and theta twice, and v, b and m twice.

        A step reads g first for the sum of squares or, with element slots, to look for NaN and infinity, before it
        writes anything; then it reads g once more. The squares of Adam's direction are made of its moments too, so a
        step reads these twice and writes them once.
        """
        return 2 * self.array_bytes + self.moment_bytes

    @property
    def moment_bytes(self) -> int:
        """The bytes of m and v of Adam's direction, which are always float64."""
        return 16 * self.parameters if self.direction == "adam" else 0

    @property
    def array_bytes(self) -> int:
        """The bytes of g, theta, and v, b and m, or the moments: the closed form has one number more an array."""
        state = 0 if self.direction is not None else 2 * self.slots + (self.parameters if self.momentum else 0)
        return 2 * self.parameters * self.itemsize + state * self.state_itemsize + self.moment_bytes

    @property
    def algorithm(self) -> str:
        """Whose step it is."""
        return "paper" if self.direction is None else "closed-form"

    def as_paper(self) -> "Workload":
        """Return the same arrays and slots for paper Amos, with its state in the parameters' dtype."""
        return replace(self, direction=None, state="param")

    def as_closed_form(self, direction: str) -> "Workload":
        """Return the same arrays and slots for the closed form."""
        return replace(self, direction=direction, state="float64", momentum=False)

    def __str__(self) -> str:
        arrays = f" in {len(self.shapes)} arrays" if len(self.shapes) > 1 else ""
        state = f", state in {self.state}" if self.state != "param" and self.direction is None else ""
        momentum = f", momentum {MOMENTUM}" if self.momentum else ""
        momentum += f", closed form by {self.direction}" if self.direction is not None else ""
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        return f"{self.name}: {self.parameters} {self.dtype}{arrays}, {self.slot} slots{momentum}{state}{threads}"


def slot_shape(slot: str, shape: Shape) -> Shape:
    """Return the shape of v and b: one slot for an array, a row, a column (the paper's for kernels) or an element."""
    return {"tensor": (), "row": (*shape[:-1], 1), "column": (1, *shape[1:]), "element": shape}[slot]


def draw_arrays(work: Workload) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return parameters and gradients by name, the same for every contender.

    They repeat a few random numbers: to draw 1e8 takes longer than all steps on them.
    """
    rng, dtype = np.random.default_rng(2022), dtype_of(work.dtype)

    def draw(scale: float) -> dict[str, np.ndarray]:
        block = (scale * rng.standard_normal(65537)).astype(dtype)
        shapes = enumerate(work.shapes)
        return {f"leaf{i:04}": np.resize(block[: math.prod(shape)], shape) for i, shape in shapes}

    return draw(0.5), draw(0.01)


# shapes


def array_shapes(parameters: int) -> tuple[Shape, ...]:
    """Return the shape of one array, with fewer rows than columns."""
    rows = max(d for d in range(1, math.isqrt(max(parameters // 2, 1)) + 1) if parameters % d == 0)
    return ((rows, parameters // rows),)


def bert_shapes(hidden: int, layers: int, vocabulary: int = 30522, positions: int = 512) -> tuple[Shape, ...]:
    """Return the shapes of BERT's parameters, kernels as (in, out)."""
    norm, square = [(hidden,), (hidden,)], [(hidden, hidden), (hidden,)]
    wide = [(hidden, 4 * hidden), (4 * hidden,), (4 * hidden, hidden), (hidden,)]
    embeddings = [(vocabulary, hidden), (positions, hidden), (2, hidden), *norm]
    return (*embeddings, *layers * (4 * square + norm + wide + norm), *square)


def parse_size(text: str) -> Workload:
    """Return the workload of one array, of "1e6" or "1000000" parameters."""
    try:
        number = float(text)
        parameters = int(number)
    except (ValueError, OverflowError):
        number, parameters = math.nan, 0
    if number != parameters or not 1 <= parameters <= MOST_PARAMETERS:
        raise HyperParameterError(
            f"size {text!r} is not a whole number of parameters from 1 to {MOST_PARAMETERS}, such as 1e6"
        )
    return Workload(text, array_shapes(parameters))


def parse_tree(text: str) -> Workload:
    """Return the workload of a tree: one of BERTS, or "1000x64" for 1,000 arrays of 64."""
    if text in BERTS:
        return Workload(text, bert_shapes(*BERTS[text]))
    match = re.fullmatch(r"([1-9]\d{0,9})x([1-9]\d{0,9})", text, re.ASCII)
    if match is None or math.prod(map(int, match.groups())) > MOST_PARAMETERS or int(match[1]) > 10**6:
        raise HyperParameterError(f"tree is {text!r}; it must be one of {', '.join(BERTS)}, or of the form 1000x64")
    return Workload(text, int(match[1]) * ((int(match[2]),),))


# which workloads are measured


def count_cores() -> int:
    """Return how many of the machine's cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads() -> int:
    """Return how many threads a step may use here: one a core, and no more than NUMBA_NUM_THREADS."""
    from amos_ref.kernels.cpu.threads import most  # it imports Numba

    return min(count_cores(), most())


def select(
    sizes: Iterable[str],
    trees: Iterable[str],
    slots: Iterable[str],
    dtypes: Iterable[str],
    threads: Iterable[str],
    momentum: bool,
    state: str,
) -> list[Workload]:
    """Return every combination of the entries of all lists.

    Raises
    ------
    HyperParameterError
        If a size, a tree, a kind of slots, a dtype or a number of threads does not exist.
    """
    bases = [*map(parse_size, sizes), *map(parse_tree, trees)]
    numbers = [_parse_threads(text) for text in threads]
    for what, given, known in (("slots", slots, SLOT_NAMES), ("dtype", dtypes, FLOATS)):
        for name in given:
            if name not in known:
                raise HyperParameterError(f"{what} is {name!r}; it must be one of {', '.join(known)}")
    return [
        replace(base, slot=slot, dtype=dtype, threads=n, momentum=momentum, state=state)
        for base, slot, dtype, n in itertools.product(bases, slots, dtypes, numbers)
    ]


def _parse_threads(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= count_cores():
        raise HyperParameterError(
            f"threads {text!r} is not a number from 1 to {count_cores()}, the cores of this process"
        )
    return int(text)


_TREES = ("1000x64", "200x4096", "bert-mini", "bert-base")
# (backend, quick) -> sizes; sizes with a kind of slots; trees.
_PLANS = {
    ("cpu", True): ("1e3 1e5 1e7", (), ("1000x64", "bert-mini")),
    ("cpu", False): ("1e3 1e4 1e5 1e6 1e7 1e8", [("1e5", slot) for slot in SLOT_NAMES[1:]], _TREES),
    ("cuda", True): ("1e3 1e6 64e6", (), ("1000x64", "bert-base")),
    ("cuda", False): ("1e3 1e4 1e5 1e6 1e7 64e6 1e8 2e8", [("2e8", "row")], _TREES),
}


def plan(quick: bool, backend: str = "cpu", algorithm: str = "paper") -> list[Workload]:
    """Return the workloads that are measured without a selection: one thing varies at a time."""
    works = _plan_paper(quick, backend)
    if algorithm == "paper":
        return works
    plain = [work for work in works if not work.momentum and work.state == "param"]
    return [work.as_closed_form(direction) for work in plain for direction in BENCH_DIRECTIONS]


def _plan_paper(quick: bool, backend: str) -> list[Workload]:
    sizes, slots, trees = _PLANS[backend, quick]
    large = parse_size(LARGE[backend])
    first = [*map(parse_size, sizes.split()), *_vary(large, elements=not quick)]
    last = [replace(parse_size(size), slot=slot) for size, slot in slots] + [*map(parse_tree, trees)]
    if backend == "cuda":
        return [replace(work, threads=0) for work in first + last]
    works = [replace(work, threads=count_threads()) for work in first + last]
    works.insert(len(first), replace(large, threads=1))
    return list(dict.fromkeys(works))  # with one thread a workload would be there twice


def _vary(large: Workload, elements: bool) -> Iterator[Workload]:
    """Yield a large array with other slots, with momentum and of other dtypes, and those with element slots too."""
    for slot in SLOT_NAMES[1:]:
        yield replace(large, slot=slot)
    yield replace(large, slot="element", state="float64")
    yield replace(large, momentum=True)
    for dtype in ("float64", "float16", "bfloat16"):
        yield replace(large, dtype=dtype)
        if elements:
            yield replace(large, dtype=dtype, slot="element")
