"""The benchmark of a GPU, on a device that is made up: its clock, its rotation, its refusals. No GPU is needed."""

import importlib.resources
import json
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from helpers.made_up_gpu import L2, STREAM, Driver, Opt

import amos_ref
from amos_ref import errors, plots
from amos_ref.bench import contenders, cuda, gpu, machine, measure, rotation, workloads
from amos_ref.cli import main
from amos_ref.kernels.cuda import arrays
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import DeviceArray

SCHEMA = json.loads((importlib.resources.files("amos_ref.bench") / "bench.schema.json").read_text())


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(gpu, "_driver", lambda: made)
    monkeypatch.setattr(gpu, "stream", lambda: STREAM)
    monkeypatch.setattr(gpu, "check", lambda: None)
    monkeypatch.setattr(gpu, "free_memory", lambda: made.free)
    monkeypatch.setattr(Opt, "driver", made, raising=False)
    monkeypatch.setattr(amos_ref, "Amos", Opt)
    monkeypatch.setattr(arrays, "copy_to_device", lambda a: a)
    monkeypatch.setattr(arrays, "upload", lambda a: DeviceArray(a.shape, a.dtype, 1, True, a))
    monkeypatch.setattr(arrays, "allocate", lambda n: DeviceArray((n,), np.dtype(float), 2, True, None))
    return made


def work_of(size="1e4", **changed):
    return workloads.replace(workloads.sized(size), threads=0, **changed)


# how many copies


@pytest.mark.parametrize(
    ("held", "l2", "count"),
    [
        (8_000, L2, rotation.MOST),
        (8 * 10**6, L2, 19),
        (3 * L2 - 1, L2, 2),
        (3 * L2, L2, 1),
        (10**10, L2, 1),
        (8_000, 0, 1),
    ],
)
def test_copies_are_as_many_as_go_past_the_cache(held, l2, count):
    assert rotation.copies(held, l2) == count
    assert count * held >= 3 * l2 or count == rotation.MOST
    assert (count - 1) * held < 3 * l2 or count == 1


@pytest.mark.usefixtures("driver")
def test_each_counts_copies_of_what_it_holds():
    work = work_of("1e6")
    counted = {"amos_ref": 19, "roof": 10, "torch-fused": 10, "torch-foreach": 8, "torch-eager": 10}
    counted |= {"pytorch_optimizer": 19, "jestimator": 19, "optax": 10}
    assert {name: contenders.contender(name, "cuda").count(work) for name in counted} == counted
    cls = contenders.contender("torch-foreach", "cuda")
    assert cls.needs(work) == (8 * 5 * 4 * 10**6, 4 * 10**6)
    held = contenders.contender("amos_ref", "cuda").held(work_of("1e6", slot="element", state="float64", momentum=True))
    assert held == 8 * 10**6 + 3 * 8 * 10**6


# turns


class Stepper(rotation.OnDevice):
    """Takes a time of the device and a time of the host for each step; writes down which copy took it."""

    stream, seconds, host = STREAM, 1e-3, 10e-6
    device: Driver
    number = 0

    def again(self):
        made = type(self)(self.work)
        made.device, made.number = self.device, self.number + 1
        return made

    def launch(self):
        self.device.work(self.number, self.seconds, self.host)


def rotated(driver, cls=rotation.Rotated, count=4, **changed):
    stepper = type("Changed", (Stepper,), changed | {"device": driver})
    copies = [stepper(work_of())]
    for _ in range(count - 1):
        copies.append(copies[-1].again())
    return cls(copies)


def apart(driver, cls=rotation.Rotated):
    """Return how many other copies step between two steps of one, at least, in several timings."""
    made = rotated(driver, cls)
    for calls in (1, 3, 1, 5, 2, 20):
        made.steps(calls)
    places = [[i for i, number in enumerate(driver.log) if number == k] for k in range(4)]
    assert sum(map(len, places)) == 6 + 32  # one before each timing
    return min((int(np.diff(p).min()) - 1 for p in places if len(p) > 1), default=0)


class Unturned(rotation.Rotated):
    def launch(self):
        self.made[0].launch()
        return self.made[0]


class Returning(rotation.Rotated):
    """Begins with the first copy in every timing."""

    def steps(self, calls):
        fresh = rotation.Rotated(self.made)
        return fresh.steps(calls)


def test_all_others_step_between_two_steps_of_a_copy(driver):
    assert apart(driver) == 3


@pytest.mark.parametrize("wrong", [Unturned, Returning])
def test_copies_that_do_not_take_turns_would_be_seen(driver, wrong):
    assert apart(driver, wrong) < 3


# time


class AroundTheFirstLaunch(rotation.Rotated):
    def steps(self, calls):
        last = self.launch()
        start = last.now()
        found = last.since(start)
        for _ in range(calls):
            self.launch()
        return found / calls


class WithoutOneBefore(rotation.Rotated):
    def steps(self, calls):
        gpu.synchronize()
        start = self.made[0].now()
        for _ in range(calls):
            last = self.launch()
        return last.since(start) / calls


class NotDivided(rotation.Rotated):
    def steps(self, calls):
        return super().steps(calls) * calls


def right(driver, cls=rotation.Rotated):
    """Whether the time of a step is the device's, and the host's where it takes longer to begin a step."""
    slow = rotated(driver, cls)
    brief = rotated(driver, cls, seconds=3e-6)
    expected = [(slow, 1e-3), (brief, 10e-6)]
    return all(c.steps(n) == pytest.approx(seconds, rel=1e-9) for c, seconds in expected for n in (1, 2, 20))


def test_a_timing_is_the_devices_and_the_hosts_where_that_is_longer(driver):
    assert right(driver)


@pytest.mark.parametrize("wrong", [AroundTheFirstLaunch, WithoutOneBefore, NotDivided])
def test_wrong_timings_would_be_seen(driver, wrong):
    assert not right(driver, wrong)


def test_what_a_timing_takes_is_told(driver):
    made = rotated(driver, fewest=5)
    for calls in (1, 5, 7):
        driver.log.clear()
        made.steps(calls)
        assert len(driver.log) == made.taken(calls) == max(calls, 5) + 1


# our own steps


def test_a_step_is_recorded_once_and_replayed_after_advance(driver):
    made = cuda.Kernels(work_of("1e6"))
    assert driver.log == ["step"]  # which lays out and compiles; the second is recorded
    made.run()
    assert (driver.log, made.state) == (["step", "advance", "step"], 2)
    ours = cuda.Kernels.ready(work_of("1e6"))
    assert ours.copies == 19
    driver.log.clear()
    assert ours.steps(20) == pytest.approx(12e-6, rel=1e-9)  # the host's for advance and the replay
    assert driver.log == ["advance", "step"] * 21
    assert [each.state for each in ours.made] == [4, 4] + [3] * 17


def only_advance(self):
    self.state = self.opt.advance(self.state, stream=self.stream)


def only_replay(self):
    self.graph.launch()


def moves(driver):
    """Whether a timing holds a whole step on 2e7 parameters, and every replay has its own numbers."""
    made = cuda.Kernels.ready(work_of("2e7"))
    driver.log.clear()
    seconds = made.steps(3)
    return driver.log == ["advance", "step"] * 4 and seconds == pytest.approx(2e7 * 16 / 1.8e12 + 1e-6, rel=1e-9)


@pytest.mark.parametrize("wrong", [only_advance, only_replay])
def test_half_a_step_would_be_seen(driver, monkeypatch, wrong):
    assert moves(driver)
    monkeypatch.setattr(cuda.Kernels, "launch", wrong)
    assert not moves(driver)


@pytest.mark.parametrize(
    "changed", [dict(), dict(slot="element", state="float64", momentum=True), dict(dtype="float16")]
)
def test_the_roof_copies_half_of_the_bytes(driver, changed):
    work = work_of("100003", **changed)
    made = cuda.Copy(work)
    assert driver.log == []
    made.run()
    (copied,) = driver.log
    size = int(copied.split()[1])
    assert 0 <= 2 * size - work.bytes < 16
    assert size == made.source.nbytes == made.target.nbytes
    assert len(np.unique(made.source.source)) > 0.5 * min(65537, size // 8)  # no zeros, which may move faster


def test_an_error_of_the_driver_is_named(driver, monkeypatch):
    monkeypatch.setattr(driver, "cuGraphLaunch", lambda *_: (SimpleNamespace(name="CUDA_ERROR_X"),))
    with pytest.raises(errors.BackendError, match="cuGraphLaunch returned CUDA_ERROR_X"):
        cuda.Copy(work_of()).run()


def test_a_recording_that_fails_is_ended(driver):
    with pytest.raises(ZeroDivisionError), gpu.recorded(STREAM):
        1 / 0  # noqa: B018
    assert driver.recording is None


# the plan, and what is refused


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_of_a_gpu(quick):
    plan = workloads.plan(quick, "cuda")
    assert len(set(plan)) == len(plan)
    assert {w.threads for w in plan} == {0}
    assert not any("thread" in str(w) for w in plan)
    assert {w.slot for w in plan} == set(workloads.SLOTS)
    assert {w.dtype for w in plan} == {"float16", "bfloat16", "float32", "float64"}
    assert any(w.momentum for w in plan)
    assert {"1000x64", "bert-base"} <= {w.name for w in plan}
    large = {(w.parameters, w.slot) for w in plan if len(w.shapes) == 1 and w.dtype == "float32"}
    assert {(64 * 10**6, slot) for slot in workloads.SLOTS} <= large
    if not quick:
        assert {n for n, _ in large} >= {10**k for k in range(3, 9)} | {2 * 10**8}
        assert {"200x4096", "bert-mini"} <= {w.name for w in plan}


def bench(capsys, *argv):
    status = main(["bench", "--backend", "cuda", *argv])
    out, err = capsys.readouterr()
    return status, out, err.splitlines()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--threads", "1"], "--backend cuda goes without --threads: the host's threads take no part in a step"),
        (["--start"], "--backend cuda goes without --start: its kernels are not kept on disk"),
        (["--peers", "page"], "there is no peer 'page'; the peers are torch-fused, torch-foreach, torch-eager"),
    ],
)
def test_what_a_gpu_does_not_have_is_refused(capsys, argv, text):
    status, out, err = bench(capsys, *argv)
    assert (status, out, len(err)) == (2, "", 1)
    assert text in err[0]


@pytest.mark.skipif(cuda_driver.usable(), reason="there is a GPU, or the simulator")
def test_without_a_gpu_one_line_says_why(capsys):
    status, out, err = bench(capsys, "--quick")
    assert (status, out, len(err)) == (3, "", 1)
    assert "backend 'cuda'" in err[0]


def test_the_simulator_is_not_measured(capsys, monkeypatch):
    monkeypatch.setattr(cuda_driver, "check", lambda: None)
    monkeypatch.setattr(cuda_driver, "simulated", lambda: True)
    status, out, err = bench(capsys, "--quick")
    assert (status, out, len(err)) == (3, "", 1)
    assert "simulator" in err[0]


# a whole report


@pytest.fixture
def alone(monkeypatch):
    """Without peers, whether they are installed or not."""
    found = {name: contenders.CONTENDERS["cuda"][name] for name in (contenders.OURS, contenders.ROOF)}
    monkeypatch.setitem(contenders.CONTENDERS, "cuda", found)


@pytest.mark.usefixtures("driver", "alone")
def test_a_report_of_a_gpu(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")
    argv = ["--sizes", "1e4,2e7", "--slots", "tensor,row", "--seconds", "0.01"]
    status, out, err = bench(capsys, *argv, "--json")
    assert status == 0
    report = json.loads(out)
    jsonschema.validate(report, SCHEMA)
    assert err == [f"{i} of 4: {w['label']}" for i, w in enumerate(report["workloads"], 1)]
    assert report["start"] is None
    assert report["machine"]["gpu"]["name"] == "Made-up GPU"
    assert report["machine"]["gpu"]["cuda"] == "13.1"
    assert report["settings"]["least"] == 20
    for work in report["workloads"]:
        ours, copied = work["results"]
        assert (ours["contender"], copied["contender"]) == ("amos_ref", "roof")
        assert ours["extra_bytes"] is None
        assert min(ours["rounds"], copied["rounds"]) >= 20
        assert (ours["copies"] == 32) == (work["parameters"] == 10**4)
    large = report["workloads"][2]["results"][0]
    assert large["of_roof"] == pytest.approx(2 / 1.8, rel=0.01)  # 0.90 of the copy's bandwidth
    assert large["gb_per_s"] == pytest.approx(1800, rel=0.01)
    path = tmp_path / "report.json"
    path.write_text(out)
    assert main(["bench", "--from", str(path), "--plot", str(tmp_path / "x.png")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert any(line.startswith("Made-up GPU, compute capability 9.0, 132 multiprocessors; L2 50 MB") for line in shown)
    first = next(line.split() for line in shown if line.startswith("amos_ref   ") and ".." in line)
    record = report["workloads"][0]["results"][0]
    assert first[1] == f"{record['seconds']['median'] * 1e6:.4g}"
    assert first[-1] == "32"
    assert "copies" in next(line for line in shown if "us/step" in line)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    assert plots.over_roof(report).get_xlabel() == "time of a step / time of the copy"
    assert "on a GPU" in plots.speeds(report).get_title()


@pytest.mark.usefixtures("alone")
def test_the_memory_is_the_devices(driver, monkeypatch):
    monkeypatch.setattr(measure, "free_memory", lambda: 0.0)  # of the host
    chosen = measure.Settings((), "cuda", 0.01, 20, 200, 100)
    # The copies of both: 32 of 80 kB, 32 of 160 kB.
    driver.free = 2 * 32 * (80_000 + 160_032)
    assert len(measure.measured(work_of(), chosen)["results"]) == 2
    driver.free -= 10_000
    found = measure.measured(work_of(), chosen)
    assert found["results"] == []
    assert "more than half of the free memory" in found["skipped"][0]["reason"]


def test_what_is_known_of_a_gpu(driver, monkeypatch, tmp_path):
    path = tmp_path / "version"
    monkeypatch.setattr(gpu, "_VERSION", str(path))
    assert gpu.described()["driver"] is None
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x@y)  Sun\n")
    assert machine.machine("cuda")["gpu"]["driver"] == "580.65.06"
    assert "gpu" not in machine.machine("cpu")
