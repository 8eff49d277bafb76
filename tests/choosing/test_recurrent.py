"""LSTMs, with and without a projection of their cells, and the authors' own recurrent model."""

import pytest

import amos_ref
from amos_ref.choosing import kinds, recurrent

# torch.nn.LSTM(5, 8, proj_size=4, num_layers=2, bias=False): 8 cells, 4 outputs
PROJECTED = {
    "lstm.weight_ih_l0": (32, 5),
    "lstm.weight_hh_l0": (32, 4),
    "lstm.weight_hr_l0": (4, 8),
    "lstm.weight_ih_l1": (32, 4),
    "lstm.weight_hh_l1": (32, 4),
    "lstm.weight_hr_l1": (4, 8),
}
BIASED = {f"lstm.bias_{of}_l{i}": (32,) for i in (0, 1) for of in ("ih", "hh")}


def wrong_of_projected(shapes):
    """Return the leaves that are not what the authors have for a cell whose outputs are a projection."""
    wrong = []
    for name, entry in amos_ref.choose(shapes).items():
        if "weight" in name:
            eta, rows = ((8 * 4) ** -0.25, 4) if "hr" in name else ((2 * 4) ** -0.25, 32)
            want = pytest.approx(eta, rel=1e-14, abs=0), (rows, 1), "analogy"
            if (entry.eta, entry.slot_shape, entry.source) != want:
                wrong.append(f"{name}: {entry} but should be {want}")
    return wrong


@pytest.mark.parametrize("shapes", [PROJECTED, PROJECTED | BIASED], ids=["without biases", "with biases"])
def test_a_projection_has_its_outputs_first_with_biases_and_without(shapes):
    assert wrong_of_projected(shapes) == []


def test_a_projection_that_is_taken_for_a_layer_is_caught(monkeypatch):
    monkeypatch.setattr(recurrent, "_TORCH_KERNEL", kinds.re.compile(r"weight_(ih|hh)(_l\d+)?(_reverse)?"))
    assert wrong_of_projected(PROJECTED) != []


def test_the_authors_recurrent_model_has_what_their_code_has():
    h, cells, words = 256, 1024, 10_000
    choice = amos_ref.choose(
        {
            "embed": {"embedding": (words, h)},
            "lstm": {
                "cell": {
                    "core": {"kernel": (2 * h, 4, cells), "bias": (4, cells)},
                    "normalize": {"shift": (cells,)},
                    "out": {"kernel": (cells, h), "bias": (h,)},
                },
                "normalize": {"shift": (2 * h,)},
            },
            "bias": (words,),
        }
    )
    assert {name: (entry.eta, entry.slot_shape) for name, entry in choice.items()} == {
        "embed/embedding": (h**-0.25, (words, 1)),
        "lstm/cell/core/kernel": (pytest.approx((2 * h) ** -0.25, rel=1e-14), (1, 4, cells)),
        "lstm/cell/core/bias": (0.5, ()),
        "lstm/cell/normalize/shift": (0.5, ()),
        "lstm/cell/out/kernel": (pytest.approx((cells * h) ** -0.25, rel=1e-14), (1, h)),
        "lstm/cell/out/bias": (pytest.approx(0.5 * h**-0.25, rel=1e-14), ()),
        "lstm/normalize/shift": (pytest.approx(0.5 * h**-0.25, rel=1e-14), ()),
        "bias": (0.5, ()),
    }
    assert choice.named("recipe") == list(choice)


@pytest.mark.parametrize(("gates", "source"), [(4, "recipe"), (3, "analogy"), (1, "analogy")])
def test_only_an_lstm_is_what_the_authors_have(gates, source):
    choice = amos_ref.choose({"rnn.weight_ih_l0": (gates * 8, 5), "rnn.weight_hh_l0": (gates * 8, 8)})
    assert [entry.source for entry in choice.values()] == [source, source]
    assert choice["rnn.weight_ih_l0"].eta == pytest.approx(16**-0.25 if gates > 1 else 5**-0.5, rel=1e-14)
