"""The benchmark on a GPU: a whole report, and that what is timed are steps. No test looks at the time."""

import importlib.resources
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from amos_ref.bench import contenders, cuda, gpu, workloads

SCHEMA = json.loads((importlib.resources.files("amos_ref.bench") / "bench.schema.json").read_text())


@pytest.fixture(autouse=True)
def _memory_is_left(monkeypatch):
    """JAX takes most of the GPU's memory when it is first used."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def work_of(text, **changed):
    made = workloads.tree(text) if "x" in text else workloads.sized(text)
    return replace(made, threads=0, **changed)


def test_a_report_with_everyone_who_is_installed():
    jsonschema = pytest.importorskip("jsonschema")
    command = [sys.executable, "-m", "amos_ref", "bench", "--backend", "cuda", "--sizes", "1e4", "--rounds", "20"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, SCHEMA)
    (work,) = report["workloads"]
    found = {record["contender"]: record for record in work["results"]}
    assert {"amos_ref", "roof"} <= found.keys()
    assert {record["rounds"] for record in found.values()} == {20}
    assert not [skip for skip in work["skipped"] if not skip["reason"].startswith("not installed")]
    assert report["machine"]["gpu"]["name"] == gpu.described()["name"]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        *(("1e4", dict(slot=slot)) for slot in workloads.SLOTS),
        ("1e4", dict(dtype="bfloat16", momentum=True)),
        ("1e7", dict(state="float64", momentum=True)),
        ("100x64", dict(slot="row", dtype="float16")),
    ],
)
def test_ours_has_the_bits_of_the_cpu_kernels_after_as_many_steps(text, changed):
    work = work_of(text, **changed)
    made = cuda.Kernels.ready(work)
    made.steps(7)
    for copy in {id(c): c for c in (made.made[0], made.made[-1])}.values():
        expected = contenders.Kernels(replace(work, threads=1))
        for _ in range(copy.state.count):
            expected.run()
        for name, a in expected.values().items():
            assert copy.values()[name].tobytes() == a.tobytes(), name


def test_the_roof_copies_all_it_has():
    made = cuda.Copy(work_of("1e6", slot="element"))
    made.run()
    found = made.values()
    assert np.array_equal(found["source"], found["target"])
    assert found["source"].nbytes + found["target"].nbytes == made.work.bytes


def test_a_replay_of_torch_takes_the_step_that_a_call_takes():
    for name in ("torch-fused", "torch-eager"):
        if reason := contenders.contender(name, "cuda").missing():
            pytest.skip(reason)
    replayed, called = (contenders.contender(name, "cuda")(work_of("1e4")) for name in ("torch-fused", "torch-eager"))
    called.run()  # as the first one did before it was recorded
    for _ in range(3):
        replayed.run()
        called.run()
    assert np.array_equal(replayed.values()["leaf0000"], called.values()["leaf0000"])


@pytest.mark.parametrize("name", ["torch-foreach", "pytorch_optimizer", "jestimator", "optax"])
def test_a_peer_moves_its_parameters_on_the_gpu(name):
    cls = contenders.contender(name, "cuda")
    if reason := cls.missing():
        pytest.skip(reason)
    made = cls.ready(work_of("1e4"))
    before = [copy.values()["leaf0000"] for copy in made.made]
    made.steps(made.copies)
    changed = [not np.array_equal(a, copy.values()["leaf0000"]) for a, copy in zip(before, made.made, strict=True)]
    assert all(changed)
