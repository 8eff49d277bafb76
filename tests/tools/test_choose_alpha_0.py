"""The table of docs/choosing.md: its rows are trainings with the options that they name."""

import pytest

from amos_ref import minimize, problems
from tools import choose_alpha_0


def test_a_row_has_the_median_loss_of_each_alpha_0(capsys):
    pytest.importorskip("sklearn")
    choose_alpha_0.main(["--steps", "25", "--seeds", "1", "--hidden", "3"])
    units, *lines = capsys.readouterr().out.splitlines()
    head, *rows = [line.split() for line in lines]
    assert units == "alpha_0 in units of 1/sqrt(N):"
    assert head[3:] == ["0.03", "0.1", "0.3", "1", "3"]
    assert [row[:3] for row in rows[2:5]] == [["25", "gradient", "N"], ["25", "adam", "N/100"], ["25", "adam", "N/10"]]
    options = dict(alpha_0=0.2, half_life=2.5, direction="adam")
    assert rows[4][6] == f"{minimize(problems.digits(3), optimizer='closed-form', steps=25, **options).loss:.4f}"
    assert len({row[6] for row in rows}) == 6  # direction and half-life both matter
