"""Real ranks of MPI, as processes with a time limit: the example, errors, and a rank that is killed while it saves."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import amos_ref

ROOT = pathlib.Path(__file__).parents[2]
PLACES = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
MPIEXEC = shutil.which("mpiexec", path=PLACES)


def mpi_works():
    try:
        import mpi4py  # noqa: F401
    except ImportError:
        return False
    return MPIEXEC is not None


pytestmark = pytest.mark.skipif(
    not mpi_works() and os.environ.get("AMOS_REF_MPI") != "needed", reason="no MPI; `nox -s mpi` installs one"
)


def mpiexec(ranks, *args, fails=False):
    env = {**os.environ, "NUMBA_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_on_three_ranks_then_two_then_one_process(tmp_path):
    path, script = tmp_path / "run.amos", ROOT / "examples" / "mpi_training.py"
    assert "over 3 ranks, 1 of them cut>, now at step 5" in mpiexec(3, script, path, "--steps", 5)
    assert "over 2 ranks, 1 of them cut>, now at step 9" in mpiexec(2, script, path, "--steps", 4)
    done = subprocess.run(
        [sys.executable, script, path, "--steps", "3", "--compare"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines() == ["one process, now at step 12", "all bits are those of one process"], done.stderr


STEPS = """
import os, signal, sys
import numpy as np
from mpi4py import MPI
import amos_ref
from amos_ref.mpi import Layout, Sharded
from amos_ref.storage import files

comm = MPI.COMM_WORLD
slots = {"w": "tensor", "k": "(1, SHAPE[1])"}
opt = amos_ref.Amos(0.1, eta="init", momentum=0.5, slot_shape=slots, backend=BACKEND)
shapes = {"w": (70000,), "k": (700, 6)}
layout = Layout.even(shapes, comm.size, opt, "each")
full = {name: np.linspace(1.0, 2.0, np.prod(shape)).reshape(shape) for name, shape in shapes.items()}
params, grads = layout.pieces(full, comm.rank), layout.pieces(full, comm.rank)
sharded = Sharded(opt, layout)
state = sharded.init(params)
"""
ERRORS = """
broken = dict(grads)
if comm.rank == 1:
    broken["w"] = broken["w"].copy()
    broken["w"][-1] = np.nan
try:
    sharded.step(params, broken, state)
except amos_ref.errors.NonFiniteError as error:
    sys.stdout.write(f"{comm.rank} {error}\\n")
state = sharded.step(params, grads, state)
if comm.rank == 0:
    print("step", state.count)
"""
KILL = """
from amos_ref.mpi.ranks import Ranks
path, rank, nth = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
calls = 0
def counted(call):
    def count(*args, **how):
        kill()
        result = call(*args, **how)
        kill()
        return result
    return count
def kill():
    global calls
    calls += 1
    if comm.rank == rank and calls == nth:
        os.kill(os.getpid(), signal.SIGKILL)
state = sharded.step(params, grads, state)
Ranks._do, files.write, os.fsync, os.replace = map(counted, (Ranks._do, files.write, os.fsync, os.replace))
sharded.save(path, params, state)
sys.stdout.write(f"{calls} calls of rank {comm.rank}.\\n")
"""
FULL = """
import resource
path, limit = sys.argv[1], int(sys.argv[2])
state = sharded.step(params, grads, state)
if comm.rank == 0:  # Python ignores SIGXFSZ
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    sharded.save(path, params, state)
except amos_ref.errors.StorageError as error:
    sys.stdout.write(f"{comm.rank} {error}\\n")
assert sharded.step(params, grads, state).count == 2
"""
INTERRUPT = """
from amos_ref.mpi import load
from amos_ref.mpi.ranks import Ranks
path, rank = sys.argv[1], int(sys.argv[2])
left, right = 0, Ranks._do
def do(self, *args, **how):
    global left
    left -= 1
    if left == 0 and comm.rank == rank:
        os.kill(os.getpid(), signal.SIGINT)
    right(self, *args, **how)
Ranks._do = do
calls = {
    "Sharded": lambda: Sharded(opt, layout),
    "init": lambda: sharded.init(params),
    "update": lambda: sharded.update(grads, state, params),
    "trace": lambda: sharded.trace(grads, state, params),
    "step": lambda: sharded.step(params, grads, state),
    "save": lambda: sharded.save(path, params, state),
    "load": lambda: load(path, layout),
}
for name, call in calls.items():
    for nth in range(1, 100):
        left, came, result = nth, 0, None
        try:
            result = call()
        except KeyboardInterrupt as error:
            came, result = 1, getattr(error, "amos_state", None)
        over, left = comm.bcast(left > 0, root=rank), 0
        assert came == (comm.rank == rank and not over), (name, nth, came)
        if name == "step":
            state = result
        if over:
            break
    if comm.rank == 0:
        print(name, "was interrupted", nth - 1, "times", flush=True)
sharded.save(path, params, state)
"""
RAISE = """
if comm.rank == 1:
    raise RuntimeError("this rank alone")
sharded.step(params, grads, state)
"""


FOR_EVER = """
sys.stdout.write(f"pid {os.getpid()}\\n")
sys.stdout.flush()
while True:
    state = sharded.step(params, grads, state)
    sharded.save(sys.argv[1], params, state)
"""
STOPS = """
sharded = Sharded(opt, layout, timeout=2)
comm.Barrier()
if comm.rank == 1:
    os.kill(os.getpid(), signal.SIGSTOP)
sharded.save("/nowhere/at/all", params, state)
"""


@pytest.fixture
def script(tmp_path):
    def write(text, backend="numpy"):
        path = tmp_path / "script.py"
        path.write_text(STEPS.replace("BACKEND", repr(backend)) + text, encoding="utf-8")
        return path

    return write


def one_process(path, steps):
    """The bytes of the file that one process writes after so many steps of the same."""
    opt = amos_ref.Amos(
        0.1, eta="init", momentum=0.5, slot_shape={"w": "tensor", "k": "(1, SHAPE[1])"}, backend="numpy"
    )
    shapes = {"w": (70000,), "k": (700, 6)}
    full = {name: np.linspace(1.0, 2.0, int(np.prod(shape))).reshape(shape) for name, shape in shapes.items()}
    params, state = {name: a.copy() for name, a in full.items()}, opt.init(full)
    for _ in range(steps):
        state = opt.step(params, full, state)
    amos_ref.save(path, params, state, opt)
    return path.read_bytes()


def test_a_gradient_that_is_not_finite_is_named_on_every_rank(script):
    text = mpiexec(3, script(ERRORS, "auto"))
    lines = [line for line in text.splitlines() if "nan" in line]
    assert sorted(line[0] for line in lines) == ["0", "1", "2"]
    assert len({line[2:] for line in lines}) == 1
    assert "step 1" in text


def test_a_rank_that_raises_ends_the_job(script):
    assert "this rank alone" in mpiexec(2, script(RAISE), fails=True)


def test_fifty_kills_of_a_rank_that_saves_leave_the_old_file_or_the_new_one(script, tmp_path):
    """Before and behind every call to the other rank and to the disk, on each rank in turn."""
    program, path = script(KILL), tmp_path / "run.amos"
    old, new = one_process(tmp_path / "old", 0), one_process(tmp_path / "new", 1)
    text = mpiexec(2, program, path, 9, 0)
    assert path.read_bytes() == new
    counts = [int(re.search(rf"(\d+) calls of rank {rank}\.", text)[1]) for rank in (0, 1)]
    found = []
    for kill in range(50):
        rank, each = kill % 2, kill // 2
        path.write_bytes(old)
        nth = 1 + each * (counts[rank] - 1) // 24  # 25 of each, the first and the last among them
        mpiexec(2, program, path, rank, nth, fails=True)
        assert path.read_bytes() in (old, new)
        found.append(path.read_bytes() == new)
        for left in tmp_path.glob(".amos-ref-*.tmp"):
            left.unlink()
    assert {False, True} == set(found)


def test_a_disk_that_is_full_is_an_error_on_every_rank(script, tmp_path):
    program, path = script(FULL), tmp_path / "run.amos"
    old = one_process(path, 0)
    for limit in (0, 100, 1_000_000):
        lines = [line for line in mpiexec(3, program, path, limit).splitlines() if "cannot write" in line]
        assert sorted(line[0] for line in lines) == ["0", "1", "2"]
        assert {line[2:] for line in lines} == {f"rank 0: cannot write {str(path)!r}: File too large"}
        assert path.read_bytes() == old
        assert not list(tmp_path.glob(".amos-ref-*"))


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_waits_until_what_ranks_do_together_is_done(script, tmp_path, rank):
    """At every call to the other ranks: nobody hangs, nothing is half done, and the step is not lost."""
    path = tmp_path / "run.amos"
    lines = [line.split() for line in mpiexec(2, script(INTERRUPT), path, rank).splitlines()]
    times = {words[0]: int(words[3]) for words in lines}
    assert list(times) == ["Sharded", "init", "update", "trace", "step", "save", "load"]
    assert times["step"] == 2
    assert min(times.values()) >= 1
    assert times["save"] > 10
    assert path.read_bytes() == one_process(tmp_path / "alone", times["step"] + 1)


@pytest.mark.parametrize("whom", ["one", "all"])
def test_an_interrupt_from_outside_ends_the_job(script, tmp_path, whom):
    program, path = script(FOR_EVER), tmp_path / "run.amos"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py", program, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as job:
        numbers = [int(job.stdout.readline().split()[1]) for _ in range(3)]
        while not path.exists():
            assert job.poll() is None
            time.sleep(0.05)
        for number in numbers[1 : 2 if whom == "one" else 3] + numbers[:1] * (whom == "all"):
            os.kill(number, signal.SIGINT)
        text, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "KeyboardInterrupt" in text
    count = amos_ref.load(path, like={"w": np.ones(70000), "k": np.ones((700, 6))}).state.count
    assert path.read_bytes() == one_process(tmp_path / "alone", count)


def test_a_rank_that_stops_is_waited_for_as_long_as_is_said(script):
    text = mpiexec(3, script(STOPS), fails=True)
    assert "has waited 2 s for the other ranks" in text


def test_bench_measures_real_ranks():
    command = [sys.executable, "-c", "import sys; from amos_ref.cli import main; sys.exit(main(sys.argv[1:]))"]
    done = subprocess.run(
        [*command, "bench", "--mpi", "--quick", "--seconds", "0.01", "--json"],
        capture_output=True,
        text=True,
        timeout=400,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [(row["kind"], row["payload"]) for row in report["steps"]] == [
        ("rows (n, 1)", 0),
        ("tensor ()", 8 * 13),  # ceil(100,000 / 8192)
        ("columns (1, n)", 8 * 2 * 1000),  # ceil(100 / 64) rows of sums
        ("rows (n, 1)", 0),
        ("tensor ()", 8 * 123),
        ("columns (1, n)", 8 * 16 * 1000),
    ]
    assert min(row[name] for row in report["steps"] for name in ("alone", "apart", "together", "predicted")) > 0
