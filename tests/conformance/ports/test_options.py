"""Which options a signature has and where, which defaults are not the page's, and what is not understood."""

import functools

import pytest

from amos_ref.conformance import check
from amos_ref.conformance.ports import options
from amos_ref.conformance.ports.options import Note, Signature, describe
from amos_ref.conformance.ports.target import as_port
from amos_ref.errors import TargetError
from examples.ports.amos_numpy import step


def factory(rate, eta_fn, weight_decay=0.1, momentum=0.9, betas=(0.9, 0.99), scales=[1, 2]):  # noqa: B006
    raise AssertionError


def keen(lr, eta, eps=1e-8, extra_l2=0.0, clip_value=None, momentum=0.0, c_coef=0.5, **kwargs):
    raise AssertionError


def test_names_of_options_are_mapped():
    port = as_port(factory, {"learning_rate": "rate", "extra_l2": "weight_decay"})
    assert port.options == {"learning_rate", "eta", "extra_l2", "momentum"}
    assert port.signature.keywords({"learning_rate": 1.0}) == {"rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}


def test_an_option_can_be_an_entry_of_a_tuple_whose_others_stay():
    renamed = {"learning_rate": "rate", "beta": "betas[-1]"}
    assert as_port(factory, renamed).signature.keywords({"beta": 0.75})["betas"] == (0.9, 0.75)
    renamed |= {"momentum": "betas[0]"}
    assert as_port(factory, renamed).signature.keywords({"beta": 0.75})["betas"] == (0.0, 0.75)  # momentum is off
    renamed |= {"d_coef": "scales[1]"}
    assert as_port(factory, renamed).signature.keywords({"d_coef": 4.0})["scales"] == [1, 4.0]


def test_an_option_can_be_any_keyword_where_there_are_kwargs():
    for written in ("kwargs.l2_reg", "l2_reg"):
        assert as_port(keen, {"d_coef": written}).signature.keywords({"d_coef": 0.5})["l2_reg"] == 0.5
    assert as_port(keen, {"extra_l2": "kwargs.l2"}).signature.keywords({})["l2"] == 0.0  # off, whatever its default


NAMES = "rate, eta_fn, weight_decay, momentum, betas, scales"


@pytest.mark.parametrize(
    ("target", "ours", "theirs", "text"),
    [
        (factory, "learning_rate", "nope", f"the port has no parameter 'nope'; it has {NAMES}"),
        (factory, "learning_rate", "kwargs.lr", f"the port has no **kwargs; it has {NAMES}"),
        (keen, "beta", "kw.lr", "no **kw; it has lr, eta, eps, extra_l2, clip_value, momentum, c_coef, **kwargs"),
        (keen, "beta", "kwargs", "no parameter 'kwargs'; it has"),
        (factory, "speed", "rate", "'speed' is not one of learning_rate"),
        (factory, "beta", "betas[2]", "betas has 2 entries, (0.9, 0.99), counted from 0"),
        (factory, "beta", "momentum[0]", "momentum has no default with entries; without [0] it is given as a whole"),
        (factory, "beta", "weight-decay", "is not of the form NAME, NAME[1] or kwargs.NAME"),
        (step, "beta", "theta", "no parameter 'theta'; it has t, learning_rate"),
    ],
)
def test_a_wrong_map_says_what_there_is(target, ours, theirs, text):
    with pytest.raises(TargetError) as caught:
        as_port(target, ({"learning_rate": "rate"} if target is factory else {}) | {ours: theirs})
    assert str(caught.value).startswith(f"--map {ours}={theirs}: ")
    assert text in str(caught.value)


def test_two_options_are_not_one_parameter():
    with pytest.raises(TargetError, match="--map beta=rate: that is learning_rate already"):
        as_port(factory, {"learning_rate": "rate", "beta": "rate"})


def test_what_must_be_given_and_is_not_known_is_named():
    def needy(lr, total_steps, eps):
        raise AssertionError

    with pytest.raises(TargetError, match=r"must be given total_steps, .*functools.partial\(PORT, total_steps=...\)"):
        as_port(needy)
    port = as_port(functools.partial(needy, total_steps=3))
    assert port.signature.keywords({"learning_rate": 1.0}) == {"lr": 1.0, "eps": 2.0**-125}
    assert port.notes == []


def test_notes_name_other_defaults_and_what_is_not_understood():
    notes = as_port(factory, {"learning_rate": "rate"}).notes
    assert notes == [
        Note("default", "momentum", "0.9", "0"),
        Note("not understood", "weight_decay", "0.1", None, "--map extra_l2=weight_decay"),
        Note("not understood", "betas", "(0.9, 0.99)", None, "--map beta=betas[1]"),
        Note("not understood", "scales", "[1, 2]"),
    ]
    assert describe(notes) == [
        "defaults that are not the page's: momentum 0.9 (page 0).",
        "not understood: weight_decay=0.1, betas=(0.9, 0.99), scales=[1, 2] (defaults, which hold in every case); "
        "--map extra_l2=weight_decay --map beta=betas[1] says what it is.",
    ]
    partly = as_port(factory, {"learning_rate": "rate", "beta": "betas[1]"}).notes
    assert Note("default", "beta", "0.99", "0.999") in partly
    assert Note("not understood", "betas[0]", "0.9") in partly
    assert {(note.option, note.port, note.page) for note in as_port(keen).notes} == {
        ("epsilon", "1e-08", "2.35099e-38"),
        ("c_coef", "0.5", "0.25"),
        ("**kwargs", "", None),
    }
    assert as_port(step).notes == []


def test_a_wrong_version_that_takes_every_default_for_the_pages_is_seen(monkeypatch):
    monkeypatch.setattr(options.Signature, "_same", lambda *args: True)
    assert [note.kind for note in as_port(keen).notes] == ["not understood"]


def test_a_default_that_cannot_be_printed_is_no_crash():
    class Mute:
        def __repr__(self):
            raise RuntimeError

    def amos(lr, eta, rule=Mute()):  # noqa: B008
        raise AssertionError

    assert [note.port for note in as_port(amos).notes] == ["a Mute"]


def test_reports_hold_the_notes():
    def shipped(theta, g, state, t, lr, eta, beta=0.99, weight_decay=0.01):
        return step(theta, g, state, t, lr, eta, (), beta)

    report = check(shipped, dtypes="float64", cases="plain")
    assert report.ok  # a note is no failure
    assert [note["option"] for note in report.to_dict()["notes"]] == ["beta", "weight_decay"]
    for text in (str(report), report.to_markdown(), report.to_junit()):
        assert "defaults that are not the page" in text
        assert "weight_decay=0.01" in text


def test_notes_come_from_a_process_of_its_own(tmp_path):
    path = tmp_path / "shipped.py"
    path.write_text(
        "from examples.ports.amos_numpy import step\n"
        "def amos(theta, g, state, t, lr, eta, beta=0.99):\n"
        "    return step(theta, g, state, t, lr, eta, (), beta)\n"
    )
    report = check(f"{path}:amos", dtypes="float64", cases="plain")
    assert report.notes == [Note("default", "beta", "0.99", "0.999")]
    assert report.ok


def test_options_by_position_and_parameters_elsewhere_are_given_so():
    def amos(lr, b=2, /, c=3, *, params, **rest):
        return lr, b, c, params, rest

    signature = Signature(amos, {"beta": "b", "d_coef": "rest.d"}, ("params",))
    call = options.by_name(amos, signature)
    assert call("p", **signature.keywords({"learning_rate": 1, "d_coef": 4})) == (1, 2, 3, "p", {"d": 4})
    assert call("p", **signature.keywords({"learning_rate": 1, "beta": 5})) == (1, 5, 3, "p", {})
    with pytest.raises(TypeError):
        amos("p", **signature.keywords({"learning_rate": 1}))  # what would be called without it


def test_a_usual_callable_is_called_as_it_is():
    assert as_port(step).target is step
