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

_STAGES = {  # name -> code
    "import amos_ref": "import amos_ref",
    "import numpy": "import numpy",
    "Amos(...).init": """
theta, g = (numpy.full((256, 512), x, numpy.float32) for x in (0.5, 0.01))
opt = amos_ref.Amos(backend=backend)
state = opt.init(theta)""",
    "first step": "state = opt.step(theta, g, state)",
    "second step": "opt.step(theta, g, state)",
}

_CHILD = """
import json, sys, time
stages, names = json.loads(sys.argv[1]), {"backend": sys.argv[2]}
rows, start = [], time.perf_counter()
for code in stages:
    exec(code, names)
    rows.append({"seconds": time.perf_counter() - start, "numba": "numba" in sys.modules})
    start = time.perf_counter()
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
    imports = [stage for stage, row in zip(_STAGES, warm[0], strict=True) if row["numba"]]
    return {
        "array": "float32 (256, 512), tensor slots",
        "stages": list(_STAGES),
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
    command = [sys.executable, "-c", _CHILD, json.dumps(list(_STAGES.values())), backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise BackendError(f"a fresh process could not take a step: it says {last!r}")
    return json.loads(done.stdout)
