"""Who takes part in the benchmark: a table of contenders by backend and name, and what a contender consists of."""

import importlib
import importlib.util
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amos_ref.bench import gpu
from amos_ref.bench.timing import Clock, OnHost, Rotation, Stepper, Timed, count_copies
from amos_ref.bench.workloads import Workload

OURS, ROOF = "amos_ref", "roof"
#: Backend -> name -> module and name of a contender. The module is imported when the contender is asked for.
CONTENDERS = {
    "cpu": {
        OURS: "cpu:CPU_KERNELS",
        ROOF: "roof:MEMORY_ROOF",
        "bound": "cpu:BOUND",
        "page": "cpu:PAGE",
        "paper": "cpu:CPU_PAPER",
        "torch-fused": "torch_peers:FUSED",
        "torch-foreach": "torch_peers:FOREACH",
        "torch-port": "torch_peers:TORCH_PORT",
        "pytorch_optimizer": "torch_peers:AMOS",
        "jestimator": "jax_peers:JESTIMATOR",
        "optax": "jax_peers:OPTAX",
        "port-optax": "jax_peers:OPTAX_PORT",
    },
    "cuda": {
        OURS: "cuda:CUDA_KERNELS",
        ROOF: "cuda:COPY",
        "paper": "cuda:GPU_PAPER",
        "torch-fused": "torch_peers:GPU_FUSED",
        "torch-foreach": "torch_peers:GPU_FOREACH",
        "torch-eager": "torch_peers:GPU_EAGER",
        "pytorch_optimizer": "torch_peers:GPU_AMOS",
        "jestimator": "jax_peers:GPU_JESTIMATOR",
        "optax": "jax_peers:GPU_OPTAX",
        "port-optax": "jax_peers:GPU_OPTAX_PORT",
    },
}
#: Peers that one algorithm alone is compared with: others' paper Amos, and for the closed form this package's.
ONLY_WITH = {"paper": "closed-form", "pytorch_optimizer": "paper", "jestimator": "paper"}

# Every optimizer gets these options, as far as it has them; their values do not change what a step costs.
RATE, ETA, BETA, HALF_LIFE = 1e-3, 0.5, 0.999, 1e3


@dataclass(frozen=True)
class Contender:
    """One optimizer: how it is built for a workload, how it is timed, and what it needs."""

    about: str
    build: Callable[[Workload], Stepper]
    clock: Clock | None = None  # of the device on which it steps copies in turn; None: it steps on the host
    packages: Mapping[str, str] = field(default_factory=dict)  # what must be importable -> how pip calls it
    find_no_gpu: Callable[[], str | None] = lambda: None  # why its packages, though installed, find no GPU
    # Why it cannot step a workload, of which so many arrays at most may be compiled as one program.
    find_limit: Callable[[Workload, int], str | None] = lambda work, most_compiled: None
    count_moved_bytes: Callable[[Workload], int] = operator.attrgetter("bytes")  # bytes that a step must read and write
    count_array_bytes: Callable[[Workload], int] = operator.attrgetter("array_bytes")  # bytes of its arrays
    extra_arrays: int = 0  # arrays of the parameters' size that a step allocates and frees
    warm_up: int = 1  # steps in which it compiles and allocates
    pause: float = 0.0  # seconds for which its threads, if there are several, keep a core busy after a step
    traced: bool = False  # whether tracemalloc sees what a step allocates

    def find_missing(self) -> str | None:
        """Return which packages are missing, with the line that installs them, or that they find no GPU."""
        absent = [pip for name, pip in self.packages.items() if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else self.find_no_gpu()

    def count_copies(self, work: Workload) -> int:
        """Return how many copies of its arrays it steps in turn."""
        return 1 if self.clock is None else count_copies(self.count_array_bytes(work), gpu.read_l2_bytes())

    def count_memory(self, work: Workload) -> tuple[int, int]:
        """Return how many bytes it holds, and how many more while it takes a step."""
        held = self.count_copies(work) * self.count_array_bytes(work)
        return held, self.extra_arrays * work.parameters * work.itemsize

    def prepare(self, work: Workload) -> Timed:
        """Build all copies, and return them ready to be timed, with the steps of the warm-up taken."""
        copies = [self.build(work) for _ in range(self.count_copies(work))]
        pause = self.pause if work.threads > 1 else 0.0
        timed = OnHost(copies[0], pause) if self.clock is None else Rotation(copies, self.clock)
        for _ in range(self.warm_up * len(copies)):
            timed.run()
        return timed


def list_peers(backend: str, algorithm: str = "paper") -> tuple[str, ...]:
    """Return the names of the contenders with which the kernels of a backend are compared."""
    peers = (name for name in CONTENDERS[backend] if name not in (OURS, ROOF))
    return tuple(name for name in peers if ONLY_WITH.get(name, algorithm) == algorithm)


def find_contender(name: str, backend: str) -> Contender:
    """Return a contender by its name, importing its module."""
    module, _, attribute = CONTENDERS[backend][name].partition(":")
    return getattr(importlib.import_module(f"amos_ref.bench.{module}"), attribute)


# what contenders have in common


def limit_state(work: Workload, most_compiled: int) -> str | None:
    """Return that peers keep their state in the parameters' dtype, if the workload asks for another.

    The closed form has its moments in float64 without being asked.
    """
    asked = work.state != "param" and work.algorithm == "paper"
    return "keeps its state in the parameters' dtype" if asked else None


def find_no_gpu(package: str, sees_gpu: Callable[[], bool]) -> str | None:
    """Return that a package, as it is installed, finds no GPU; None if it finds one."""
    from amos_ref.conformance.ports.failures import first_line

    try:
        return None if sees_gpu() else f"not installed for a GPU: this {package} finds none"
    except Exception as error:  # of somebody else's code, while it is imported
        return f"not installed as it should be: {first_line(error)}"


def count_arrays(count: int) -> Callable[[Workload], int]:
    """Return a function that tells the bytes of so many arrays of the parameters' size."""
    return lambda work: count * work.parameters * work.itemsize


# AdamW holds g, theta, m and v; a step reads g, and reads and writes the others.
ADAMW: dict[str, Any] = {"count_moved_bytes": count_arrays(7), "count_array_bytes": count_arrays(4)}
