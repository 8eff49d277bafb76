"""Optimizers of Keras 3 on both of its backends: a right one conforms, a wrong one departs at its stage."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")
if not any((pathlib.Path(folder) / "keras").is_dir() for folder in sys.path):
    pytest.skip("there is no keras", allow_module_level=True)  # importing it would need its backend first

PORTS = pathlib.Path(__file__).with_name("keras_amos.py")


def check(backend, name, *options):
    """Keras takes its backend from the environment when it is imported, so each check is a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "amos_ref", "check", f"{PORTS}:{name}", "--json", *options],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode in (0, 1), found.stderr
    return json.loads(found.stdout)


def verdicts(backend, name):
    return {(r["case"], r["dtype"]): r for r in check(backend, name)["results"]}


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_right_optimizer_conforms_and_shows_its_state(backend):
    results = verdicts(backend, "Amos")
    others = {key: r["verdict"] for key, r in results.items() if r["verdict"] not in ("conforms", "not supported")}
    assert others == {("count-2^31", "float32"): "not finite"}  # Keras counts in int32
    cases = ("plain", "defaults", "extra_l2", "schedule", "none-gradient", "none-at-first", "4-d")
    for case in cases:
        assert results[case, "float32"]["verdict"] == "conforms"
        assert "something else than ours" not in results[case, "float32"]["detail"]
        assert (case, "float64") not in results  # Keras computes float64 in float32


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_wrong_optimizer_departs(backend):
    results = verdicts(backend, "Outside")
    departing = {case for (case, _), r in results.items() if r["verdict"] == "departs"}
    assert departing == {"extra_l2", "aged-extra_l2", "aged-rest"}
    assert {r["stage"] for r in results.values() if r["verdict"] == "departs"} == {"theta"}


def test_an_eta_that_is_a_number_makes_an_optimizer_a_leaf():
    results = verdicts("torch", "Number")
    assert results["plain", "float32"]["verdict"] == results["extra_l2", "float32"]["verdict"] == "conforms"
    assert results["none-gradient", "float32"]["detail"] == "the port's framework has no gradient of None"


def test_get_scale_is_asked_and_state_is_read_from_lists():
    report = check("torch", "Listed")
    results = {r["case"]: r for r in report["results"]}
    assert results["0-d"]["verdict"] == "raises"
    assert "asked for its eta of leaf 'x', of shape (): IndexError" in results["0-d"]["detail"]
    assert "could not be set" not in results["aged"]["detail"]
    left = {r["verdict"] for case, r in results.items() if case not in ("0-d", "count-2^31")}  # Keras counts in int32
    assert left == {"conforms", "not supported"}
    assert results["aged"]["verdict"] == "conforms"  # v and b were set, so they were found
    assert [note["option"] for note in report["notes"]] == ["beta"]  # what is Keras's own is no news


def test_the_closed_form():
    closed = "--algorithm", "closed-form", "--case", "plain,q-large,sigma-init,none-gradient,slots-rows"
    right, wrong = (
        {r["case"]: r for r in check("torch", name, *closed)["results"]} for name in ("ClosedForm", "FromOne")
    )
    lacking = {"slots-rows": "the port has no slot_shape"}
    assert {case: r["detail"] for case, r in right.items() if r["verdict"] != "conforms"} == lacking
    assert (wrong["plain"]["verdict"], wrong["plain"]["step"], wrong["plain"]["stage"]) == ("departs", 1, "theta")
