"""docs/explorer/closed_form.mjs over the stored vectors, and wrong versions of it."""

import shutil
import subprocess

import pytest
from helpers import ROOT

from amos_ref.cli import main


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "closed.txt"
    assert main(["vectors", "export", "--format", "lines", "--algorithm", "closed-form", "--output", str(path)]) == 0
    return path.read_text(encoding="ascii")


def compared(root, vectors):
    """Exit status, and the cases that were found to be wrong."""
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    command = ["node", root / "examples/vectors/run.mjs"]
    done = subprocess.run(command, input=vectors, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, {line.split("/")[0] for line in done.stdout.splitlines()[:-1]}


def test_it_is_within_the_tolerances(vectors):
    assert compared(ROOT, vectors) == (0, set())


WRONG = [
    ("1 / (1 + t / half_life)", "1 / (1 + (t + 1) / half_life)", "plain"),
    ("1 / (1 + x * (2 + x))", "1 / (1 + x * (1 + x))", "square"),
    ("1 / (2 * alpha_0 * p_0)", "1 / (alpha_0 * p_0)", "p_0"),
    ("(Math.sqrt(2) - 1) / (alpha_0 * p_0)", "0.5 / (alpha_0 * p_0)", "square-p_0"),
    ("Math.max(u2, epsilon)", "(u2 + epsilon)", "epsilon"),
    ("(2 * q)", "2", "q"),
    ("g.map(Math.sign)", "g.map((x) => (x < 0 ? -1 : 1))", "sign"),
    ("oneMinusPower(beta2, t + 1)", "oneMinusPower(beta2, t + 2)", "adam"),
    ("+ adam_epsilon);", "+ 2 * adam_epsilon);", "adam-epsilon"),
    ("u2[slot[i]] += (x * x) / size", "u2[0] += (x * x) / size", "slots-rows"),
    ("Math.max(x, -clip_value)", "x", "clip"),
]


@pytest.mark.parametrize(("right", "wrong", "case"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_version_is_caught(tmp_path, vectors, right, wrong, case):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    page = shutil.copytree(ROOT / "docs" / "explorer", tmp_path / "docs" / "explorer") / "closed_form.mjs"
    text = page.read_text(encoding="utf-8")
    assert text.count(right) == 1
    page.write_text(text.replace(right, wrong), encoding="utf-8")
    status, seen = compared(tmp_path, vectors)
    assert status == 1
    assert f"closed-{case}" in seen
