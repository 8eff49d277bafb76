"""The runners for other languages: the ports in C and JavaScript pass the exported lines, and wrong ones do not."""

import shutil
import subprocess

import pytest
from helpers import ROOT
from helpers.stored_vectors import CLOSED_COMPUTED, COMPUTED

from amos_ref.cli import main

# The ports have no recurrence, and no float16.
PLANNED = [(entry, dtype) for entry, dtype in CLOSED_COMPUTED if entry["options"]["decay"] != "recurrence"]
WIDE = sum(dtype.name in ("float64", "float32") for _, dtype in COMPUTED + PLANNED)
PASSED = f"{WIDE} cases, 25886 numbers compared, 0 beyond their tolerance\n"
LONGEST, WIDEST = 60, 100  # lines of a runner, and characters of a line

EXTRA_L2 = {"C": ("gamma / 2 + o->extra_l2", "gamma / 2 - o->extra_l2"), "JavaScript": ("+ extra_l2", "- extra_l2")}
LATE = {
    "C": ("shrink_of(&options, t + late)", "shrink_of(&options, t + 1)"),
    "JavaScript": ("1 / (1 + t / half_life)", "1 / (1 + (t + 1) / half_life)"),
}


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    assert main(["vectors", "export", "--format", "lines", "--output", str(path)]) == 0
    return path.read_text(encoding="ascii")


class Runner:
    """A runner and its port, in a folder of their own."""

    def __init__(self, language, folder):
        self.language, self.folder = language, folder
        for part in ("examples", "docs/explorer"):
            shutil.copytree(ROOT / part, folder / part)
        self.ports = [folder / "examples/ports/amos.c", *(folder / "docs/explorer").glob("*.mjs")]

    def change(self, right, wrong):
        """Make a mistake in the port, in one place."""
        ports = [path for path in self.ports if right in path.read_text(encoding="utf-8")]
        text = ports[0].read_text(encoding="utf-8")
        assert (len(ports), text.count(right)) == (1, 1)
        ports[0].write_text(text.replace(right, wrong), encoding="utf-8")

    def __call__(self, lines):
        """Return exit status and output."""
        command = ["node", self.folder / "examples/vectors/run.mjs"]
        if self.language == "C":
            command = [self.folder / "run"]
            flags = [
                "-O2",
                "-std=c11",
                "-ffp-contract=off",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-fsanitize=address,undefined",
            ]
            source = self.folder / "examples/vectors/run.c"
            subprocess.run(["cc", *flags, "-o", *command, source, "-lm"], check=True, timeout=120)
        found = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=60)
        assert found.stderr == ""
        return found.returncode, found.stdout


@pytest.fixture(params=[("C", "cc"), ("JavaScript", "node")], ids=lambda param: param[0])
def run(request, tmp_path):
    language, needed = request.param
    if shutil.which(needed) is None:
        pytest.skip(f"there is no {needed}")
    return Runner(language, tmp_path)


@pytest.mark.parametrize("name", ["run.c", "run.mjs"])
def test_a_runner_is_short(name):
    """What the page promises; a line is no wider than can be read."""
    text = (ROOT / "examples" / "vectors" / name).read_text(encoding="utf-8").splitlines()
    assert len(text) <= LONGEST
    assert max(map(len, text)) <= WIDEST


def test_a_right_port_passes(run, lines):
    assert run(lines) == (0, PASSED)


def test_a_wrong_port_does_not(run, lines):
    run.change(*EXTRA_L2[run.language])
    status, said = run(lines)
    assert status == 1
    found = said.splitlines()
    assert found[0].startswith("extra_l2/float64 step 1: theta of ")
    wrong = {line.split("/")[0] for line in found[:-1]}
    assert wrong == {e["id"].split("/")[0] for e, d in COMPUTED if int(e["options"]["extra_l2"], 16) and d.itemsize > 2}


def test_a_wrong_port_of_the_closed_form_does_not_pass(run, lines):
    run.change(*LATE[run.language])
    status, said = run(lines)
    assert status == 1
    wrong = {line.split("/")[0] for line in said.splitlines()[:-1]}
    # Where exp(-2 S) is nearly the same one step later, or nothing moves, the mistake does not show.
    alike = {"closed-defaults", "closed-empty", "closed-empty-slots", "closed-init-empty", "closed-subnormal"}
    alike |= {name for name in wrong | {e["id"].split("/")[0] for e, _ in PLANNED} if "late" in name}
    shown = {e["id"].split("/")[0] for e, d in PLANNED if d.itemsize > 2 and e["options"]["decay"] == "inverse-time"}
    assert wrong >= shown - alike
    assert all(name.startswith("closed-") for name in wrong)


def test_a_port_that_forgets_that_the_state_was_set_does_not_pass(run, lines):
    """Lines that set v, b or m before a later step are those of cases that start from a state."""
    kept, stepped = [], False
    for line in lines.splitlines(keepends=True):
        what = line.split(" ", 1)[0]
        stepped = what != "case" and (stepped or what == "step")
        kept += [] if stepped and what == "set" else [line]
    status, said = run("".join(kept))
    assert status == 1
    wrong = {line.split("/")[0] for line in said.splitlines()[:-1]}
    assert wrong == {e["id"].split("/")[0] for e, d in COMPUTED if "injected-state" in e["flags"] and d.itemsize > 2}


def test_one_wrong_bit_and_no_cases_are_no_pass(run, lines):
    at = lines.index("want kernel theta ", lines.index("case none-gradient/float32 ")) + len("want kernel theta ")
    status, said = run(lines[:at] + "7" + lines[at + 1 :])
    assert (status, said.count("\n")) == (1, 2)
    assert said.startswith("none-gradient/float32 step 1: theta of kernel is ")
    assert run("") == (1, "0 cases, 0 numbers compared, 0 beyond their tolerance\n")


def test_nan_is_no_pass(run, lines):
    at = lines.index("grad kernel ", lines.index("case plain/float32 ")) + len("grad kernel ")
    status, said = run(lines[:at] + "7ff8000000000000" + lines[at + 16 :])
    assert status == 1
    assert said.startswith("plain/float32 step 1: theta of kernel is ")


def test_each_case_that_could_be_compared_was(run, tmp_path):
    """Every number with a tolerance, in float64 and float32, is looked at."""
    total = 0
    for entry, dtype in COMPUTED + PLANNED:
        for step in entry["steps"] if dtype.itemsize > 2 else ():
            for leaf in step["leaves"].values():
                total += sum(len(bits) // 16 for bits in (leaf["tolerance"] or {}).values())
    assert str(total) in PASSED
    path = tmp_path / "one.txt"
    assert main(["vectors", "export", "--format", "lines", "--case", "long/float64", "--output", str(path)]) == 0
    text = path.read_text(encoding="ascii")
    assert text.count("\nstep ") == 1000
    assert run(text) == (0, "1 cases, 24 numbers compared, 0 beyond their tolerance\n")
