"""What examples/ci has for a port's own CI, in a fresh repository: a port that conforms passes, a wrong one does not.

Each step is run as GitHub runs it, by bash; pip alone is a stand-in, as the package under test is there already.
`nox -s build` installs the wheel, and has pre-commit itself run the hook.
"""

import os
import shlex
import subprocess
import sys
from xml.etree import ElementTree

import pytest
import yaml
from helpers import ROOT

CI = ROOT / "examples" / "ci"
WORKFLOW = yaml.safe_load((CI / "check.yml").read_text(encoding="utf-8"))
CONFIG = yaml.safe_load((CI / "pre-commit-config.yaml").read_text(encoding="utf-8"))
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
RIGHT = (ROOT / "examples" / "ports" / "amos_numpy.py").read_text(encoding="utf-8")
WRONG = RIGHT.replace("(gamma / 2 + extra_l2)", "(gamma / 2 - extra_l2)")


@pytest.fixture
def repository(tmp_path):
    """A fresh repository, and an environment in which `python -m pip` writes down what it is to install."""
    folder, bin = tmp_path / "port", tmp_path / "bin"
    folder.mkdir()
    bin.mkdir()
    scripts = {
        "python": 'echo "$@" >> "$INSTALLED"',
        "amos-ref": f'exec {shlex.quote(sys.executable)} -m amos_ref "$@"',
    }
    for name, line in scripts.items():
        (bin / name).write_text(f"#!/bin/sh\n{line}\n")
        (bin / name).chmod(0o755)
    added = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"), "INSTALLED": str(tmp_path / "installed")}
    added |= {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    git("init", "-q", "-b", "main", cwd=folder)
    return folder, os.environ | added | WORKFLOW["env"]


def git(*words, cwd):
    who = ("-c", "user.name=a porter", "-c", "user.email=porter@example.org")
    return subprocess.run(["git", *who, *words], cwd=cwd, capture_output=True, text=True, check=True).stdout


def commit(folder, text):
    (folder / "my_port.py").write_text(text, encoding="utf-8")
    git("add", "-A", cwd=folder)
    git("commit", "-q", "-m", "a port", cwd=folder)


def run_workflow(folder, env):
    """Run the steps of the job; return the outcome of each. After one that failed only those of always() are run."""
    outcomes, failed = {}, False
    for step in WORKFLOW["jobs"]["check"]["steps"]:
        if "run" in step and (not failed or step.get("if") == "always()"):
            argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
            found = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
            outcomes[step["name"]] = found.returncode
            failed = failed or found.returncode != 0
    return outcomes


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("text", [RIGHT, WRONG], ids=["right", "wrong"])
def test_the_workflow_passes_a_port_that_conforms_or_departs_as_listed(text, listed, repository, tmp_path):
    folder, env = repository
    if listed:
        path = folder / "amos-expected.toml"
        commit(folder, WRONG)
        argv = ["amos-ref", "check", env["PORT"], "--write-expect", path.name]
        assert subprocess.run(argv, cwd=folder, env=env, capture_output=True, timeout=100).returncode == 1
        path.write_text(path.read_text(encoding="utf-8").replace('reason = ""', 'reason = "as it is"'))
        assert path.read_text().count('does = ["extra_l2-sign"]') == path.read_text().count("[[departure]]")
    commit(folder, text)
    passes = listed == (text == WRONG)
    assert run_workflow(folder, env) == {"Install": 0, "Check": 0 if passes else 1, "Show the report": 0}
    assert (tmp_path / "installed").read_text() == "-m pip install amos_ref\n"
    suite = ElementTree.parse(folder / "amos.xml").getroot()
    assert (suite.attrib["failures"] == "0") is passes
    assert float(suite.attrib["time"]) > 0
    head = "**amos-ref: conforms**" if passes else "**amos-ref: does not conform**"
    assert (tmp_path / "summary.md").read_text(encoding="utf-8").startswith(head)
    assert sorted(p.name for p in folder.glob("amos.*")) == ["amos.md", "amos.xml"]


@pytest.mark.parametrize(("text", "status"), [(RIGHT, 0), (WRONG, 1)])
def test_the_hook_by_its_entry(text, status, repository):
    folder, env = repository
    commit(folder, text)
    (repo,) = CONFIG["repos"]
    (hook,) = repo["hooks"]
    assert (hook["id"], HOOK["language"], HOOK["pass_filenames"]) == (HOOK["id"], "python", False)
    argv = [*shlex.split(HOOK["entry"]), *hook["args"]]
    found = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    assert found.returncode == status, found.stderr


def test_pre_commit_runs_the_hook(repository):
    """It clones this repository as it is committed, and installs it with pip: `nox -s build` has it and the network."""
    pytest.importorskip("pre_commit")
    folder, env = repository
    env = {key: value for key, value in env.items() if key not in ("PATH", "PYTHONPATH")} | {"PATH": os.environ["PATH"]}
    config = (CI / "pre-commit-config.yaml").read_text(encoding="utf-8")
    config = config.replace("../amos_ref", str(ROOT)).replace("rev: main", f"rev: {git('rev-parse', 'HEAD', cwd=ROOT)}")
    (folder / ".pre-commit-config.yaml").write_text(config, encoding="utf-8")
    for text, status in ((RIGHT, 0), (WRONG, 1)):
        commit(folder, text)
        argv = [sys.executable, "-m", "pre_commit", "run", "--all-files", "--verbose"]
        found = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
        assert found.returncode == status, found.stdout + found.stderr
        assert (" departs, " in found.stdout) is bool(status)
