"""amos-ref schedule prints and draws what the closed form and the paper's clock give."""

import numpy as np
from helpers.command import cells, output_lines, run_json

from amos_ref import closed_form, plots
from amos_ref.cli import main


def test_schedule_is_closed_form(capsys):
    argv = ["schedule", "--alpha-0", "0.2", "--p-0", "0.3", "--q", "0.5", "--eta", "0.7", "--steps", "30"]
    report = run_json(capsys, *argv)
    options = dict(alpha_0=0.2, p_0=0.3, q=0.5)
    t = np.array([0, 1, 2, 5, 10, 20, 30])
    assert report["t"] == t.tolist()
    forms = {
        "inverse-time": dict(decay="inverse-time"),
        "falling p": dict(decay="recurrence"),
        "inverse-square": dict(decay="inverse-square"),
        "constant p": dict(decay="recurrence", p_t="constant"),
    }
    for name, form in forms.items():
        for quantity in ("alpha", "rho"):
            want = getattr(closed_form, quantity)(t, **options, **form)
            assert report["schedules"][name][quantity] == want.tolist()
    alpha, rho = plots.paper_rates(t, 0.2, 0.7)
    assert report["schedules"]["paper"] == {"alpha": alpha.tolist(), "rho": rho.tolist()}
    assert main(argv) == 0
    out = output_lines(capsys)[0]
    assert len(out) == 17
    assert cells(out[6]) == ["20", *(f"{report['schedules'][name]['alpha'][5]:.6g}" for name in [*forms, "paper"])]
    assert cells(out[15]) == ["20", *(f"{report['schedules'][name]['rho'][5]:.6g}" for name in [*forms, "paper"])]


def test_schedule_draws_both(capsys, tmp_path):
    path = tmp_path / "x.png"
    assert main(["schedule", "--steps", "20", "--plot", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert cells(output_lines(capsys)[0][4])[1] == f"{0.01 / 1.05:.6g}"  # the half-life is 100 unless another is given
