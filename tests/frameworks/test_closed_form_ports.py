"""Ports of the closed form as torch's and optax's users write them: right ones conform, wrong ones depart."""

import pytest

from amos_ref.conformance import check

# JAX and torch warn of their own affairs while they are imported and used.
pytestmark = pytest.mark.filterwarnings("default")


#: float16 does not hold epsilon, 2^-125: a slot without gradients is 0/0.
IN_FLOAT16 = ["zero-gradients/float16", "sigma-init-special/float16"]


@pytest.fixture
def torch_ports():
    pytest.importorskip("torch")
    from helpers import closed_form_torch

    return closed_form_torch


@pytest.fixture
def optax_ports():
    pytest.importorskip("optax")
    from helpers import closed_form_optax

    return closed_form_optax


def judged(target, **options):
    report = check(target, algorithm="closed-form", **options)
    return report, {(r.case, r.dtype): r for r in report.results}


def test_a_right_optimizer_of_torch_conforms(torch_ports):
    report, found = judged(torch_ports.ClosedForm, skip=IN_FLOAT16)
    assert report.ok, str(report)
    for case in ("plain", "sigma-init", "adam"):
        assert {r.verdict for (name, _), r in found.items() if name == case} == {"conforms"}, case
    assert {dtype for _, dtype in found} == {"float64", "float32", "bfloat16", "float16"}


def test_a_state_that_is_made_at_the_construction_has_each_leafs_sigma(torch_ports):
    report, found = judged(torch_ports.Early, dtypes="float64", cases=("plain", "sigma-init", "adam"))
    assert report.ok, str(report)
    assert {r.verdict for r in found.values()} == {"conforms"}


def test_a_wrong_optimizer_of_torch_departs(torch_ports):
    _, found = judged(torch_ports.Linear, dtypes="float64")
    assert found["plain", "float64"].verdict == "departs"
    assert "rho is 0.125 (page 0.03125)" in found["plain", "float64"].detail


def test_a_right_transformation_of_optax_conforms(optax_ports):
    report, found = judged(optax_ports.closed_form, skip=IN_FLOAT16)
    assert report.ok, str(report)
    for case in ("plain", "sigma-init"):
        assert {r.verdict for (name, _), r in found.items() if name == case} == {"conforms"}, case
    assert found["adam", "float64"].detail == "the port has no direction 'adam'"


def test_a_transformation_is_given_the_word_init_or_a_function_of_a_leaf(optax_ports):
    _, found = judged(optax_ports.by_word, dtypes="float64", cases="plain,sigma-init*")
    assert {name: found[name, "float64"].verdict for name in ("plain", "sigma-init")} == {
        "plain": "conforms",
        "sigma-init": "conforms",
    }


def test_a_wrong_transformation_of_optax_departs(optax_ports):
    _, found = judged(optax_ports.from_one, dtypes="float64")
    assert (found["plain", "float64"].verdict, found["plain", "float64"].step) == ("departs", 1)


def lives(found):
    return {name.removeprefix("life-"): r.verdict for (name, _), r in found.items() if name.startswith("life-")}


def test_the_life_of_an_optimizer_of_torch(torch_ports):
    _, right = judged(torch_ports.ClosedForm, dtypes="float64", cases="life-*")
    kept = [f"{event}{what}" for event in ("state_dict", "pickle", "deepcopy") for what in ("", "-sigma", "-adam")]
    for case in (*kept, "state_dict-otherwise", "groups", "groups-half_life", "add_param_group", "frozen", "closure"):
        assert lives(right)[case] == "conforms", case
    _, wrong = judged(torch_ports.Forgets, dtypes="float64", cases="life-*")
    assert {case for case, verdict in lives(wrong).items() if verdict == "departs"} == {
        *("state_dict", "state_dict-sigma", "state_dict-otherwise"),
    }


def test_the_life_of_a_transformation_of_optax(optax_ports):
    _, found = judged(optax_ports.closed_form, dtypes="float64", cases="life-*")
    for case in ("state_dict-sigma", "pickle", "jit-sigma", "donate", "masked", "groups-half_life", "multi-steps"):
        assert lives(found)[case] == "conforms", case
