"""Who takes part in the benchmark: a table of contenders by backend and name, and what a contender consists of."""

import importlib
import importlib.util
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from amos_ref.bench import gpu
from amos_ref.bench.timing import Clock, OnHost, Rotation, Stepper, Timed, count_copies
from amos_ref.bench.workloads import Workload

OURS, ROOF = "amos_ref", "roof"
#: Backend -> name -> contender. Its module is imported when it is asked for.
CONTENDERS = {
    "cpu": {
        OURS: "amos_ref.bench.cpu:KERNELS",
        ROOF: "amos_ref.bench.roof:ROOF",
        "page": "amos_ref.bench.cpu:PAGE",
        "torch-fused": "amos_ref.bench.peers:TORCH_FUSED",
        "torch-foreach": "amos_ref.bench.peers:TORCH_FOREACH",
        "pytorch_optimizer": "amos_ref.bench.peers:PYTORCH_OPTIMIZER",
        "jestimator": "amos_ref.bench.peers:JESTIMATOR",
        "optax": "amos_ref.bench.peers:OPTAX",
    },
    "cuda": {
        OURS: "amos_ref.bench.cuda:KERNELS",
        ROOF: "amos_ref.bench.cuda:COPY",
        "torch-fused": "amos_ref.bench.cuda_peers:TORCH_FUSED",
        "torch-foreach": "amos_ref.bench.cuda_peers:TORCH_FOREACH",
        "torch-eager": "amos_ref.bench.cuda_peers:TORCH_EAGER",
        "pytorch_optimizer": "amos_ref.bench.cuda_peers:PYTORCH_OPTIMIZER",
        "jestimator": "amos_ref.bench.cuda_peers:JESTIMATOR",
        "optax": "amos_ref.bench.cuda_peers:OPTAX",
    },
}

# Every optimizer gets these options, as far as it has them; their values do not change what a step costs.
RATE, ETA, BETA = 1e-3, 0.5, 0.999


@dataclass(frozen=True)
class Contender:
    """One optimizer: how it is built for a workload, how it is timed, and what it needs.

    A limit takes a workload and the most arrays that may be compiled as one program; it returns the reason why the
    contender cannot step that workload, or None.
    """

    about: str
    build: Callable[[Workload], Stepper]
    clock: Clock | None = None  # of the device on which it steps copies in turn; None: it steps on the host
    packages: Mapping[str, str] = field(default_factory=dict)  # what must be importable -> how pip calls it
    find_no_gpu: Callable[[], str | None] = lambda: None  # why its packages, though installed, find no GPU
    limits: tuple[Callable[[Workload, int], str | None], ...] = ()
    moved: Callable[[Workload], int] = operator.attrgetter("bytes")  # bytes that a step must read and write
    held: Callable[[Workload], int] = operator.attrgetter("held")  # bytes of its arrays
    extra: int = 0  # arrays of the parameters' size that a step allocates and frees
    warm_up: int = 1  # steps in which it compiles and allocates
    pause: float = 0.0  # seconds for which its threads, if there are several, keep a core busy after a step
    traced: bool = False  # whether tracemalloc sees what a step allocates

    def find_missing(self) -> str | None:
        """Return which packages are missing, with the line that installs them, or that they find no GPU."""
        absent = [pip for name, pip in self.packages.items() if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else self.find_no_gpu()

    def find_limit(self, work: Workload, most_compiled: int) -> str | None:
        """Return why it cannot step a workload, or None."""
        reasons = (limit(work, most_compiled) for limit in self.limits)
        return next((reason for reason in reasons if reason), None)

    def count_copies(self, work: Workload) -> int:
        """Return how many copies of its arrays it steps in turn."""
        return 1 if self.clock is None else count_copies(self.held(work), gpu.l2_bytes())

    def count_memory(self, work: Workload) -> tuple[int, int]:
        """Return how many bytes it holds, and how many more while it takes a step."""
        return self.count_copies(work) * self.held(work), self.extra * work.parameters * work.itemsize

    def prepare(self, work: Workload) -> Timed:
        """Build all copies, and return them ready to be timed, with the steps of the warm-up taken."""
        copies = [self.build(work) for _ in range(self.count_copies(work))]
        pause = self.pause if work.threads > 1 else 0.0
        timed = OnHost(copies[0], pause) if self.clock is None else Rotation(copies, self.clock)
        for _ in range(self.warm_up * len(copies)):
            timed.run()
        return timed


def refuse_other_state(work: Workload, most_compiled: int) -> str | None:
    """The limit of every peer: its state has the parameters' dtype."""
    return "keeps its state in the parameters' dtype" if work.state != "param" else None


def list_peers(backend: str) -> tuple[str, ...]:
    """Return the names of the contenders with which the kernels of a backend are compared."""
    return tuple(name for name in CONTENDERS[backend] if name not in (OURS, ROOF))


def find_contender(name: str, backend: str) -> Contender:
    """Return a contender by its name, importing its module."""
    module, _, attribute = CONTENDERS[backend][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def describe(names: Iterable[str], backend: str) -> dict[str, dict[str, str | None]]:
    """Return what each contender is, and which of its packages are missing here."""
    contenders = {name: find_contender(name, backend) for name in names}
    return {name: {"about": c.about, "missing": c.find_missing()} for name, c in contenders.items()}
