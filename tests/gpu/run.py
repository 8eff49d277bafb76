"""Run the whole CUDA suite on a GPU: needs numba-cuda, numba, scipy, rich, ml_dtypes, pytest and hypothesis.

    python tests/gpu/run.py [--only tests | --only sanitizer] [pytest's options]

First the tests that the simulator runs too, here at full size, then streams, graphs and the arrays of torch, CuPy and
JAX; then a part of both under compute-sanitizer where that is installed. Where optree is missing, tests/gpu/standin
takes its place. Exits with 0 also where there is no GPU, and says why.
"""

import argparse
import glob
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDIN = ROOT / "tests/gpu/standin"
# Python libraries ask the driver for functions that it may lack: an error of its interface, and none of a kernel.
TOOLS = {"memcheck": ["--report-api-errors", "no"], "initcheck": [], "racecheck": [], "synccheck": []}
FEW = "dtype or wide or borders or finite or captured"  # a sanitizer slows kernels a hundredfold
SANITIZERS = (
    "/usr/local/cuda*/bin",
    "/usr/local/cuda*/compute-sanitizer",
    f"{sys.prefix}/lib/python*/site-packages/nvidia/*/bin",
)


def paths():
    """Where modules are found: the package, and what stands in for one that is missing."""
    found = [str(ROOT)]
    if importlib.util.find_spec("optree") is None:
        print(f"optree is not installed: {STANDIN.relative_to(ROOT)} takes its place")
        found.append(str(STANDIN))
    return found


def sanitizer():
    """Where compute-sanitizer is, or None."""
    folders = [folder for pattern in SANITIZERS for folder in sorted(glob.glob(pattern), reverse=True)]
    return shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(folders))


def main(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--only", choices=("tests", "sanitizer"))
    chosen, options = parser.parse_known_args(arguments)
    more = paths()
    sys.path[:0] = more
    from amos_ref.kernels.cuda import driver as cuda_driver

    print(f"CUDA: {cuda_driver.status()}", flush=True)
    if not cuda_driver.usable() or cuda_driver.simulated():
        print("skipped: the tests of tests/gpu need a GPU")
        return 0
    path = os.pathsep.join([*more, *filter(None, [os.environ.get("PYTHONPATH")])])
    # JAX would take most of the device's memory for itself.
    run = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}}
    # Without doctests, which import two files named conftest; other libraries may warn here of anything.
    options_of_pytest = ("-o", "addopts=-ra", "-p", "no:amos_ref", "-p", "no:cacheprovider", "-W", "default")
    command = [sys.executable, "-m", "pytest", "-q", *options_of_pytest, "tests/kernels/cuda", "tests/gpu"]
    failed = 0 if chosen.only == "sanitizer" else subprocess.call([*command, "--durations=10", *options], **run)
    if chosen.only == "tests":
        return failed
    if sanitizer() is None:
        print("skipped: there is no compute-sanitizer")
        return failed
    for tool, switches in TOOLS.items():
        print(f"compute-sanitizer --tool {tool}", flush=True)
        checked = [sanitizer(), "--tool", tool, *switches, "--error-exitcode", "9", *command, "-k", FEW]
        failed = subprocess.call(checked, **run) or failed
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
