"""The runners for other languages: the ports in C and JavaScript pass the exported archive, and wrong ones do not."""

import json
import shutil
import subprocess
import zipfile

import pytest
from helpers import ROOT
from helpers.stored_vectors import CLOSED_COMPUTED, COMPUTED

from amos_ref.cli import main

PORTS, RUNNERS = ROOT / "examples" / "ports", ROOT / "examples" / "vectors"
# The ports have no recurrence, and no float16.
PLANNED = [(entry, dtype) for entry, dtype in CLOSED_COMPUTED if entry["options"]["decay"] != "recurrence"]
WIDE = sum(dtype.name in ("float64", "float32") for _, dtype in COMPUTED + PLANNED)
PASSED = f"{WIDE} cases, 25886 numbers compared, 0 beyond their tolerance\n"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.zip"
    assert main(["vectors", "export", "--format", "zip", "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    made = tmp_path_factory.mktemp("c") / "run"
    flags = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    subprocess.run(["cc", *flags, "-o", made, RUNNERS / "run.c", "-lm"], check=True, timeout=120)
    return made


@pytest.fixture(params=["C", "JavaScript"])
def run(request):
    """Return a function that runs the vectors of a file over a port, and returns exit status and output."""
    if request.param == "C":
        command = [request.getfixturevalue("program")]
    elif shutil.which("node") is None:
        pytest.skip("there is no node")

    def of(path, *options):
        if request.param == "C":
            with open(path, "rb") as file:
                found = subprocess.run([*command, *options], stdin=file, capture_output=True, text=True, timeout=60)
        else:
            argv = ["node", RUNNERS / "run.mjs", path, "node", PORTS / "amos.mjs", *options]
            found = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert found.stderr == ""
        return found.returncode, found.stdout

    return of


def test_a_right_port_passes(run, archive):
    assert run(archive) == (0, PASSED)


def test_a_wrong_port_does_not(run, archive):
    status, said = run(archive, "--broken=extra_l2-sign")
    assert status == 1
    lines = said.splitlines()
    assert lines[0].startswith("extra_l2/float32 step 1: theta[")
    wrong = {line.split("/")[0] for line in lines[:-1]}
    assert wrong == {e["id"].split("/")[0] for e, d in COMPUTED if int(e["options"]["extra_l2"], 16) and d.itemsize > 2}


def test_a_wrong_port_of_the_closed_form_does_not_pass(run, archive):
    status, said = run(archive, "--broken=t-from-1")
    assert status == 1
    wrong = {line.split("/")[0] for line in said.splitlines()[:-1]}
    # Where exp(-2 S) is nearly the same one step later, or nothing moves, the mistake does not show.
    alike = {"closed-defaults", "closed-empty", "closed-empty-slots", "closed-init-empty", "closed-subnormal"}
    alike |= {name for name in wrong | {e["id"].split("/")[0] for e, _ in PLANNED} if "late" in name}
    assert wrong >= {e["id"].split("/")[0] for e, d in PLANNED if d.itemsize > 2} - alike
    assert all(name.startswith("closed-") for name in wrong)


def test_one_wrong_bit_and_no_cases_are_no_pass(run, archive, tmp_path):
    path = tmp_path / "damaged.json"
    with zipfile.ZipFile(archive) as members:
        text = members.read("paper-float32.json").decode()
    at = text.index('"post":{"theta":"', text.index("none-gradient/float32")) + len('"post":{"theta":"')
    path.write_text(text[:at] + "7" + text[at + 1 :])
    status, said = run(path)
    assert (status, said.count("\n")) == (1, 2)
    assert said.startswith("none-gradient/float32 step 1: theta[0] of ")
    path.write_text("{}\n")
    assert run(path) == (1, "0 cases, 0 numbers compared, 0 beyond their tolerance\n")


def test_each_case_that_could_be_compared_was(run, tmp_path):
    """Every number with a tolerance, in float64 and float32, is looked at."""
    total = 0
    for entry, dtype in COMPUTED + PLANNED:
        for step in entry["steps"] if dtype.itemsize > 2 else ():
            for leaf in step["leaves"].values():
                total += sum(len(bits) // 16 for bits in (leaf["tolerance"] or {}).values())
    assert str(total) in PASSED
    path = tmp_path / "one.json"
    assert main(["vectors", "export", "--format", "json", "--case", "long/float64", "--output", str(path)]) == 0
    assert json.loads(path.read_text())["groups"][0]["cases"][0]["steps"][-1]["t"] == 1000
    assert run(path) == (0, "1 cases, 24 numbers compared, 0 beyond their tolerance\n")
