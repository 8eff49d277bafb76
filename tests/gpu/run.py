"""Run all that only a GPU shows: needs numba-cuda, numba, scipy, rich, ml_dtypes, pytest and hypothesis.

    python tests/gpu/run.py [--only PART]... [--seconds N] [--report FILE] [pytest's options]

In this order: tests, those that the simulator runs too, here at full size, then streams, graphs and the arrays of
torch, CuPy and JAX, in several processes where pytest-xdist is installed; memcheck, initcheck, racecheck and synccheck,
a part of the tests under compute-sanitizer where that is installed, all four at once; bench, alone on the device. Each
gets a share of what is left of N seconds (480). One that takes longer is stopped, and its verdict is "out of time", no
pass. FILE, by default gpu_report.json, then says what ran, what it found and how fast steps are.

Where optree is missing, tests/gpu/standin takes its place. Exits with 0 also where there is no GPU, and says why.
"""

import argparse
import datetime
import glob
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDIN = ROOT / "tests/gpu/standin"
FORMAT = "amos-ref-gpu-1"
# Python libraries ask the driver for functions that it may lack: an error of its interface, and none of a kernel.
TOOLS = {"memcheck": ["--report-api-errors", "no"], "initcheck": [], "racecheck": [], "synccheck": []}
PARTS = ("tests", *TOOLS, "bench")
SHARES = {"tests": 3, "tools": 3, "bench": 2}  # of the seconds that are left for these
FEW = "dtype or wide or borders or finite or captured"  # a sanitizer slows kernels a hundredfold
SANITIZERS = (
    "/usr/local/cuda*/bin",
    "/usr/local/cuda*/compute-sanitizer",
    f"{sys.prefix}/lib/python*/site-packages/nvidia/*/bin",
)
# Without doctests, which import two files named conftest; other libraries may warn here of anything.
PYTEST = ("-m", "pytest", "-q", "-o", "addopts=-ra", "-p", "no:amos_ref", "-p", "no:cacheprovider", "-W", "default")
PROCESSES = 12  # each has a context on the device, of half a gigabyte


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


class Part:
    """A process that checks something, with a file of what it finds."""

    def __init__(self, command, environment, *, log=None):
        self.log = None if log is None else open(log, "w", encoding="utf-8")  # noqa: SIM115
        self.started, self.timed_out = time.time(), False
        where = dict(cwd=ROOT, env=environment, stdout=self.log, stderr=self.log and subprocess.STDOUT)
        self.process = subprocess.Popen(command, **where, start_new_session=True)

    def wait(self, seconds):
        """Wait for its end, or end it; return its exit status."""
        try:
            self.process.wait(max(seconds - (time.time() - self.started), 1))
        except subprocess.TimeoutExpired:
            self.timed_out = True
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        if self.log is not None:
            self.log.close()
        return self.process.returncode

    def verdict(self):
        """What the report says of it."""
        words = "out of time" if self.timed_out else "passed" if self.process.returncode == 0 else "failed"
        return dict(verdict=words, exit=self.process.returncode, seconds=round(time.time() - self.started, 1))


def counts(path):
    """How many tests passed, failed and were skipped, by pytest's report; nothing where it wrote none."""
    try:
        suites = ET.parse(path).getroot().iter("testsuite")
    except (OSError, ET.ParseError):
        return {}
    total = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites:
        total = {key: n + int(suite.get(key, 0)) for key, n in total.items()}
    failed = total["failures"] + total["errors"]
    return dict(passed=total["tests"] - failed - total["skipped"], failed=failed, skipped=total["skipped"])


class Run:
    """The parts of a run, one after the other, and its report."""

    def __init__(self, chosen, options, environment):
        self.deadline, self.path = time.time() + chosen.seconds, pathlib.Path(chosen.report)
        self.options, self.environment, self.parts = options, environment, chosen.only or PARTS
        self.done = set()
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="amos-ref-gpu-"))
        self.report = dict(
            format=FORMAT,
            date=str(datetime.datetime.now(datetime.UTC).date()),
            python=platform.python_version(),
            parts={},
        )

    def share(self, part):
        """The seconds that a part may take, of those that are left for it and what is still to come."""
        chosen = {"tools" if name in TOOLS else name for name in self.parts} - self.done
        self.done.add(part)
        return max(self.deadline - time.time(), 0) * SHARES[part] / sum(SHARES[name] for name in chosen)

    def keep(self, name, found):
        self.report["parts"][name] = found
        self.path.write_text(json.dumps(self.report, indent=1) + "\n")
        print(f"{name}: {json.dumps({k: v for k, v in found.items() if k != 'found'})}", flush=True)

    def tests(self):
        many = importlib.util.find_spec("xdist") is not None and "-n" not in self.options
        cores = min(PROCESSES, os.cpu_count() or 1)
        xml = self.folder / "tests.xml"
        extra = [*(["-n", str(cores)] if many else []), f"--junitxml={xml}", "--durations=10", *self.options]
        part = Part([sys.executable, *PYTEST, "tests/kernels/cuda", "tests/gpu", *extra], self.environment)
        part.wait(self.share("tests"))
        self.keep("tests", part.verdict() | counts(xml))

    def tools(self, wanted):
        tool = sanitizer()
        if tool is None:
            for name in wanted:
                self.keep(name, dict(verdict="skipped", why="there is no compute-sanitizer"))
            return
        running, seconds = {}, self.share("tools")
        for name in wanted:
            # The tests fill scratch memory with NaN, which would hide from initcheck what is read before it is written.
            environment = self.environment | ({"AMOS_REF_SCRATCH_AS_IT_IS": "1"} if name == "initcheck" else {})
            xml, log = self.folder / f"{name}.xml", self.folder / f"{name}.log"
            command = [tool, "--tool", name, *TOOLS[name], "--error-exitcode", "9", sys.executable, *PYTEST]
            command += ["tests/kernels/cuda", "-k", FEW, f"--junitxml={xml}"]
            running[name] = Part(command, environment, log=log), xml, log
        for name, (part, xml, log) in running.items():
            part.wait(seconds)
            said = [line for line in log.read_text(errors="replace").splitlines() if "=========" in line]
            summary = [line.strip("= ") for line in said if "SUMMARY" in line]
            self.keep(name, part.verdict() | counts(xml) | dict(summary=summary[-1:]))
            if part.process.returncode:
                print(log.read_text(errors="replace")[-3000:], flush=True)

    def bench(self):
        path, seconds = self.folder / "bench.json", self.share("bench")
        command = [sys.executable, str(ROOT / "tests/gpu/bench.py"), str(path), str(0.85 * seconds)]
        part = Part(command, self.environment)
        part.wait(seconds)
        found = json.loads(path.read_text()) if path.exists() else None
        self.keep("bench", part.verdict() | dict(found=found))

    def all(self):
        """Run what is chosen; return 0 if all that ran passed."""
        if "tests" in self.parts:
            self.tests()
        wanted = [name for name in TOOLS if name in self.parts]
        if wanted:
            self.tools(wanted)
        if "bench" in self.parts:
            self.bench()
        shutil.rmtree(self.folder, ignore_errors=True)
        return 0 if all(part["verdict"] in ("passed", "skipped") for part in self.report["parts"].values()) else 1


def main(arguments):
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--seconds", type=float, default=480.0)
    parser.add_argument("--report", default="gpu_report.json")
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
    return Run(chosen, options, os.environ | {"PYTHONPATH": path, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}).all()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
