"""Real ranks of MPI, as processes with a time limit: the example, errors, and a rank that is killed while it saves."""

import os
import pathlib
import shutil
import subprocess
import sys

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
opt = amos_ref.Amos(0.1, eta=0.5, momentum=0.5, slot_shape={"w": "tensor", "k": "(1, SHAPE[1])"})
shapes = {"w": (70000,), "k": (700, 6)}
layout = Layout.even(shapes, comm.size, opt, "each")
full = {name: np.ones(shape) for name, shape in shapes.items()}
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
    print(comm.rank, error, flush=True)
state = sharded.step(params, grads, state)
if comm.rank == 0:
    print("step", state.count)
"""
KILL = """
path, rank, nth = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
calls = 0
right = type(sharded._ranks).say
def say(self, what):
    global calls
    calls += 1
    if comm.rank == rank and calls == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return right(self, what)
state = sharded.step(params, grads, state)
type(sharded._ranks).say = say
sharded.save(path, params, state)
"""
RAISE = """
if comm.rank == 1:
    raise RuntimeError("this rank alone")
sharded.step(params, grads, state)
"""


@pytest.fixture
def script(tmp_path):
    def write(text):
        path = tmp_path / "script.py"
        path.write_text(STEPS + text, encoding="utf-8")
        return path

    return write


def test_a_gradient_that_is_not_finite_is_named_on_every_rank(script):
    text = mpiexec(3, script(ERRORS))
    lines = [line for line in text.splitlines() if "nan" in line]
    assert sorted(line[0] for line in lines) == ["0", "1", "2"]
    assert len({line[2:] for line in lines}) == 1
    assert "step 1" in text


def test_a_rank_that_raises_ends_the_job(script):
    assert "this rank alone" in mpiexec(2, script(RAISE), fails=True)


@pytest.mark.parametrize(("rank", "nth"), [(0, 2), (1, 3), (1, 5)])
def test_a_rank_that_is_killed_while_it_saves_leaves_the_old_file(script, tmp_path, rank, nth):
    path = tmp_path / "run.amos"
    path.write_bytes(b"old")
    mpiexec(2, script(KILL), path, rank, nth, fails=True)
    assert path.read_bytes() == b"old"
    mpiexec(2, script(KILL), path, 9, 0)
    assert amos_ref.load(path, like={"w": np.ones(70000), "k": np.ones((700, 6))}).state.count == 1
