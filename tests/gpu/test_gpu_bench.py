"""The benchmark on a GPU: a whole report, and that what is timed are steps. No test looks at the time."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.benchmark import SCHEMA

from amos_ref.bench import contenders, cpu, cuda, gpu, workloads
from amos_ref.kernels.cuda import arrays


@pytest.fixture(autouse=True)
def _memory_is_left(monkeypatch):
    """JAX takes most of the GPU's memory when it is first used."""
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def work_of(text, **changed):
    parse = workloads.parse_tree if "x" in text else workloads.parse_size
    return replace(parse(text), threads=0, **changed)


def read(stepper):
    """Return the only array of a contender of torch or JAX."""
    p = stepper.params["leaf0000"]
    return p.detach().cpu().numpy() if hasattr(p, "detach") else np.array(p)


def test_a_report_with_everyone_who_is_installed():
    jsonschema = pytest.importorskip("jsonschema")
    command = [sys.executable, "-m", "amos_ref", "bench", "--backend", "cuda", "--sizes", "1e4", "--rounds", "20"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    jsonschema.validate(report, SCHEMA)
    (work,) = report["workloads"]
    records = {record["contender"]: record for record in work["results"]}
    assert {"amos_ref", "roof"} <= records.keys()
    assert {record["rounds"] for record in records.values()} == {20}
    assert not [skip for skip in work["skipped"] if not skip["reason"].startswith("not installed")]
    assert report["machine"]["gpu"]["name"] == gpu.describe()["name"]


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        *(("1e4", dict(slot=slot)) for slot in workloads.SLOT_NAMES),
        ("1e4", dict(dtype="bfloat16", momentum=True)),
        ("1e7", dict(state="float64", momentum=True)),
        ("100x64", dict(slot="row", dtype="float16")),
    ],
)
def test_ours_has_the_bits_of_the_cpu_kernels_after_as_many_steps(text, changed):
    work = work_of(text, **changed)
    rotation = cuda.CUDA_KERNELS.prepare(work)
    rotation.time_steps(7)
    for copy in {id(c): c for c in (rotation.copies[0], rotation.copies[-1])}.values():
        expected = cpu.AmosStepper(replace(work, threads=1), "cpu")
        for _ in range(copy.taken):
            expected.run()
        for name, a in expected.params.items():
            found = arrays.download(arrays.device_array(copy.amos.params[name], name))
            assert found.tobytes() == a.tobytes(), name


def test_the_roof_copies_all_it_has():
    work = work_of("1e6", slot="element")
    copy = cuda.DeviceCopy(work)
    copy.run()
    source, target = (arrays.download(a).view(np.uint64) for a in (copy.source, copy.target))
    assert np.array_equal(source, target)
    assert source.nbytes + target.nbytes == work.bytes


def test_a_replay_of_torch_takes_the_step_that_a_call_takes():
    for name in ("torch-fused", "torch-eager"):
        if reason := contenders.find_contender(name, "cuda").find_missing():
            pytest.skip(reason)
    replayed, called = (
        contenders.find_contender(name, "cuda").build(work_of("1e4")) for name in ("torch-fused", "torch-eager")
    )
    called.run()  # as the first one did before it was recorded
    for _ in range(3):
        replayed.run()
        called.run()
    assert np.array_equal(read(replayed), read(called))


@pytest.mark.parametrize("name", ["torch-foreach", "pytorch_optimizer", "jestimator", "optax"])
def test_a_peer_moves_its_parameters_on_the_gpu(name):
    contender = contenders.find_contender(name, "cuda")
    if reason := contender.find_missing():
        pytest.skip(reason)
    rotation = contender.prepare(work_of("1e4"))
    before = [read(copy) for copy in rotation.copies]
    rotation.time_steps(len(before))
    after = [read(copy) for copy in rotation.copies]
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
