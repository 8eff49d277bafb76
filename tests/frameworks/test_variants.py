"""Real optimizers of torch and optax that are not Amos are told by their name."""

import pytest

from amos_ref.conformance import check, table
from amos_ref.conformance.diagnosis.recognise import recognise
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.ports.target import as_port

torch = pytest.importorskip("torch")
optax = pytest.importorskip("optax")

pytestmark = pytest.mark.filterwarnings("default")

OPTIMIZERS = {
    "AdamW: Loshchilov & Hutter 2019": (torch.optim.AdamW, "weight decay 0.01", "a count for each leaf"),
    "Adam: Kingma & Ba 2015": (torch.optim.Adam, "epsilon 1e-08", "a count for each leaf"),
    "SGD: the gradient itself": (torch.optim.SGD, "", ""),
    "AdamW: Loshchilov": (optax.adamw, "weight decay 0.0001", "a schedule read from 0"),
    "Adam: Kingma": (optax.adam, "epsilon 1e-08", "a schedule read from 0"),
}
NAMES = ("plain", "decayed", "epsilon", "schedule", "none-gradient", "tiny-gradients", "3-d")


def seen_of(target):
    cases = [case for case in table() if case.dtype == "float64" and case.name in NAMES]
    return run(as_port(target), cases, "1")[1]


@pytest.mark.parametrize("said", OPTIMIZERS)
def test_an_optimizer_is_told_by_its_name(said):
    target, *settings = OPTIMIZERS[said]
    text = recognise(seen_of(target)) or ""
    assert f"this is not paper Amos but {said}" in text
    for setting in settings:
        assert setting in text


@pytest.mark.parametrize("target", [torch.optim.NAdam, torch.optim.RMSprop, optax.lion])
def test_another_one_is_not(target):
    assert recognise(seen_of(target)) is None


def test_a_check_says_so():
    renamed = {"beta": "betas[1]", "momentum": "betas[0]", "extra_l2": "weight_decay"}
    report = check(torch.optim.AdamW, suite="quick", eta="1", renamed=renamed)
    assert not report.ok
    assert report.diagnosis.deviations == []
    assert "this is not paper Amos but AdamW" in report.diagnosis.text
