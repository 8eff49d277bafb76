"""The head of a report: the machine, the versions and the contenders."""

import contextlib
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

import amos_ref
from amos_ref.bench import gpu
from amos_ref.bench.contenders import find_contender
from amos_ref.bench.measure import Settings, read_free_memory
from amos_ref.bench.workloads import count_cores

BENCH_FORMAT = "amos-ref-bench-1"

# To be set before torch and JAX are imported. On the host: how many milliseconds the threads of LLVM's OpenMP spin
# (as long as GNU's do, see torch_peers.SPIN), and that JAX looks for no accelerator. On a GPU: that JAX does not take
# three quarters of the memory at once.
_ENVIRONMENT = {
    "cpu": {"KMP_BLOCKTIME": "10", "JAX_PLATFORMS": "cpu"},
    "cuda": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
}
_PACKAGES = (
    "numpy numba numba-cuda cuda-bindings llvmlite ml_dtypes torch pytorch_optimizer "
    "jax jaxlib jax-cuda13-plugin optax flax jestimator"
)


def begin_report(settings: Settings) -> dict[str, Any]:
    """Return a report in which nothing is measured yet; set the environment for the frameworks of this process."""
    for name, value in _ENVIRONMENT[settings.backend].items():
        os.environ.setdefault(name, value)
    contenders = {name: find_contender(name, settings.backend) for name in settings.contenders}
    return {
        "format": BENCH_FORMAT,
        "machine": describe_machine(settings.backend),
        "versions": find_versions(),
        "settings": settings._asdict(),
        "interrupted": False,
        "contenders": {name: {"about": c.about, "missing": c.find_missing()} for name, c in contenders.items()},
        "workloads": [],
        "start": None,
    }


def find_versions() -> dict[str, str]:
    """Return the version of every installed package on which a figure may depend."""
    versions = {"amos_ref": amos_ref.__version__}
    for name in _PACKAGES.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def describe_machine(backend: str) -> dict[str, Any]:
    """Return what is known of this machine, with its GPU for backend cuda; what the system does not tell is None."""
    memory = read_free_memory()
    device = {"gpu": gpu.describe()} if backend == "cuda" else {}
    return {
        "cpu": _cpu_model() or platform.processor() or None,
        "cores": os.cpu_count(),
        "usable_cores": count_cores(),
        "caches": _cache_sizes(),
        "free_memory_gb": None if memory == float("inf") else round(memory * 1e-9, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **device,
    }


def _cpu_model() -> str | None:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None


def _cache_sizes() -> dict[str, str]:
    """Return the sizes of the first core's caches by name, which Linux tells."""
    sizes = {}
    for place in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((place / name).read_text().strip() for name in ("level", "type", "size"))
            sizes[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = size
    return sizes
