"""The command line as a whole: exit status, one line for every mistake, and what the documents show of it."""

import pathlib
import re
import subprocess
import sys

import pytest
from helpers import ROOT
from helpers.command import output_lines

import amos_ref
from amos_ref.cli import COMMANDS, build_parser, main


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ("check nonsense", "target 'nonsense' is not of the form"),
        ("check no_such_module_xyz:attr", "there is no module 'no_such_module_xyz'"),
        ("check --quick", "--quick says something about a TARGET"),
        ("check os:getcwd --map x", "--map 'x' is not of the form OURS=THEIRS"),
        ("vectors generate /no/such/folder", "there is no folder '/no/such/folder'"),
        ("vectors export --format npz --output /no/such/x", "cannot write '/no/such/x': No such file or directory"),
        ("vectors export --format json --output /no/such/x", "cannot write '/no/such/x': No such file or directory"),
        ("run nothing.csv --target y", "there is no problem and no file 'nothing.csv'; the problems are quadratic, "),
        ("run / --target y", "cannot fit '/': it is not an ordinary file"),
        ("run HOUSES", "--target must say which column to predict; the columns are 'area', 'built [year]', 'price'"),
        ("run HOUSES --target area --feature area", "the column 'area' is chosen 2 times"),
        ("run HOUSES --target area --feature x", "line 1 names no column 'x'; the columns are 'area', "),
        ("run quadratic --target y", "says something about a CSV file; the problem is 'quadratic'"),
        ("run quadratic --feature y", "says something about a CSV file; the problem is 'quadratic'"),
        ("run quadratic:n=0", "a quadratic needs n >= 1"),
        ("run quadratic:n=1.5", "a quadratic needs n >= 1"),
        ("run quadratic:seed=-1", "seed is -1: expected non-negative integer"),
        ("run quadratic:n=100000000", "'quadratic:n=100000000' is not a valid problem: Unable to allocate"),
        ("run linear-regression:x=3,a=1", "'linear-regression' has no option 'x', 'a'; it has "),
        ("run quadratic:n", "'quadratic:n' is not of the form NAME:option=value,option=value"),
        ("run quadratic:n=2,n=3", "'quadratic:n=2,n=3' is not of the form"),
        ("run quadratic --steps -1", "--steps is -1; it must be 0 or more"),
        ("run quadratic --algorithm sgd", "there is no algorithm 'sgd'; it must be paper, closed-form, adamw"),
        ("run quadratic --algorithm paper --algorithm paper", "--algorithm paper is given twice"),
        ("run quadratic --algorithm paper:xi=3", "paper:xi=3: 'paper' has no option 'xi'"),
        ("run quadratic --algorithm closed-form:half_life=5,p_0=1", "exactly one of them must be given"),
        ("run quadratic --learning-rate nan", "paper: learning_rate is nan; it must be finite and >= 0"),
        ("run quadratic --learning-rate 1", "closed-form: alpha_0 is 1.0; it must be in (0, 1)"),
        ("run quadratic --plot /no/such/x.png", "cannot write '/no/such/x.png': No such file or directory"),
        ("run quadratic --plot x.bmp", "cannot draw 'x.bmp': its name must end in .pdf, .png, .svg"),
        ("explain --step 0", "--step is 0; it must be from 1 to 1000"),
        ("explain --algorithm closed-form --step -1", "--step is -1; it must be from 0 to 1000"),
        ("explain --algorithm closed-form --step 1001", "--step is 1001; it must be from 0 to 1000"),
        ("schedule --half-life 5 --p-0 1", "half_life is 5.0 and p_0 is 1.0; exactly one of them must be given"),
        ("schedule --alpha-0 1", "alpha_0 is 1.0; it must be in (0, 1)"),
        ("schedule --half-life -1", "half_life is -1.0; it must be finite and > 0"),
        ("schedule --p-0 nan", "p_0 is nan; it must be finite and > 0"),
        ("schedule --q 0", "q is 0.0; it must be finite and > 0"),
        ("schedule --eta 0", "eta is 0.0; it must be"),
        ("schedule --steps 0", "--steps is 0; it must be from 1 to 1000000"),
        ("schedule --steps 1000001", "--steps is 1000001; it must be from 1 to 1000000"),
        ("schedule --steps 3 --plot /no/such/x.png", "cannot write '/no/such/x.png': No such file or directory"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, text, houses, capsys):
    assert main([houses[0] if word == "HOUSES" else word for word in argv.split()]) == 2
    out, err = output_lines(capsys)
    assert out == []
    assert len(err) == 1
    assert text in err[0]


@pytest.mark.parametrize("argv", [[], ["dance"], ["explain", "--step", "x"], ["vectors"]])
def test_wrong_usage_is_exit_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert "usage: amos-ref" in capsys.readouterr().err


def test_as_a_program():
    found = subprocess.run(
        [sys.executable, "-m", "amos_ref", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == f"amos_ref {amos_ref.__version__}\n"
    closed = subprocess.run(
        f"{sys.executable} -m amos_ref info | head -c 1", shell=True, capture_output=True, text=True
    )
    assert closed.stderr == ""


def fold(line, width):
    """Yield what ``fold -s`` makes of a line, without the blanks at its ends."""
    while len(line) > width:
        cut = line.rfind(" ", 0, width) + 1
        yield line[:cut].rstrip()
        line = line[cut:]
    yield line


def test_the_documents_show_what_is_printed(capsys, tmp_path, monkeypatch):
    text = (ROOT / "docs" / "run.md").read_text(encoding="utf-8")
    text = re.sub(r" \\\n +", " ", text)  # a command on two lines
    blocks = re.findall(r"^    \$ (.*)\n((?:    (?!\$).*\n|\n(?=    (?!\$)))*)", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    for command, shown in blocks:
        want = [line[4:] for line in shown.splitlines()]
        if command.startswith("cat "):
            pathlib.Path(command[4:]).write_text("\n".join(want))
            continue
        command, *filters = command.removeprefix("amos-ref ").split(" | ")
        status = main(command.split())
        out, err = output_lines(capsys)
        if filters:
            assert filters == ["head -13", "fold -s -w 80"]
            out = [part for line in out[:13] for part in fold(line, 80)]
        got = err if status else out
        if command.startswith("run") and status == 0:  # the last digits of a training depend on the machine
            want, got = ([line.split("  ")[0] for line in rows] for rows in (want, got))
        assert got == want
    assert len(blocks) == 8


def test_the_list_of_commands_loads_none_of_them():
    # So that it comes at once: NumPy alone takes a tenth of a second.
    code = "import sys; from amos_ref.cli import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    *shown, modules = done.stdout.splitlines()
    assert "numpy" not in modules.split()
    assert [name for name in COMMANDS if not any(line.split()[:1] == [name] for line in shown)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_options_where_all_are_asked_for(name, capsys):
    # What makes completions for a shell reads this parser.
    with pytest.raises(SystemExit, match="0"):
        build_parser().parse_args([name, "--help"])
    with_all = capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert capsys.readouterr().out == with_all
    with pytest.raises(SystemExit, match="0"):
        build_parser([]).parse_args([name, "--help"])
    assert capsys.readouterr().out != with_all
