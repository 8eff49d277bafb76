"""Where the figures come from: the machine."""

import contextlib
import os
import pathlib
import platform
from typing import Any

from amos_ref.bench import gpu
from amos_ref.bench.measure import free_memory
from amos_ref.bench.workloads import cores


def machine(backend: str) -> dict[str, Any]:
    """Return what is known of this machine, and of its GPU for that backend; what the system does not say is None."""
    memory = free_memory()
    device = {"gpu": gpu.described()} if backend == "cuda" else {}
    return {
        "cpu": _model() or platform.processor() or None,
        "cores": os.cpu_count(),
        "usable_cores": cores(),
        "caches": _caches(),
        "free_memory_gb": None if memory == float("inf") else round(memory * 1e-9, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **device,
    }


def _model() -> str | None:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None


def _caches() -> dict[str, str]:
    """Return the sizes of the first core's caches by name, as Linux has them."""
    found = {}
    for place in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((place / name).read_text().strip() for name in ("level", "type", "size"))
            found[f"L{level}{ {'Data': 'd', 'Instruction': 'i'}.get(kind, '') }"] = size
    return found
