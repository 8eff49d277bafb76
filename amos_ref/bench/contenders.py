"""What is timed: one call is one step. Here are this package's own; the others are in `peers` and `roof`.

Those of a GPU are in `cuda` and `cuda_peers`.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

import amos_ref
from amos_ref.bench.workloads import MOMENTUM, Workload, drawn, slot_shape
from amos_ref.errors import HyperParameterError

OURS, ROOF = "amos_ref", "roof"
#: Backend -> name -> class. What cannot be imported here is named as not installed.
CONTENDERS = {
    "cpu": {
        OURS: "amos_ref.bench.contenders:Kernels",
        ROOF: "amos_ref.bench.roof:Roof",
        "page": "amos_ref.bench.contenders:Page",
        "torch-fused": "amos_ref.bench.peers:TorchFused",
        "torch-foreach": "amos_ref.bench.peers:TorchForeach",
        "pytorch_optimizer": "amos_ref.bench.peers:PytorchOptimizer",
        "jestimator": "amos_ref.bench.peers:Jestimator",
        "optax": "amos_ref.bench.peers:OptaxAdamW",
    },
    "cuda": {
        OURS: "amos_ref.bench.cuda:Kernels",
        ROOF: "amos_ref.bench.cuda:Copy",
        "torch-fused": "amos_ref.bench.cuda_peers:TorchFused",
        "torch-foreach": "amos_ref.bench.cuda_peers:TorchForeach",
        "torch-eager": "amos_ref.bench.cuda_peers:TorchEager",
        "pytorch_optimizer": "amos_ref.bench.cuda_peers:PytorchOptimizer",
        "jestimator": "amos_ref.bench.cuda_peers:Jestimator",
        "optax": "amos_ref.bench.cuda_peers:OptaxAdamW",
    },
}

# What every optimizer is given, as far as it has it; for none of them do the numbers change what a step does.
RATE, ETA, BETA = 1e-3, 0.5, 0.999


class Contender:
    """One optimizer made ready for a workload."""

    about = ""
    packages: ClassVar[dict[str, str]] = {}  # what must be importable -> how pip calls it
    kept, extra = 2, 0  # arrays of the parameters' size that it holds, and that a step makes and gives back
    settles = 0.0  # seconds after a step for which its threads still keep a core busy
    traced = False  # whether what a step allocates can be seen
    copies: int | None = None  # how many times it has its arrays, where they are stepped by turns

    def __init__(self, work: Workload) -> None:
        self.work = work

    @classmethod
    def missing(cls) -> str | None:
        """Return the install line of what it needs and is not there."""
        absent = [pip for name, pip in cls.packages.items() if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else None

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        """Say why it cannot do this workload; `most_compiled` arrays at most are to be compiled as one program."""
        return "keeps its state in the parameters' dtype" if work.state != "param" else None

    @classmethod
    def bytes(cls, work: Workload) -> int:
        """What a step of this algorithm must read and write."""
        return work.bytes

    @classmethod
    def held(cls, work: Workload) -> int:
        """Return how many bytes its arrays have: those of the parameters' size, and v, b and m."""
        state = (2 * work.slots + work.momentum * work.parameters) * work.state_itemsize
        return cls.kept * work.parameters * work.itemsize + state

    @classmethod
    def needs(cls, work: Workload) -> tuple[int, int]:
        """Return how many bytes it holds, and how many more while it takes a step."""
        return cls.held(work), cls.extra * work.parameters * work.itemsize

    @classmethod
    def ready(cls, work: Workload) -> "Contender":
        """Return it made and warm."""
        made = cls(work)
        made.warm_up()
        return made

    def run(self) -> None:
        """Take one step, and be done with it."""
        raise NotImplementedError

    def warm_up(self) -> None:
        """Let the first steps compile and allocate what they do."""
        self.run()

    def time(self) -> float:
        """Return the seconds of one step; what has a better clock than the host's overrides this."""
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def taken(self, calls: int) -> int:
        """Return how many steps `steps` takes."""
        return calls + 1

    def steps(self, calls: int) -> float:
        """Return the seconds of one step, of several behind one that fills the caches and wakes threads."""
        self.time()
        return sum(self.time() for _ in range(calls)) / calls

    def values(self) -> dict[str, np.ndarray]:
        """Return the parameters by name."""
        raise NotImplementedError


class Kernels(Contender):
    """This package's compiled CPU kernels."""

    about = "amos_ref.Amos.step, the CPU kernels"
    backend = "cpu"
    traced = True

    def __init__(self, work: Workload) -> None:
        super().__init__(work)
        self.params, self.grads = map(self.placed, drawn(work))
        self.opt = amos_ref.Amos(
            RATE,
            ETA,
            lambda name, shape: slot_shape(work.slot, shape),
            beta=BETA,
            momentum=MOMENTUM if work.momentum else None,
            state_dtype=work.state,
            backend=self.backend,
        )
        self.state = self.opt.init(self.params)

    def placed(self, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return the arrays where the backend steps them."""
        return arrays

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        return None

    def run(self) -> None:
        self.state = self.opt.step(self.params, self.grads, self.state)

    def values(self) -> dict[str, np.ndarray]:
        return self.params


class Page(Kernels):
    """The page in NumPy, on one thread."""

    about = "the page in NumPy, one thread"
    backend = "numpy"
    extra = 20
    most = 1_000_000

    @classmethod
    def unable(cls, work: Workload, most_compiled: int) -> str | None:
        slow = work.parameters > cls.most
        return f"written to be read; measured up to {cls.most} parameters" if slow else None


def peers(backend: str) -> tuple[str, ...]:
    """Return the names of those whom the kernels of a backend are compared with."""
    return tuple(name for name in CONTENDERS[backend] if name not in (OURS, ROOF))


def contender(name: str, backend: str) -> type[Contender]:
    """Return the class of a contender."""
    module, _, attribute = CONTENDERS[backend][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def described(names: Iterable[str], backend: str) -> dict[str, dict[str, str | None]]:
    """Return what each contender is, and the install line of what it lacks here."""
    found = {name: contender(name, backend) for name in names}
    return {name: {"about": cls.about, "missing": cls.missing()} for name, cls in found.items()}


def versions() -> dict[str, str]:
    """Return the version of every package that a figure may depend on."""
    found = {"amos_ref": amos_ref.__version__}
    packages = "numpy numba numba-cuda cuda-bindings llvmlite ml_dtypes torch pytorch_optimizer"
    packages += " jax jaxlib jax-cuda13-plugin optax flax jestimator"
    for name in packages.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def limited(threads: int) -> contextlib.AbstractContextManager[None]:
    """Let the kernels use so many threads meanwhile; 0 is a GPU's, which takes none."""
    if not threads:
        return contextlib.nullcontext()
    from amos_ref.kernels.cpu.threads import limited, most

    if threads > most():
        raise HyperParameterError(f"{threads} threads: NUMBA_NUM_THREADS is {most()}")
    return limited(threads)
