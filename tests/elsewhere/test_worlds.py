"""What a user does gives the same on other systems, in other languages and in odd places: docs/platforms.md."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, TESTS

import amos_ref

WORLDS = {
    "windows": {"AMOS_REF_ELSEWHERE": "windows"},
    "macos": {"AMOS_REF_ELSEWHERE": "macos"},
    "ASCII": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no home, no place for temporary files": dict(HOME=None, XDG_CACHE_HOME=None, TMPDIR="/dev/null/nowhere"),
    "a small terminal": {"TERM": "dumb", "COLUMNS": "20", "PYTHONIOENCODING": "ascii"},
}


def travel(place, changes, root=ROOT):
    """Run the journey in a folder of a name with spaces and letters beyond ASCII; return what it found."""
    path = os.pathsep.join(map(str, (TESTS / "helpers" / "elsewhere", root)))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONWARNDEFAULTENCODING": "1", **changes}
    environment = {key: value for key, value in environment.items() if value is not None}
    folder = place / "mein Örtchen"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [sys.executable, str(TESTS / "helpers" / "journey.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    # A file that is opened without an encoding is another file on another system.
    assert [line for line in done.stderr.splitlines() if "EncodingWarning" in line and "amos_ref" in line] == []
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def here(place):
    return travel(place, {})


def test_the_journey_goes_everywhere(here):
    statuses = [found[0] for what, found in here.items() if what[0].isdigit()]
    assert statuses == [0, 0, 0, 0, 0, 1, 1, 0, 2]
    assert here["Amos numpy"] != here["ClosedFormAmos numpy"]
    assert here["reports"] == [True, True]


@pytest.mark.parametrize("changes", WORLDS.values(), ids=WORLDS)
def test_the_same_comes_of_it_elsewhere(changes, place, here):
    assert travel(place, changes) == here


def test_the_same_comes_of_it_on_windows_of_western_europe(place, here, tmp_path):
    try:
        subprocess.run(["localedef", "-i", "en_US", "-f", "CP1252", tmp_path / "en_US.CP1252"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no such locale can be made here: {error}")
    text = {"LOCPATH": str(tmp_path), "LC_ALL": "en_US.CP1252", "PYTHONUTF8": "0"}
    assert travel(place, text | {"AMOS_REF_ELSEWHERE": "windows"}) == here


def test_the_same_comes_of_it_where_the_package_has_an_odd_path(place, here, tmp_path):
    root = tmp_path / "wö rld $HOME %PATH% 'x'"
    shutil.copytree(pathlib.Path(amos_ref.__file__).parent, root / "amos_ref", ignore=shutil.ignore_patterns("*.nb?"))
    assert travel(place, {"PYTHONSAFEPATH": "1"}, root) == here
