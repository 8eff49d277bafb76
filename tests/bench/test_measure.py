"""Measuring: the order of timing, the figures made of the times, and who is skipped. No test looks at real times."""

import math
from dataclasses import replace

import numpy as np
import pytest
from helpers.benchmark import device_work, keep_contenders, settings

from amos_ref import errors
from amos_ref.bench import contenders, cpu, measure, timing, workloads

# in turns


class Fake(timing.OnHost):
    """Takes a known time on a clock of its own, and writes down each call."""

    def __init__(self, name, seconds, calls, speed=lambda: 1.0):
        super().__init__(timing.Stepper())
        self.name, self.seconds, self.calls, self.speed = name, seconds, calls, speed

    def time_one(self):
        self.calls.append(self.name)
        return self.seconds * self.speed()


def test_contenders_take_turns_in_a_changing_order():
    calls = []
    fakes = {name: Fake(name, 0.01, calls) for name in "abcd"}
    times = measure.time_in_turns(fakes, settings(seconds=1.6))
    assert {name: sorted(t) for name, t in times.items()} == {name: list(range(20)) for name in "abcd"}
    rounds = [tuple(calls[i : i + 8]) for i in range(len(calls) - 160, len(calls), 8)]
    assert all(sorted(r[::2]) == list("abcd") and r[::2] == r[1::2] for r in rounds)  # each behind one of its own
    assert len(set(rounds)) > 5
    again = []
    measure.time_in_turns({name: Fake(name, 0.01, again) for name in "abcd"}, settings(seconds=1.6))
    assert again == calls  # the order is seeded


def test_the_slow_take_part_less_often_and_in_the_last_round():
    calls = []
    fakes = {
        "fast": Fake("fast", 0.001, calls),
        "slow": Fake("slow", 1.0, calls),
        "middle": Fake("middle", 0.03, calls),
    }
    times = measure.time_in_turns(fakes, settings(seconds=1.8, least=5, most=100))
    assert [len(times[name]) for name in ("fast", "slow", "middle")] == [100, 5, 10]
    assert sorted(times["slow"]) == [19, 39, 59, 79, 99]
    assert all(max(t) == 99 for t in times.values())


def test_brief_steps_are_timed_several_at_a_time_behind_one_that_is_not():
    calls = []
    times = measure.time_in_turns({"a": Fake("a", 1e-4, calls)}, settings(seconds=0.0088, most=7))
    assert times["a"] == pytest.approx(dict.fromkeys(range(7), 1e-4), rel=1e-14)
    assert len(calls) == 2 * measure.TRIES + 7 * 11


def test_there_is_a_pause_after_steps_whose_threads_keep_a_core_busy(monkeypatch):
    calls = []
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: calls.append(seconds) if seconds else None)
    fakes = {"a": Fake("a", 0.01, calls), "b": Fake("b", 0.01, calls)}
    fakes["b"].pause = 0.08
    times = measure.time_in_turns(fakes, settings(seconds=1.6))
    assert [len(times[name]) for name in "ab"] == [40, 8]  # the pause is in its share
    turns = calls[4 * measure.TRIES :]
    assert [turns[i - 2 : i] for i, call in enumerate(turns) if call == 0.08] == [["b", "b"]] * 8
    assert turns.count("b") == 16


def ratio_on_a_machine_that_slows_down(measuring):
    """The machine is half as fast after every eighth timing; b takes three times as long as a."""
    calls = []
    fakes = {name: Fake(name, s, calls, lambda: 2.0 ** (len(calls) // 8)) for name, s in (("a", 0.01), ("b", 0.03))}
    times = measuring(fakes)
    return measure.compare_times(times["b"], times["a"])


def one_after_the_other(fakes):
    return {name: {k: fake.time_one() for k in range(20)} for name, fake in fakes.items()}


def test_what_the_machine_does_meanwhile_happens_to_everyone():
    assert ratio_on_a_machine_that_slows_down(
        lambda fakes: measure.time_in_turns(fakes, settings(seconds=0.2))
    ) == pytest.approx(3.0)
    assert ratio_on_a_machine_that_slows_down(one_after_the_other) > 8


# figures


def test_figures_are_medians_quartiles_and_ratios_of_the_same_rounds():
    times = {
        "amos_ref": {0: 2.0, 1: 4.0, 2: 8.0, 3: 16.0, 4: 32.0},
        "roof": {0: 1.0, 1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0},
        "slow": {1: 12.0, 4: 160.0},
    }
    work = replace(workloads.parse_size("1e3"), threads=1)
    ours = measure.summarize("amos_ref", times, 4000, work)
    assert ours["seconds"] == {"lower_quartile": 4.0, "median": 8.0, "upper_quartile": 16.0}
    assert (ours["rounds"], ours["bytes"], ours["of_ours"], ours["of_roof"]) == (5, 4000, 1.0, 4.0)
    assert ours["ns_per_parameter"] == pytest.approx(8e6, rel=1e-15)
    assert ours["gb_per_s"] == pytest.approx(5e-7, rel=1e-15)
    slow = measure.summarize("slow", times, 4000, work)
    assert (slow["of_ours"], slow["of_roof"]) == (4.0, 16.0)  # of 3 and 5, of 12 and 20; 86 / 8 otherwise


def test_what_a_step_allocates_is_seen():
    class Allocates(timing.Stepper):
        def launch(self):
            np.ones(10**6)

    size = measure.measure_extra_bytes(timing.OnHost(Allocates()))
    assert 8 * 10**6 <= size < 8 * 10**6 + 10**5


# one workload


def test_a_record_for_everyone_who_can_and_a_reason_for_everyone_who_cannot(monkeypatch):
    def fail(work):
        raise RuntimeError("first line\nsecond line")

    added = {
        "absent": replace(cpu.PAGE, packages={"no_such_module_xyz": "no-such-package==1"}),
        "failing": replace(cpu.PAGE, build=fail),
        "huge": replace(cpu.PAGE, count_array_bytes=lambda work: 10**15 * work.bytes),
        "page": cpu.PAGE,
    }
    known = contenders.find_contender
    monkeypatch.setattr(measure, "find_contender", lambda name, backend: added.get(name) or known(name, backend))
    monkeypatch.setattr(measure, "read_free_memory", lambda: 8e9)
    chosen = settings(tuple(added), seconds=0.001, most=5)
    report = measure.measure_workload(workloads.parse_size("1e3"), chosen)
    assert [r["contender"] for r in report["results"]] == ["amos_ref", "roof", "page"]
    reasons = {skip["contender"]: skip["reason"] for skip in report["skipped"]}
    assert reasons["absent"] == "not installed: pip install no-such-package==1"
    assert reasons["failing"] == "failed: RuntimeError: first line"
    assert reasons["huge"] == "1.6e+10 GB with what the others hold is more than half of the free memory"
    monkeypatch.setattr(measure, "read_free_memory", lambda: 100.0)
    report = measure.measure_workload(workloads.parse_size("1e3"), chosen)
    assert report["results"] == []
    assert "more than half of the free memory" in next(
        s["reason"] for s in report["skipped"] if s["contender"] == "roof"
    )
    monkeypatch.setitem(added, "amos_ref", added["failing"])
    monkeypatch.setattr(measure, "read_free_memory", lambda: math.inf)
    with pytest.raises(RuntimeError):  # our own failure is no reason to skip
        measure.measure_workload(workloads.parse_size("1e3"), chosen)


def test_the_clock_of_a_contender_can_be_replaced(monkeypatch):
    class Clocked(timing.OnHost):
        def time_one(self):
            self.run()
            return 0.25

    monkeypatch.setattr(contenders, "OnHost", Clocked)
    ours, _ = measure.measure_workload(workloads.parse_size("1e3"), settings(seconds=1e-3, most=5))["results"]
    assert ours["seconds"] == {"median": 0.25, "lower_quartile": 0.25, "upper_quartile": 0.25}


def test_a_named_error_where_numba_has_fewer_threads():
    with pytest.raises(errors.HyperParameterError, match=r"^100000 threads: "), measure.limit_threads(100_000):
        pass


def test_the_memory_is_the_devices(driver, monkeypatch):
    keep_contenders(monkeypatch, "cuda")
    monkeypatch.setattr(measure, "read_free_memory", lambda: 0.0)  # of the host
    chosen = settings(backend="cuda", seconds=0.01, least=20)
    # The copies of both: 32 of 80 kB, 32 of 160 kB.
    driver.free = 2 * 32 * (80_000 + 160_032)
    assert len(measure.measure_workload(device_work(), chosen)["results"]) == 2
    driver.free -= 10_000
    report = measure.measure_workload(device_work(), chosen)
    assert report["results"] == []
    assert "more than half of the free memory" in report["skipped"][0]["reason"]
