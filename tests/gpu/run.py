"""Run the whole CUDA suite on a GPU: needs numba-cuda, numba, optree, ml_dtypes, pytest and hypothesis.

    python tests/gpu/run.py [pytest's options]

First the tests that the simulator runs too, here at full size, then streams, graphs and the arrays of torch, CuPy and
JAX, then both under compute-sanitizer where that is installed. Exits with 0 also where there is no GPU, and says why.
"""

import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ("memcheck", "racecheck", "synccheck")
FEW = "dtype or wide or finite or captured"  # a sanitizer slows kernels a hundredfold


def main(options):
    sys.path.insert(0, str(ROOT))
    from amos_ref.kernels import cuda_driver

    print(f"CUDA: {cuda_driver.status()}", flush=True)
    if not cuda_driver.usable() or cuda_driver.simulated():
        print("skipped: the tests of tests/gpu need a GPU")
        return 0
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cuda", "tests/gpu", *options]
    failed = subprocess.call(command, cwd=ROOT, env=environment)
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    if sanitizer is None:
        print("skipped: there is no compute-sanitizer")
        return failed
    for tool in TOOLS:
        print(f"compute-sanitizer --tool {tool}", flush=True)
        checked = [sanitizer, "--tool", tool, "--error-exitcode", "9", *command[: -len(options) or None], "-k", FEW]
        failed = subprocess.call(checked, cwd=ROOT, env=environment) or failed
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
