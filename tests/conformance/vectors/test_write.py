"""The files: what the tool writes, to the byte; their schema, the oracle's numbers, and tolerances that hold."""

import collections
import copy
import re
import sys

import jsonschema
import numpy as np
import pytest
from helpers import ROOT
from helpers.stored_vectors import CLOSED, CLOSED_COMPUTED, COMPUTED, FOLDER, SCHEMA, STORED, find
from helpers.toy_port import ToyPort

from amos_ref import exact, spec
from amos_ref.conformance.judging.evaluation import draw
from amos_ref.conformance.vectors import read as vectors
from amos_ref.conformance.vectors import write as vector_writer
from amos_ref.conformance.vectors.cases import vector_cases
from amos_ref.conformance.vectors.entries import tolerances
from amos_ref.errors import MissingDependencyError
from tools import exactness

F64 = np.dtype(np.float64)


# the files


@pytest.mark.parametrize("name", vectors.VECTOR_DTYPES)
@pytest.mark.parametrize("algorithm", vectors.VECTOR_ALGORITHMS)
def test_the_files_are_what_the_tool_writes(name, algorithm):
    assert vector_writer.text_of(name, algorithm) == (FOLDER / f"{algorithm}-{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", vectors.VECTOR_DTYPES)
@pytest.mark.parametrize("stored", [STORED, CLOSED], ids=vectors.VECTOR_ALGORITHMS)
def test_the_files_follow_the_schema(name, stored):
    jsonschema.Draft202012Validator(SCHEMA).validate(stored[name])
    assert stored[name]["groups"][0]["dtype"] == name


def test_the_schema_allows_nothing_else():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    def walk(node):
        if isinstance(node, dict):
            assert node.get("additionalProperties", False) is False
            assert node.get("type") != "object" or "additionalProperties" in node
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(child)

    walk(SCHEMA)


@pytest.mark.parametrize(
    "damage",
    [
        lambda case: case.update(comment="x"),
        lambda case: case.pop("flags"),
        lambda case: case["options"].update(beta="0.75"),
        lambda case: case["steps"][0]["leaves"]["bias"]["pre"].update(v="3FF0000000000000"),
        lambda case: case["steps"][0]["leaves"]["bias"]["real"].pop("gamma"),
        lambda case: case["steps"][0].update(t=0),
    ],
)
def test_the_schema_sees_damage(damage):
    check_damage(STORED, damage)


@pytest.mark.parametrize(
    "damage",
    [
        lambda case: case["options"].pop("decay"),
        lambda case: case["options"].update(direction="adamw"),
        lambda case: case["options"].update(beta=case["options"]["q"]),
        lambda case: case["leaves"]["bias"].pop("sigma"),
        lambda case: case["steps"][0].pop("shrink"),
        lambda case: case["steps"][0]["real"].pop("S"),
        lambda case: case["steps"][0]["leaves"]["bias"]["real"].pop("u2"),
        lambda case: case["steps"][0]["leaves"]["bias"]["pre"].update(b=""),
        lambda case: case["steps"][0].update(t=-1),
    ],
)
def test_the_schema_sees_damage_of_the_closed_form(damage):
    check_damage(CLOSED, damage)


def check_damage(stored, damage):
    document = copy.deepcopy(stored["float32"])
    damage(document["groups"][0]["cases"][0])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(document)


@pytest.mark.parametrize(
    ("package", "install"), [("ml_dtypes", "--force-reinstall ml_dtypes"), ("flint", "'amos_ref[oracle]'")]
)
def test_a_missing_package_is_a_named_error(package, install, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=re.escape(f"pip install {install}")):
        vector_writer.generate("bfloat16")


# the oracle


def given_steps(entry, dtype):
    """Yield what the oracle and the page need for each stored step of each leaf, and the leaf's bits."""
    case = vectors.StoredCase(entry, dtype)
    hyper = {"momentum": None, "clip_value": None} | {k: vectors.number(x) for k, x in entry["options"].items()}
    for step in entry["steps"]:
        before, xi = case.state(step, "pre"), vectors.number(step["learning_rate"])
        for name, leaf in step["leaves"].items():
            if leaf["g"] is not None:
                arrays = {what: held[name] for what, held in before.items()} | {"g": case.array(leaf["g"], name, "g")}
                full = hyper | dict(xi=xi, eta=vectors.number(entry["leaves"][name]["eta"]))
                m = {"m": arrays.get("m")}
                yield exactness.Step(arrays | m, step["t"], full, dtype.name, "float64"), case, name, leaf


def test_page_and_oracle_agree_within_the_counted_roundings():
    """real is itself half an ulp off at most; what is below the normal numbers may be a few subnormal units off."""
    equal, seen = collections.Counter(), collections.Counter()
    for entry, dtype in COMPUTED:
        for given, case, name, leaf in given_steps(entry, dtype):
            got = exactness.run_page(given)
            for quantity, bound in exactness.bound_errors(given, got)[1].items():
                if quantity == "theta":
                    continue
                real = case.array(leaf["real"][quantity], name, quantity)
                assert (abs(got[quantity] - real) <= bound + abs(np.spacing(real)) / 2).all(), f"{case.id}: {quantity}"
                with np.errstate(all="ignore"):
                    equal[quantity] += int(np.sum(np.float32(got[quantity]) == np.float32(real)))
                seen[quantity] += real.size
    assert sum(seen.values()) > 20_000
    assert sum(seen.values()) - sum(equal.values()) <= 3  # v of one step, halfway between two floats


def test_stored_parameters_are_the_oracles_correctly_rounded():
    right = collections.Counter()
    for entry, dtype in COMPUTED:
        for given, case, name, leaf in given_steps(entry, dtype):
            theta = case.array(leaf["post"]["theta"], name, "theta")
            real = exact.step(**given.arrays, t=given.t, dtype=dtype.name, **given.hyper)["theta"]
            right[dtype.name, "all"] += theta.size
            right[dtype.name, "equal"] += int(np.sum(theta == real))
    for name in ("float32", "float16", "bfloat16"):
        assert right[name, "equal"] == right[name, "all"] > 1000


def test_a_wrong_page_is_seen_by_the_oracle(monkeypatch):
    monkeypatch.setattr(spec, "grown", lambda b, gamma: b + gamma * b)
    with pytest.raises(AssertionError, match=": b"):
        test_page_and_oracle_agree_within_the_counted_roundings()


# the tolerances


def farthest(entry, dtype, wrong=""):
    """How many tolerances a port in the group's dtype is away from post, at most; it runs from the start."""
    case = vectors.StoredCase(entry, dtype)
    steps = list(case.steps())
    hyper = {key: vectors.number(text) for key, text in entry["options"].items()}
    hyper |= {"learning_rate": [rate for _, _, rate, _ in steps], "slot_shape": case.slots}
    hyper |= {"eta": {name: vectors.number(leaf["eta"]) for name, leaf in entry["leaves"].items()}}
    if dtype == np.float16:
        hyper["epsilon"] = max(hyper["epsilon"], 2.0**-14)  # 2^-125 would be 0
    port, most = ToyPort(wrong), 0.0
    port.init(case.state(entry["steps"][0], "pre")["theta"], hyper)
    for t, step, _, grads in steps:
        if t > 1 and step and "injected-state" in entry["flags"] and t == 2:
            for what, held in case.state(step, "pre").items():
                setattr(port, what.replace("theta", "p"), {name: a.astype(dtype) for name, a in held.items()})
        shown = {"theta": port.step(grads), **port.state()}
        for name, leaf in step["leaves"].items() if step else ():
            for what, text in (leaf["tolerance"] or {}).items():
                off = abs(shown[what][name].astype(F64) - case.array(leaf["post"][what], name, what).astype(F64))
                allowed = case.array(text, name, what, "tolerance")
                ratio = np.divide(off, allowed, out=np.where(off > 0, np.inf, 0.0), where=allowed > 0)
                most = max(most, float(ratio.max(initial=0.0)))
    return most


def test_tolerances_are_numbers():
    unknown = set()
    for entry, dtype in COMPUTED:
        case = vectors.StoredCase(entry, dtype)
        for name, leaf in ((name, leaf) for step in entry["steps"] for name, leaf in step["leaves"].items()):
            if leaf["tolerance"] is None:
                unknown.add(case.id)
            for what, text in (leaf["tolerance"] or {}).items():
                a = case.array(text, name, what, "tolerance")
                assert ((a >= 0) & np.isfinite(a)).all(), case.id
    assert unknown == {"defaults/float16", "subnormal/float32", "subnormal/float16", "subnormal/bfloat16"}
    closed = {entry["id"] for entry, _ in CLOSED_COMPUTED if _lacks_tolerance(entry)}
    narrow = {"closed-adam-defaults/float16", "closed-subnormal/float16", "closed-subnormal/bfloat16"}
    assert closed == {*narrow, "closed-late-recurrence/float32"}
    said = (ROOT / "docs/vectors.md").read_text(encoding="utf-8").split("It is null where none\n")[1].split("\n\n")[0]
    for words in ("subnormal", "0.999", *(case_id.split("/")[0] for case_id in closed - narrow)):
        assert words in said


def _lacks_tolerance(entry):
    return any(leaf["tolerance"] is None for step in entry["steps"] for leaf in step["leaves"].values())


def test_measured_tolerances_hold_for_right_evaluations_that_were_not_measured():
    """The envelope's members have other seeds, and its margin was found on the judge's cases."""
    for name in ("float16", "bfloat16"):
        for case in (vector.case for vector in vector_cases(name) if not vector.error):
            moments = tolerances(case)
            for seed in (1000,) if moments else ():
                for now, steps in zip(moments, draw(name, seed).reading().run(case, case.eta), strict=True):
                    for leaf, moment in now.items():
                        for what in moment.allowed:
                            gap = abs(np.asarray(getattr(steps[leaf], what)) - getattr(moment.step, what))
                            assert (gap <= moment.allowed[what]).all(), f"{case.name}/{name}: {what}"


@pytest.mark.parametrize("name", vectors.VECTOR_DTYPES)
def test_a_right_port_stays_within_the_tolerances(name):
    """But for what this port cannot do: take the mean of nothing, and in float16 square a subnormal number."""
    beyond = {"empty"} | ({"subnormal"} if name == "float16" else set())
    known = [entry for entry, dtype in COMPUTED if dtype.name == name and not beyond & set(entry["flags"])]
    assert len(known) > 25
    ratios = {entry["id"]: farthest(entry, vectors.dtype_of(name)) for entry in known}
    assert max(ratios.values()) <= 1, ratios


@pytest.mark.parametrize(
    ("case_id", "wrong"),
    [
        ("plain/float32", "sum for mean"),
        ("decayed/float32", "gamma without c"),
        ("slots-columns/float32", "sum for mean"),
        ("aged-extra_l2/float32", "extra_l2 outside d"),
        ("long/float32", "momentum debiased"),
        ("none-gradient/float64", "None is zero"),
        ("subnormal-theta/float64", "bias one off"),
        ("aged-rest/bfloat16", "extra_l2 outside d"),
        ("clip/float16", "clip after"),
    ],
)
def test_a_wrong_port_does_not(case_id, wrong):
    assert farthest(*find(case_id), wrong) > 1
