"""Run all that only a GPU shows: needs numba-cuda, numba, scipy, rich, ml_dtypes, pytest and hypothesis.

    python tests/gpu/run.py [--only PART]... [--seconds N] [--report FILE] [pytest's options]

All at once: tests, those that the simulator runs too, here at full size, then streams, graphs and the arrays of torch,
CuPy and JAX, in several processes where pytest-xdist is installed; memcheck, initcheck, racecheck and synccheck, a part
of the tests under compute-sanitizer where that is installed; and bench compiles what it is going to time. Then bench,
alone on the device. The first get two thirds of N seconds (480), bench what is left. What takes longer is stopped, and
its verdict is "out of time", no pass. FILE, by default gpu_report.json, then says what ran, what it found and how fast
steps are.

Where optree is missing, tests/gpu/standin takes its place. Exits with 0 also where there is no GPU, and says why.
"""

import argparse
import contextlib
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
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parents[2]
STANDIN = ROOT / "tests/gpu/standin"
FORMAT = "amos-ref-gpu-1"
# Python libraries ask the driver for functions that it may lack: an error of its interface, and none of a kernel.
TOOLS = {"memcheck": ["--report-api-errors", "no"], "initcheck": [], "racecheck": [], "synccheck": []}
PARTS = ("tests", *TOOLS, "bench")
CHECKS = 2 / 3  # of the seconds; the bench has the others
LAST = 10  # seconds before the end, after which the bench begins no workload
FEW = "wide or borders or untouched or power"  # a sanitizer slows kernels a hundredfold
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
    """A process that checks something, with a file of what it finds; one can be told on its input to begin."""

    def __init__(self, command, environment, *, log=None, told=False):
        self.log = None if log is None else open(log, "w", encoding="utf-8")  # noqa: SIM115
        self.started, self.timed_out = time.time(), False
        where = dict(cwd=ROOT, env=environment, stdout=self.log, stderr=self.log and subprocess.STDOUT)
        where |= dict(stdin=subprocess.PIPE if told else subprocess.DEVNULL, start_new_session=True)
        self.process = subprocess.Popen(command, **where)

    def begin(self, seconds):
        """Tell it that it may begin, and for how long; its seconds count from now."""
        self.started = time.time()
        with contextlib.suppress(OSError), self.process.stdin as told:  # it may have ended: its exit status says so
            told.write(f"{seconds}\n".encode())

    def wait(self, until):
        """Wait for its end, or end it at a time."""
        try:
            self.process.wait(max(until - time.time(), 1))
        except subprocess.TimeoutExpired:
            self.timed_out = True
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.seconds = round(time.time() - self.started, 1)
        if self.log is not None:
            self.log.close()

    def verdict(self):
        """What the report says of it."""
        words = "out of time" if self.timed_out else "passed" if self.process.returncode == 0 else "failed"
        return dict(verdict=words, exit=self.process.returncode, seconds=self.seconds)


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
    """The parts of a run, and its report."""

    def __init__(self, chosen, options, environment):
        self.seconds, self.began, self.path = chosen.seconds, time.time(), pathlib.Path(chosen.report)
        self.options, self.environment, self.parts = options, environment, chosen.only or PARTS
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="amos-ref-gpu-"))
        self.report = dict(
            format=FORMAT,
            date=str(datetime.datetime.now(datetime.UTC).date()),
            python=platform.python_version(),
            parts={},
        )

    def keep(self, name, found):
        self.report["parts"][name] = found
        self.path.write_text(json.dumps(self.report, indent=1) + "\n")
        print(f"{name}: {json.dumps({k: v for k, v in found.items() if k != 'found'})}", flush=True)

    def file(self, name):
        return self.folder / name

    def start_tests(self):
        many = importlib.util.find_spec("xdist") is not None and "-n" not in self.options
        cores = min(PROCESSES, os.cpu_count() or 1)
        xml = f"--junitxml={self.file('tests.xml')}"
        extra = [*(["-n", str(cores)] if many else []), xml, "--durations=10", *self.options]
        # What only a GPU shows comes first: the time may run out.
        return Part([sys.executable, *PYTEST, "tests/gpu", "tests/kernels/cuda", *extra], self.environment)

    def start_tool(self, tool, name):
        # The tests fill scratch memory with NaN, which would hide from initcheck what is read before it is written.
        environment = self.environment | ({"AMOS_REF_SCRATCH_AS_IT_IS": "1"} if name == "initcheck" else {})
        command = [tool, "--tool", name, *TOOLS[name], "--error-exitcode", "9", sys.executable, *PYTEST]
        command += ["tests/kernels/cuda", "-k", FEW, f"--junitxml={self.file(f'{name}.xml')}"]
        return Part(command, environment, log=self.file(f"{name}.log"))

    def start_bench(self):
        command = [sys.executable, str(ROOT / "tests/gpu/bench.py"), str(self.file("bench.json")), "wait"]
        return Part(command, self.environment, told=True)

    def end_tests(self, part):
        self.keep("tests", part.verdict() | counts(self.file("tests.xml")))

    def end_tool(self, name, part):
        log = self.file(f"{name}.log").read_text(errors="replace")
        summary = [line.strip("= ") for line in log.splitlines() if "=========" in line and "SUMMARY" in line]
        self.keep(name, part.verdict() | counts(self.file(f"{name}.xml")) | dict(summary=summary[-1:]))
        if part.process.returncode:
            print(log[-3000:], flush=True)

    def all(self):
        """Run what is chosen; return 0 if all that ran passed."""
        until, tool = self.began + self.seconds * (CHECKS if "bench" in self.parts else 1), sanitizer()
        bench = self.start_bench() if "bench" in self.parts else None
        tests = self.start_tests() if "tests" in self.parts else None
        wanted = [name for name in TOOLS if name in self.parts]
        tools = {name: self.start_tool(tool, name) for name in wanted} if tool else {}
        with ThreadPoolExecutor(len(PARTS)) as pool:
            list(pool.map(lambda part: part.wait(until), filter(None, [tests, *tools.values()])))
        if tests:
            self.end_tests(tests)
        for name in wanted:
            if tool:
                self.end_tool(name, tools[name])
            else:
                self.keep(name, dict(verdict="skipped", why="there is no compute-sanitizer"))
        if bench:
            end = self.began + self.seconds
            bench.begin(end - time.time() - LAST)
            bench.wait(end)
            path = self.file("bench.json")
            self.keep("bench", bench.verdict() | dict(found=json.loads(path.read_text()) if path.exists() else None))
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
