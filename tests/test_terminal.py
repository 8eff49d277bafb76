"""What a terminal is, and what is shown on one and elsewhere."""

import io
import sys

import pytest

from amos_ref import terminal


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_what_is_a_terminal(monkeypatch):
    assert terminal.is_terminal(Terminal())
    assert not terminal.is_terminal(io.StringIO())
    assert not terminal.is_terminal(object())
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert not terminal.is_terminal(Terminal())
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.is_terminal(Terminal())


def test_a_table_has_lines_on_a_terminal_alone(monkeypatch):
    shown = []
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stdout", stream)
        terminal.print_table(["x", "[red]y"], [["a", "1"], ["longer", "22"]])
        shown.append(stream.getvalue())
    assert shown[0] == "x       [red]y\na            1\nlonger      22\n"
    assert "\u2500" in shown[1]
    assert "[red]y" in shown[1]


def show_three(monkeypatch, stream, **options):
    monkeypatch.setattr(sys, "stderr", stream)
    with terminal.show_progress(["a", ""], 20, **options) as show:
        for done in range(21):
            show("a", done, f"at {done}")
        show("", 20, "[red]")
    return stream.getvalue()


def test_progress_elsewhere_is_a_line_for_every_tenth(monkeypatch):
    shown = show_three(monkeypatch, io.StringIO()).splitlines()
    assert shown == [*(f"a: step {n} of 20, at {n}" for n in range(0, 21, 2)), "step 20 of 20, [red]"]
    assert show_three(monkeypatch, io.StringIO(), transient=True) == ""


@pytest.mark.parametrize("transient", [False, True])
def test_progress_on_a_terminal_is_a_bar(transient, monkeypatch):
    shown = show_three(monkeypatch, Terminal(), transient=transient)
    assert "20/20" in shown
    assert "at 20" in shown
    assert "[red]" in shown
    assert "step 20" not in shown
    # Bars that are removed are drawn at every call.
    assert ("at 7" in shown) >= transient


def test_a_number_has_six_digits():
    assert (terminal.format_number(2 / 3), terminal.format_number(None)) == ("0.666667", "")
