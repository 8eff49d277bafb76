"""The benchmark's plumbing: what it selects, in which order it times, what it counts. No test looks at the time."""

import importlib.resources
import json
import math
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from helpers import strategies as own

import amos_ref
from amos_ref import errors, plots
from amos_ref.bench import contenders, measure, roof, start, workloads
from amos_ref.cli import main

SCHEMA = json.loads((importlib.resources.files("amos_ref.bench") / "bench.schema.json").read_text())
BRIEFLY = ["--seconds", "0.001", "--rounds", "3"]


@pytest.fixture
def only_page(monkeypatch):
    """No other framework, whether it is installed or not."""
    alone = {name: contenders.CONTENDERS["cpu"][name] for name in (contenders.OURS, contenders.ROOF, "page")}
    monkeypatch.setitem(contenders.CONTENDERS, "cpu", alone)


def settings(peers=(), seconds=1.0, least=5, most=200):
    return measure.Settings(peers, "cpu", seconds, least, most, most_compiled=100)


# workloads


def test_sizes_and_trees_have_as_many_parameters_as_they_say():
    for text, n in {"1": 1, "7": 7, "1e3": 1000, "1000": 1000, "999983": 999983, "1e8": 10**8}.items():
        work = workloads.sized(text)
        ((rows, columns),) = work.shapes
        assert rows * columns == work.parameters == n
        assert rows < columns or n == 1
    base = workloads.tree("bert-base")
    # Published for bert-base-uncased with its pooler: 109,482,240, in 199 arrays.
    assert (len(base.shapes), base.parameters) == (199, 109_482_240)
    assert workloads.tree("1000x64").shapes == ((64,),) * 1000


@pytest.mark.parametrize(
    ("changed", "per_parameter", "per_slot"),
    [
        (dict(), 16, 16),
        (dict(slot="row"), 16, 16),
        (dict(slot="column", state="float64"), 16, 32),
        (dict(slot="element"), 16, 16),  # a slot a parameter: 32
        (dict(slot="element", state="float64"), 16, 32),
        (dict(momentum=True), 24, 16),
        (dict(momentum=True, dtype="float16", state="float64"), 8 + 16, 32),
        (dict(dtype="bfloat16", slot="element"), 8, 8),
        (dict(dtype="float64"), 32, 32),
    ],
)
def test_the_bytes_of_a_step_are_counted(changed, per_parameter, per_slot):
    work = replace(workloads.sized("1e3"), **changed)
    ((rows, columns),) = work.shapes
    slots = {"tensor": 1, "row": rows, "column": columns, "element": 1000}[work.slot]
    assert work.slots == slots
    assert work.bytes == 1000 * per_parameter + slots * per_slot


def test_slots_are_shapes_that_an_array_broadcasts_with():
    for shape in ((), (5,), (3, 4), (2, 3, 4)):
        for slot in workloads.SLOTS:
            if shape or slot in ("tensor", "element"):
                assert np.broadcast_shapes(workloads.slot_shape(slot, shape), shape) == shape
    assert [workloads.slot_shape(slot, (3, 4)) for slot in workloads.SLOTS] == [(), (3, 1), (1, 4), (3, 4)]


def test_every_combination_is_selected_once():
    found = workloads.selected(["1e3", "5"], ["2x3"], ["row", "tensor"], ["float16", "float64"], ["1"], True, "float64")
    assert len(set(found)) == len(found) == 12
    assert {(w.momentum, w.state, w.threads) for w in found} == {(True, "float64", 1)}
    assert {w.name for w in found} == {"1e3", "5", "2x3"}


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_has_every_size_slot_dtype_and_tree(quick):
    plan = workloads.plan(quick)
    assert len(set(plan)) == len(plan)
    assert {w.slot for w in plan} == set(workloads.SLOTS)
    assert {w.dtype for w in plan} == {"float16", "bfloat16", "float32", "float64"}
    assert {w.threads for w in plan} == {1, workloads.cores()}
    assert any(w.momentum for w in plan)
    assert any(len(w.shapes) == 1000 for w in plan)
    if not quick:
        sizes = {w.parameters for w in plan if len(w.shapes) == 1}
        assert sizes == {10**k for k in range(3, 9)}
        assert any(w.name == "bert-base" for w in plan)


# in turns


class Fake(contenders.Contender):
    """Takes a known time, told by a clock of its own, and writes down that it was called."""

    def __init__(self, name, seconds, calls, speed=lambda: 1.0):
        self.name, self.seconds, self.calls, self.speed = name, seconds, calls, speed

    def time(self):
        self.calls.append(self.name)
        return self.seconds * self.speed()


def test_contenders_take_turns_in_a_changing_order():
    calls = []
    fakes = {name: Fake(name, 0.01, calls) for name in "abcd"}
    times = measure.interleaved(fakes, settings(seconds=1.6))
    assert {name: sorted(t) for name, t in times.items()} == {name: list(range(20)) for name in "abcd"}
    rounds = [tuple(calls[i : i + 8]) for i in range(len(calls) - 160, len(calls), 8)]
    assert all(sorted(r[::2]) == list("abcd") and r[::2] == r[1::2] for r in rounds)  # each behind one of its own
    assert len(set(rounds)) > 5
    again = []
    measure.interleaved({name: Fake(name, 0.01, again) for name in "abcd"}, settings(seconds=1.6))
    assert again == calls  # the order is seeded


def test_the_slow_take_part_less_often_and_in_the_last_round():
    calls = []
    fakes = {
        "fast": Fake("fast", 0.001, calls),
        "slow": Fake("slow", 1.0, calls),
        "middle": Fake("middle", 0.03, calls),
    }
    times = measure.interleaved(fakes, settings(seconds=1.8, least=5, most=100))
    assert [len(times[name]) for name in ("fast", "slow", "middle")] == [100, 5, 10]
    assert sorted(times["slow"]) == [19, 39, 59, 79, 99]
    assert all(max(t) == 99 for t in times.values())


def test_brief_steps_are_timed_several_at_a_time_behind_one_that_is_not():
    calls = []
    times = measure.interleaved({"a": Fake("a", 1e-4, calls)}, settings(seconds=0.0088, most=7))
    assert times["a"] == pytest.approx(dict.fromkeys(range(7), 1e-4), rel=1e-14)
    assert len(calls) == 2 * measure.TRIES + 7 * 11


def test_whose_threads_keep_a_core_busy_is_given_time_to_settle(monkeypatch):
    calls = []
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: calls.append(seconds) if seconds else None)
    fakes = {"a": Fake("a", 0.01, calls), "b": Fake("b", 0.01, calls)}
    fakes["b"].settles = 0.08
    times = measure.interleaved(fakes, settings(seconds=1.6))
    assert [len(times[name]) for name in "ab"] == [40, 8]  # the pause is in its share
    turns = calls[4 * measure.TRIES :]
    assert [turns[i - 2 : i] for i, call in enumerate(turns) if call == 0.08] == [["b", "b"]] * 8
    assert turns.count("b") == 16


def ratio_on_a_machine_that_slows_down(measuring):
    """The machine is half as fast after every eighth timing; b takes three times as long as a."""
    calls = []
    fakes = {name: Fake(name, s, calls, lambda: 2.0 ** (len(calls) // 8)) for name, s in (("a", 0.01), ("b", 0.03))}
    times = measuring(fakes)
    return measure.ratio(times["b"], times["a"])


def one_after_the_other(fakes):
    return {name: {k: fake.time() for k in range(20)} for name, fake in fakes.items()}


def test_what_the_machine_does_meanwhile_happens_to_all():
    assert ratio_on_a_machine_that_slows_down(
        lambda fakes: measure.interleaved(fakes, settings(seconds=0.2))
    ) == pytest.approx(3.0)
    assert ratio_on_a_machine_that_slows_down(one_after_the_other) > 8


# figures


def test_figures_are_medians_quartiles_and_ratios_of_the_same_rounds():
    times = {
        "amos_ref": {0: 2.0, 1: 4.0, 2: 8.0, 3: 16.0, 4: 32.0},
        "roof": {0: 1.0, 1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0},
        "slow": {1: 12.0, 4: 160.0},
    }
    work = replace(workloads.sized("1e3"), threads=1)
    ours = measure.figures("amos_ref", times, 4000, work)
    assert ours["seconds"] == {"lower_quartile": 4.0, "median": 8.0, "upper_quartile": 16.0}
    assert (ours["rounds"], ours["bytes"], ours["of_ours"], ours["of_roof"]) == (5, 4000, 1.0, 4.0)
    assert ours["ns_per_parameter"] == pytest.approx(8e6, rel=1e-15)
    assert ours["gb_per_s"] == pytest.approx(5e-7, rel=1e-15)
    slow = measure.figures("slow", times, 4000, work)
    assert (slow["of_ours"], slow["of_roof"]) == (4.0, 16.0)  # of 3 and 5, of 12 and 20; 86 / 8 otherwise


# what is timed is the step


def stepped(work, steps, run=contenders.Kernels.run):
    c = contenders.Kernels(work)
    for _ in range(steps):
        run(c)
    return {name: own.bits(a) for name, a in c.values().items()}


def page(work, steps):
    """The same steps by the page, from the options that are written here once more."""
    params, grads = workloads.drawn(work)
    slots = {name: workloads.slot_shape(work.slot, a.shape) for name, a in params.items()}
    opt = amos_ref.Amos(
        1e-3,
        0.5,
        lambda name, shape: slots[name],
        beta=0.999,
        momentum=0.9 if work.momentum else None,
        state_dtype=work.state,
        backend="numpy",
    )
    state = opt.init(params)
    for _ in range(steps):
        state = opt.step(params, grads, state)
    return {name: own.bits(a) for name, a in params.items()}


@pytest.mark.parametrize("slot", workloads.SLOTS)
@pytest.mark.parametrize("changed", [dict(), dict(momentum=True), dict(state="float64"), dict(dtype="bfloat16")])
def test_our_contender_takes_the_steps_of_the_page(slot, changed):
    work = replace(workloads.sized("1e3"), slot=slot, **changed)
    assert stepped(work, 3) == page(work, 3) != page(work, 0)
    tree = replace(workloads.tree("3x64"), slot=slot, **changed)
    assert stepped(tree, 2) == page(tree, 2) != page(tree, 1)


def forgetful(c):
    c.opt.step(c.params, c.grads, c.state)


def test_a_contender_that_drops_its_state_would_be_seen():
    work = workloads.sized("1e3")
    assert stepped(work, 3, forgetful) != page(work, 3)


ROOFS = [
    dict(),
    dict(slot="element"),
    dict(slot="row", momentum=True),
    dict(slot="element", state="float64", momentum=True),
    dict(dtype="float16", slot="column"),
]


def streamed(work, run=roof.Roof.run):
    """Whether one stream reads and writes every word of every array once, in each of the ways."""
    with contenders.limited(work.threads):
        r = roof.Roof(work)
        for variant in roof.VARIANTS:
            r.choose(variant)
            before = {name: a.copy() for name, a in r.values().items()}
            run(r)
            after = r.values()
            if np.bitwise_xor.reduce(r.g) != np.bitwise_xor.reduce(after.pop("read")):
                return False
            if not np.array_equal(after.pop("theta"), before["theta"] ^ r.g):
                return False
            if not all(np.array_equal(a, before[name] ^ np.uint64(1)) for name, a in after.items()):
                return False
    return True


@pytest.mark.parametrize("changed", ROOFS)
@pytest.mark.parametrize("size", ["1", "7", "1e3", "100003"])
def test_the_roof_moves_every_byte_once(changed, size):
    work = replace(workloads.sized(size), threads=2, **changed)
    assert streamed(work)
    r = roof.Roof(work)
    moved = 2 * (r.g.nbytes + r.theta.nbytes + sum(a.nbytes for a in r.others))
    assert 0 <= moved - work.bytes < 2 * 8 * (2 + len(r.others))  # arrays of whole words


def without_its_tail(r):
    roof.launch(roof.read, r.tasks, r.g[:-1], r.out)
    roof.launch(roof.write, r.tasks, r.backward, r.g[:-1], r.theta[:-1], r.others)


def test_a_roof_that_leaves_something_out_would_be_seen():
    work = replace(workloads.sized("100003"), threads=2)
    assert not streamed(work, without_its_tail)
    assert not streamed(work, lambda r: None)


def test_what_a_step_allocates_is_seen():
    class Allocates(contenders.Contender):
        def run(self):
            np.ones(10**6)

    found = measure.extra_bytes(Allocates(workloads.sized("1")))
    assert 8 * 10**6 <= found < 8 * 10**6 + 10**5


# one workload


def test_a_record_for_everyone_who_can_and_a_reason_for_everyone_who_cannot(monkeypatch):
    class Absent(contenders.Page):
        packages = {"no_such_module_xyz": "no-such-package==1"}  # noqa: RUF012

    class Failing(contenders.Page):
        def __init__(self, work):
            raise RuntimeError("first line\nsecond line")

    class Huge(contenders.Page):
        kept = 10**15

    classes = {"absent": Absent, "failing": Failing, "huge": Huge, "page": contenders.Page}
    known = contenders.contender
    monkeypatch.setattr(measure, "contender", lambda name, backend: classes.get(name) or known(name, backend))
    monkeypatch.setattr(measure, "free_memory", lambda: 8e9)
    chosen = settings(tuple(classes), seconds=0.001, most=5)
    found = measure.measured(workloads.sized("1e3"), chosen)
    assert [r["contender"] for r in found["results"]] == ["amos_ref", "roof", "page"]
    reasons = {skip["contender"]: skip["reason"] for skip in found["skipped"]}
    assert reasons["absent"] == "not installed: pip install no-such-package==1"
    assert reasons["failing"] == "failed: RuntimeError: first line"
    assert reasons["huge"] == "4e+09 GB with what the others hold is more than half of the free memory"
    monkeypatch.setattr(measure, "free_memory", lambda: 100.0)
    found = measure.measured(workloads.sized("1e3"), chosen)
    assert found["results"] == []
    assert "more than half of the free memory" in next(
        s["reason"] for s in found["skipped"] if s["contender"] == "roof"
    )
    monkeypatch.setitem(classes, "amos_ref", Failing)
    monkeypatch.setattr(measure, "free_memory", lambda: math.inf)
    with pytest.raises(RuntimeError):  # our own failure is no reason to skip
        measure.measured(workloads.sized("1e3"), chosen)


def test_the_page_is_not_measured_on_large_arrays():
    assert contenders.Page.unable(workloads.sized("1e6"), 0) is None
    assert "up to 1000000 parameters" in contenders.Page.unable(workloads.sized("1e7"), 0)


def test_the_clock_of_a_contender_can_be_replaced(monkeypatch):
    class Clocked(contenders.Kernels):
        def time(self):
            self.run()
            return 0.25

    monkeypatch.setattr(measure, "contender", lambda name, _: Clocked if name == "amos_ref" else roof.Roof)
    ours, _ = measure.measured(workloads.sized("1e3"), settings(seconds=1e-3, most=5))["results"]
    assert ours["seconds"] == {"median": 0.25, "lower_quartile": 0.25, "upper_quartile": 0.25}


# the command


def bench(capsys, *argv):
    status = main(["bench", *argv])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


@pytest.mark.usefixtures("only_page")
def test_bench_prints_tables_and_json_of_one_schema(capsys, tmp_path):
    argv = ["--sizes", "1e3,7", "--slots", "tensor,row", "--dtypes", "float32", "--threads", "1", *BRIEFLY]
    status, out, err = bench(capsys, *argv, "--json")
    report = json.loads("\n".join(out))
    jsonschema.validate(report, SCHEMA)
    assert status == 0
    assert [(w["parameters"], w["slot"]) for w in report["workloads"]] == [
        (n, slot) for n in (1000, 7) for slot in ("tensor", "row")
    ]
    assert err == [f"{i} of 4: {w['label']}" for i, w in enumerate(report["workloads"], 1)]
    for work in report["workloads"]:
        assert [r["contender"] for r in work["results"]] == ["amos_ref", "roof", "page"]
        assert [r["extra_bytes"] is None for r in work["results"]] == [False, True, False]
    path = tmp_path / "report.json"
    path.write_text("\n".join(out))
    status, shown, err = bench(capsys, "--from", str(path))
    assert (status, err) == (0, [])
    assert any(line.startswith("1e3: 1000 float32, row slots, 1 thread; 16.32 bytes a parameter") for line in shown)
    first = next(line.split() for line in shown if line.startswith("amos_ref   ") and ".." in line)
    record = report["workloads"][0]["results"][0]
    assert first[1] == f"{record['ns_per_parameter']:.3g}"
    assert first[4:6] == [f"{record['of_roof']:.3g}", "1"]
    # The same tables as they are printed while it measures.
    _, live, _ = bench(capsys, *argv)
    assert [line.split()[:1] for line in live] == [line.split()[:1] for line in shown]


@pytest.mark.usefixtures("only_page")
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--sizes", "1e3,many"], "size 'many' is not a whole number of parameters"),
        (["--sizes", "1.5"], "size '1.5' is not a whole number"),
        (["--sizes", "0"], "size '0' is not a whole number"),
        (["--sizes", "nan"], "size 'nan' is not a whole number"),
        (["--sizes", "1e400"], "size '1e400' is not a whole number"),
        (["--sizes", ","], "nothing is selected"),
        (["--trees", "oak"], "tree 'oak' is none of bert-tiny"),
        (["--trees", "0x64"], "tree '0x64' is none of bert-tiny"),
        (["--slots", "cell"], "slots 'cell' is none of tensor, row, column, element"),
        (["--dtypes", "int8"], "dtype 'int8' is none of float16"),
        (["--threads", "0"], "threads '0' is no number from 1 to"),
        (["--threads", "1000000"], "threads '1000000' is no number from 1 to"),
        (["--peers", "page,nobody"], "there is no peer 'nobody'; the peers are page, or none"),
        (["--seconds", "nan"], "--seconds is nan; it must be a finite number > 0"),
        (["--rounds", "0"], "--rounds is 0; it must be 1 or more"),
        (["--start", "--sizes", "1e3"], "--start goes without --sizes"),
        (["--from", "x.json", "--start"], "--start goes without --from"),
        (["--from", "/no/such/file.json"], "No such file"),
        (["--plot", "x.txt"], "its name must end in .pdf, .png, .svg"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(capsys, argv, text):
    status, out, err = bench(capsys, *argv)
    assert (status, out, len(err)) == (2, [], 1)
    assert text in err[0]


@pytest.mark.parametrize("argv", [["--backend", "abacus"], ["--state", "float16"]])
def test_wrong_choices_are_usage_errors(argv):
    with pytest.raises(SystemExit) as stop:
        main(["bench", *argv])
    assert stop.value.code == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other"}', '{"format": "amos-ref-bench-1"}'])
def test_a_damaged_report_is_a_named_error(capsys, tmp_path, content):
    path = tmp_path / "report.json"
    path.write_text(content)
    for more in ([], ["--plot", str(tmp_path / "x.png")]):
        status, _, err = bench(capsys, "--from", str(path), *more)
        assert (status, len(err)) == (2, 1)
        assert str(path) in err[0]
    assert not (tmp_path / "x.png").exists()


@pytest.mark.usefixtures("only_page")
def test_ctrl_c_keeps_what_was_measured(capsys, monkeypatch):
    measured = measure.measured

    def interrupted(work, chosen):
        if work.parameters == 7:
            raise KeyboardInterrupt
        return measured(work, chosen)

    monkeypatch.setattr(measure, "measured", interrupted)
    status, out, _ = bench(capsys, "--sizes", "1e3,7,5", *BRIEFLY, "--json")
    report = json.loads("\n".join(out))
    jsonschema.validate(report, SCHEMA)
    assert (status, report["interrupted"]) == (130, True)
    assert [w["parameters"] for w in report["workloads"]] == [1000]


def test_the_schema_refuses_what_is_not_the_report():
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"format": "amos-ref-bench-1"}, SCHEMA)


def test_a_named_error_where_numba_has_fewer_threads():
    with pytest.raises(errors.HyperParameterError, match=r"^100000 threads: "), contenders.limited(100_000):
        pass


# pictures


def fabricated():
    def work(n, slot, found):
        records = [{"contender": name, "ns_per_parameter": ns, "of_roof": ns / 0.5} for name, ns in found.items()]
        described = dict(parameters=n, arrays=1, slot=slot, dtype="float32", threads=2, momentum=False, state="param")
        return {**described, "label": f"{n} {slot}", "results": records}

    works = [
        work(1000, "tensor", {"amos_ref": 2.0, "roof": 0.5}),
        work(10, "tensor", {"amos_ref": 4.0, "roof": 0.5, "page": 8.0}),
        work(1000, "row", {"amos_ref": 16.0, "roof": 0.5}),
    ]
    return {"contenders": {"amos_ref": {}, "roof": {}, "page": {}, "absent": {}}, "workloads": works}


def test_the_pictures_are_the_numbers():
    lines = {line.get_label(): line.get_xydata().tolist() for line in plots.speeds(fabricated()).get_lines()}
    assert lines == {"roof": [[10, 2], [1000, 2]], "amos_ref": [[10, 0.25], [1000, 0.5]], "page": [[10, 0.125]]}
    ax = plots.over_roof(fabricated())
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.get_lines()}
    assert lines == {"amos_ref": [[32, 0], [8, 1], [4, 2]], "page": [[16, 1]], "roof": [[1, 0], [1, 1]]}
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1000 row", "10 tensor", "1000 tensor"]


@pytest.mark.usefixtures("only_page")
def test_bench_draws(capsys, tmp_path):
    path = tmp_path / "x.png"
    assert bench(capsys, "--sizes", "7", *BRIEFLY, "--plot", str(path))[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


# starting


def test_start_runs_fresh_processes_with_caches_of_their_own(monkeypatch):
    homes, child = [], start._child

    def noted(backend, cache):
        homes.append(cache)
        return child(backend, cache)

    monkeypatch.setattr(start, "_child", noted)
    found = start.measured("numpy", caches=1, runs=1)
    jsonschema.validate(found, {**SCHEMA["$defs"]["start"], "$defs": SCHEMA["$defs"]})
    assert (found["runs"], found["cold_runs"], found["numba_imported_by"]) == (1, 1, None)
    assert len(homes) == 2
    assert len(set(homes)) == 1
    assert all(0 < x < math.inf for x in found["warm"] + found["cold"])
    with pytest.raises(errors.BackendError, match=r"a fresh process could not take a step: it says .*'abacus'"):
        child("abacus", homes[0])


def test_start_is_printed(capsys, monkeypatch):
    found = dict(array="an array", stages=["one", "two"], warm=[0.25, 1.0], cold=[0.25, 8.0], runs=9, cold_runs=3)
    monkeypatch.setattr(start, "measured", lambda backend: {**found, "numba_imported_by": "two"})
    status, out, _ = bench(capsys, "--start")
    assert status == 0
    assert [line.split() for line in out[-3:]] == [
        ["one", "0.25", "0.25"],
        ["two", "1", "8"],
        ["Numba", "is", "imported", "by:", "two"],
    ]
