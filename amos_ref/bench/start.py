"""How long fresh processes take to their first step, with compiled kernels on disk and without."""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import amos_ref
from amos_ref.errors import BackendError

STAGES = ("import amos_ref", "import numpy", "Amos(...).init", "first step", "second step")

_CHILD = """
import json, sys, time
rows, start = [], time.perf_counter()
def done():
    global start
    rows.append({"seconds": time.perf_counter() - start, "numba": "numba" in sys.modules})
    start = time.perf_counter()
import amos_ref
done()
import numpy
done()
theta, g = (numpy.full((256, 512), x, numpy.float32) for x in (0.5, 0.01))
opt = amos_ref.Amos(backend=BACKEND)
state = opt.init(theta)
done()
state = opt.step(theta, g, state)
done()
opt.step(theta, g, state)
done()
print(json.dumps(rows))
"""


def measure_start(backend: str, caches: int = 3, runs: int = 3) -> dict[str, Any]:
    """Return the median seconds of each stage, over runs with an empty cache and over runs that find it filled.

    Each of `caches` empty folders serves one run that fills it, and then `runs` more.
    """
    warm, cold = [], []
    for _ in range(caches):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(_run_child(backend, cache))
            warm += [_run_child(backend, cache) for _ in range(runs)]
    imports = [stage for stage, row in zip(STAGES, warm[0], strict=True) if row["numba"]]
    return {
        "array": "float32 (256, 512), tensor slots",
        "stages": list(STAGES),
        "warm": _medians(warm),
        "cold": _medians(cold),
        "runs": len(warm),
        "cold_runs": len(cold),
        "numba_imported_by": imports[0] if imports else None,
    }


def _medians(runs: list[list[dict[str, Any]]]) -> list[float]:
    return [statistics.median(row["seconds"] for row in rows) for rows in zip(*runs, strict=True)]


def _run_child(backend: str, cache: str) -> list[dict[str, Any]]:
    """Run the stages in a fresh process that keeps its compiled kernels in the folder `cache`."""
    home = str(pathlib.Path(amos_ref.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": path}
    code = _CHILD.replace("BACKEND", repr(backend))
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise BackendError(f"a fresh process could not take a step: it says {last!r}")
    return json.loads(done.stdout)
