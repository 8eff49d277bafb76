"""The check of this installation: it passes, and it sees one wrong bit."""

import numpy as np
from helpers.leaves import wrap_run

from amos_ref.conformance import selfcheck
from amos_ref.kernels.cpu import backend as cpu


def test_self_check_passes_and_sees_a_kernel_that_is_one_bit_off(monkeypatch, installation):
    assert all(r.verdict == "conforms" for r in installation.results)

    def off_by_one_ulp(leaves, run):
        bad = run()
        for leaf in leaves:
            if leaf.theta.dtype == np.float64 and leaf.theta.size:
                leaf.theta.flat[0] = np.nextafter(leaf.theta.flat[0], np.inf)
        return bad

    wrap_run(monkeypatch, cpu.Work, off_by_one_ulp)
    wrong = [r for r in selfcheck.self_check() if r.verdict == "departs"]
    names = ["cpu = vectors", "closed form: cpu = vectors", "cpu = page", "closed form: cpu = page"]
    assert [(r.case, r.dtype) for r in wrong] == [(name, "float64") for name in names]
    assert "plain/float64, step 1: theta of leaf" in wrong[0].detail
