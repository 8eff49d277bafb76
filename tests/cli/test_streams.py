"""What surrounds the program: closed and full streams, and variables that were set for something else."""

import os
import subprocess
import sys

import pytest
from helpers.command import output_lines

from amos_ref import errors, kernels, plots, terminal
from amos_ref.cli import main

TRAIN = ["run", "quadratic:n=2", "--steps", "2", "--algorithm", "adamw"]


def run_in_shell(redirection, *argv, **variables):
    """Return status, output and errors of the program, some of whose streams a shell redirects."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "amos_ref", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | variables)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_without_standard_error_the_output_is_the_same(redirection, capsys):
    assert main(TRAIN) == 0
    assert run_in_shell(redirection, *TRAIN) == (0, capsys.readouterr().out, "")


def test_complaining_to_nobody_is_no_output(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    terminal.complain("x")
    with terminal.show_progress(["a"], 1) as show:
        show("a", 1, "x")
    print("a wrong version prints on standard output", file=sys.stderr)
    assert capsys.readouterr().out == "a wrong version prints on standard output\n"


def test_what_others_wrote_is_escaped_on_standard_error(capsys):
    with terminal.show_progress(["\x1b[2J"], 1) as show:
        show("\x1b[2J", 1, "\x9b")
    with pytest.raises(SystemExit):
        main(["explain", "\x1b[31m"])
    assert main(["run", "\x1b[31m.csv"]) == 2
    err = capsys.readouterr().err
    assert "\\x1b[2J: step 1 of 1, \\x9b" in err
    assert "unrecognized arguments: \\x1b[31m" in err
    assert "no file '\\x1b[31m.csv'" in err
    assert "\x1b" not in err


def test_a_terminal_is_shown_nothing_that_it_obeys(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal)
    from amos_ref.terminal import show_progress

    with show_progress(["\x1b[2J"], 1, transient=True) as show:
        show("\x1b[2J", 1, "\x9b")
    assert "\\x1b[2J" in terminal.getvalue()
    assert "\x1b[2J" not in terminal.getvalue().replace("\x1b[2K", "")


# pictures


def test_a_notebooks_backend_and_tex_have_no_effect(tmp_path):
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    argv = ["schedule", "--steps", "3", "--plot", str(tmp_path / "x.png")]
    surroundings = dict(MPLBACKEND="module://no_such_module", MATPLOTLIBRC=str(tmp_path), COLUMNS="0", TERM="")
    status, out, err = run_in_shell("", *argv, **surroundings, PYTHONIOENCODING="ascii")
    assert (status, err) == (0, "")
    assert out.startswith("alpha_t at t")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_name_with_dollars_is_a_title(tmp_path, capsys, monkeypatch):
    path = tmp_path / "a$\\frac$\x1b.csv"
    path.write_text("a,y\n1,2\n2,3\n3,5\n")
    saved = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda *args: (save(*args), saved.append(args[0])))
    argv = ["run", str(path), "--target", "y", "--steps", "1", "--plot", str(tmp_path / "x.png")]
    assert main(argv) == 0
    assert saved[0].get_suptitle() == f"{tmp_path}/a$\\frac$\\x1b.csv"
    (title,) = saved[0].texts
    assert not title.get_parse_math()


@pytest.mark.parametrize("argv", [TRAIN, [*TRAIN, "--json"], ["schedule", "--steps", "3"]])
def test_what_was_computed_is_printed_before_it_is_drawn(argv, monkeypatch, capsys, tmp_path):
    assert main(argv) == 0
    want = capsys.readouterr().out

    def fail(*args):
        raise RuntimeError("latex could not be found\nat all")

    monkeypatch.setattr(plots, "_save", fail)
    path = tmp_path / "x.png"
    assert main([*argv, "--plot", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == want
    assert err.splitlines()[-1] == f"amos-ref: cannot draw {str(path)!r}: RuntimeError: latex could not be found at all"
    assert list(tmp_path.iterdir()) == []


# Numba's variables


def test_a_variable_that_numba_refuses_is_one_line():
    status, out, err = run_in_shell("", *TRAIN[:-1], "paper", NUMBA_NUM_THREADS="0")
    assert (status, out) == (3, "")
    assert err.startswith("amos-ref: paper: backend 'auto' cannot be used: Number of threads specified must be > 0.")
    assert "NUMBA_NUM_THREADS=0" in err
    assert err.count("\n") == 1


def test_info_says_which_backend_cannot_be_used(monkeypatch, capsys):
    def refuse(name):
        raise errors.BackendError("backend 'cpu' cannot be used: for a reason")

    monkeypatch.setattr("amos_ref.cli.info.load_backend", refuse)
    assert main(["info"]) == 0
    assert "cpu                backend 'cpu' cannot be used: for a reason" in "\n".join(output_lines(capsys)[0])


def test_numbas_warnings_keep_their_first_line():
    import warnings

    with pytest.warns(RuntimeWarning) as found, kernels._shorten_warnings():
        warnings.warn("first\nTraceback", RuntimeWarning, stacklevel=1)
    assert [str(w.message) for w in found] == ["first"]


def test_threads_have_a_bound(monkeypatch):
    from amos_ref.kernels.cpu import threads

    monkeypatch.setattr(threads.config, "NUMBA_NUM_THREADS", 99_999)
    assert threads.most() == threads.MOST_THREADS == max(os.cpu_count() or 1, 64)
