"""Options on disk: they come back as they were, and callables must be given again."""

import decimal
import enum
import fractions
import json
import re

import numpy as np
import pytest
from helpers.messages import one_line
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import Amos, errors, rules
from amos_ref.storage.container import parse_json
from amos_ref.storage.options import decode_options, encode_options


def schedule(t):
    return 0.05 * min(t / 50, 1.0)


def rule(name, shape):
    return 0.25


CHOICE = amos_ref.choose(
    {"fc.weight": (3, 4), "odd": (2, 2, 2), "n.running_mean": (3,)}, overrides={"fc": (0.1 + 0.2, ())}
)

PLAIN = [
    {},
    {"learning_rate": 0.1, "beta": 0.1 + 0.2, "epsilon": 5e-324, "c_coef": 1e308},
    {"learning_rate": 0, "eta": 3, "momentum": 0, "clip_value": np.float32(0.1), "extra_l2": np.float64(1e-7)},
    {"eta": {r".*\d+\"é": "sqrt(1/SHAPE[0])", "x": 0.1, "z": 2}, "slot_shape": {"x": (1, 3), ".*": "tensor"}},
    {"eta": rules.PAPER_FLAX, "slot_shape": rules.PAPER_FLAX},
    {"eta": rules.PAPER_TORCH, "slot_shape": "element"},
    {"eta": CHOICE, "slot_shape": CHOICE},
    {"eta": {"x": 0.25, ".*": CHOICE}, "slot_shape": rules.Preset(CHOICE, CHOICE)},
    {"slot_shape": (1, np.int64(3)), "state_dtype": "param", "backend": "numpy", "validate": True},
    {"slot_shape": [], "eta": "sqrt(2/SHAPE[0])", "momentum": None},
]


@pytest.mark.parametrize("options", PLAIN)
def test_options_come_back(options, tmp_path):
    opt = Amos(**options)
    params: dict = {}
    amos_ref.save(tmp_path / "all", params, opt.init(params), opt)
    found = amos_ref.load(tmp_path / "all", params).opt
    want = opt.options
    assert list(found.options) == list(want)
    if isinstance(want["slot_shape"], list | tuple) and not isinstance(want["slot_shape"], rules.Preset):
        want = want | {"slot_shape": tuple(want["slot_shape"])}
    assert found.options == want
    assert type(found) is Amos


def test_an_eta_that_is_a_fraction_comes_back_as_the_number_it_is_used_as(tmp_path):
    opt = Amos(eta=fractions.Fraction(1, 3))
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    assert amos_ref.load(tmp_path / "all", {}).opt.options["eta"] == float(fractions.Fraction(1, 3))


def test_callables_must_be_given_again(tmp_path):
    params = {"w": np.ones(2)}
    opt = Amos(schedule, eta={"w": rule}, slot_shape=lambda name, shape: (), beta=0.75)
    amos_ref.save(tmp_path / "all", params, opt.init(params), opt)
    with pytest.raises(errors.HyperParameterError) as caught:
        amos_ref.load(tmp_path / "all", params, learning_rate=schedule)
    one_line(caught.value, ["all'", "eta (rules)", "slot_shape (test_callables_must_be_given_again.<locals>.<lambda>)"])
    assert "learning_rate" not in str(caught.value)
    found = amos_ref.load(tmp_path / "all", params, learning_rate=0.5, eta=0.5, slot_shape="tensor", backend="numpy")
    assert found.opt.options == Amos(0.5, beta=0.75, backend="numpy").options
    for wrong, words in (({"lr": 0.1}, ["lr"]), ({"beta": 2}, ["beta", "2"])):
        with pytest.raises(errors.HyperParameterError) as caught:
            amos_ref.load(tmp_path / "all", params, learning_rate=0.5, eta=0.5, slot_shape="tensor", **wrong)
        one_line(caught.value, words)


class Text(str):
    def __str__(self):
        return "another text"


class Scale(float, enum.Enum):
    HALF = 0.5


class Axis(enum.IntEnum):
    ONE = 1


class Tensor:
    """As much of a tensor of another library as is read."""

    ndim, shape = 0, ()

    def __init__(self, value):
        self.value = value

    def __float__(self):
        return float(self.value)


# Options that constructors take, or parts of them: beside each what a file gives back, which is used in the same way.
KINDS = {
    "0-d array": (np.array(0.3), 0.3),
    "tensor": (Tensor(0.3), 0.3),
    "Decimal": (decimal.Decimal("0.3"), 0.3),
    "float32": (np.float32(0.1), float(np.float32(0.1))),
    "enum of floats": (Scale.HALF, 0.5),
    "int": (np.int64(3), 3),
    "enum of ints": (Axis.ONE, 1),
    "0-d ints": (np.array(2), 2),
    "large int": (2**70 + 1, 2**70 + 1),
    "text": (Text("sqrt(SHAPE[0])"), "sqrt(SHAPE[0])"),
    "numpy text": (np.str_("1/3"), "1/3"),
}


@pytest.mark.parametrize("place", ["alone", "rule", "preset"])
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_texts_of_any_type_come_back_as_they_are_used(kind, place, tmp_path):
    given, want = KINDS[kind]
    if place != "alone":
        given, want = ({".*": value} for value in (given, want))
    if place == "preset":
        given, want = (rules.Preset(value, "tensor") for value in (given, want))
    opt = Amos(eta=given)
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    found = amos_ref.load(tmp_path / "all", {}).opt.options["eta"]
    want = Amos(eta=want).options["eta"]
    assert (repr(found), type(found)) == (repr(want), type(want))
    assert rules.eta_of(found, "w", (4, 3)) == rules.eta_of(given, "w", (4, 3))


@pytest.mark.parametrize("given", [np.array([1, 3]), [np.int8(1), np.array(3)], range(1, 4, 2), (True, Axis.ONE)])
def test_slots_of_any_type_come_back_as_tuples(given, tmp_path):
    opt = Amos(slot_shape={"w": given})
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    found = amos_ref.load(tmp_path / "all", {}).opt.options["slot_shape"]
    assert found == {"w": tuple(map(int, given))}
    assert rules.slot_shape_of(found, "w", (4, 3)) == rules.slot_shape_of({"w": given}, "w", (4, 3))


REFUSED = {
    "nan": ({".*": float("nan")}, ["eta for '.*' is nan"]),
    "infinity": ({".*": float("inf")}, ["eta for '.*' is inf"]),
    "infinite Decimal": ({".*": decimal.Decimal("1e999")}, ["eta for '.*' is Decimal('1E+999')"]),
    "endless int": ({".*": 10**5000}, ["eta for '.*' is <class 'int'>"]),
    "bytes": ({"w": b"0.5"}, ["eta for 'w' is b'0.5'"]),
    "number as a name": ({3: 0.5}, ["eta has a rule for 3", "texts"]),
    "tuple as a name": ({("a", "b"): 0.5}, ["eta has a rule for ('a', 'b')"]),
    "flags": ({re.compile("w", re.IGNORECASE): 0.5}, ["eta has a rule for re.compile('w', re.IGNORECASE)"]),
    "bytes as a name": ({re.compile(b"w"): 0.5}, ["eta has a rule for re.compile(b'w')"]),
    "twice": ({"w": 0.5, re.compile("w"): 1.0}, ["eta has two rules for 'w'"]),
    "rules in rules": ({"w": {"w": 0.5}}, ["eta for 'w' is {'w': 0.5}"]),
    "matrix": ({"w": np.ones((2, 2))}, ["eta for 'w' is array"]),
    "list in a list": ({"w": [[1]]}, ["eta for 'w'[0] is (1,)"]),
    "half a character": ("\ud800", ["'\\ud800'", "UTF-8"]),
    "half a character in a rule": ({"\ud800": 1.0}, ["'\\ud800'", "UTF-8"]),
}


def test_rules_within_themselves_are_refused_when_they_are_given():
    endless: dict = {}
    endless["w"] = endless
    with pytest.raises(errors.HyperParameterError, match="an option holds itself"):
        Amos(eta=endless)


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_could_not_give_back_is_refused_when_it_is_saved(case, tmp_path):
    eta, words = REFUSED[case]
    path, good, opt = tmp_path / "all", Amos(), Amos(eta=eta)
    amos_ref.save(path, {}, good.init({}), good)
    before = path.read_bytes()
    with pytest.raises((errors.HyperParameterError, errors.StorageError)) as caught:
        amos_ref.save(path, {}, opt.init({}), opt)
    one_line(caught.value, ["cannot write", "all'", *words])
    assert path.read_bytes() == before


def test_a_compiled_rule_is_its_text(tmp_path):
    opt = Amos(eta={re.compile("(?i)W"): 0.5})
    amos_ref.save(tmp_path / "all", {}, opt.init({}), opt)
    assert amos_ref.load(tmp_path / "all", {}).opt.options["eta"] == {"(?i)W": 0.5}


PATTERNS = st.sampled_from(["w", ".*", "é", "(", "\ud800", 3, re.compile("w"), re.compile("w", re.DOTALL), Text("x")])
SCALES = st.one_of(
    st.floats(), st.integers(-5, 2**80), st.booleans(), st.none(), st.text(max_size=3), st.fractions(), st.decimals(),
    st.complex_numbers(), st.binary(max_size=2), st.floats(0.1, 9).map(np.array), st.floats(0.1, 9).map(np.float32),
    st.sampled_from(["1/3", "SHAPE[0]", rule, np.bool_(True), Scale.HALF, Axis.ONE, Text("2"), object(), 10**700]),
)  # fmt: skip
SIDES = st.lists(st.one_of(st.integers(0, 4), st.booleans(), st.just(np.array(1)), SCALES), max_size=3)
SLOTS = st.one_of(SIDES, SIDES.map(tuple), st.just(np.array([1, 3])), st.sampled_from(["tensor", "SHAPE"]), SCALES)


def rules_of(values):
    return values | st.dictionaries(PATTERNS, values, max_size=3) | st.builds(rules.Preset, values, values)


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except errors.RuleError as error:
        return type(error)


def check_coming_back(options):
    """Options are written and read as the ones that they are, or refused when they are written."""
    opt = Amos(**options)
    try:
        text = json.dumps(encode_options(opt.options), ensure_ascii=False).encode()
    except (errors.HyperParameterError, UnicodeEncodeError):  # which the file names
        return False
    again = {name: value for name, value in opt.options.items() if calls(value)}
    found = Amos(**decode_options(parse_json(text), again))
    for name in ("learning_rate", "momentum"):
        assert repr(found.options[name]) == repr(opt.options[name])
    for leaf, shape in (("w", (4, 3)), ("x", ()), ("é", (1, 3))):
        for resolve, name in ((rules.eta_of, "eta"), (rules.slot_shape_of, "slot_shape")):
            was = outcome(resolve, opt.options[name], leaf, shape)
            assert outcome(resolve, found.options[name], leaf, shape) == was, (name, leaf)
    return True


@given(eta=rules_of(SCALES), slot=rules_of(SLOTS), rate=SCALES, momentum=SCALES)
def test_options_come_back_or_are_refused_when_they_are_saved(eta, slot, rate, momentum):
    options = {"eta": eta, "slot_shape": slot, "learning_rate": rate, "momentum": momentum}
    check_coming_back({name: value for name, value in options.items() if makes(name, value)})


def test_options_that_would_come_back_otherwise_are_noticed(monkeypatch):
    assert check_coming_back({"eta": {"w": np.array(0.3)}})
    for wrong in (lambda value, where: str(value), lambda value, where: float(value), lambda value, where: None):
        monkeypatch.setattr("amos_ref.storage.options._encode_plain", wrong)
        with pytest.raises((AssertionError, ValueError)):
            check_coming_back({"eta": {"w": Text("1/3")}, "slot_shape": {"w": (1, np.int64(3))}})


def makes(name, value):
    try:
        return Amos(**{name: value})
    except errors.HyperParameterError:
        return None


def calls(value):
    if isinstance(value, dict | rules.Preset):
        return any(map(calls, value.values() if isinstance(value, dict) else value))
    return callable(value)


LEAF = {"name": "a", "shape": [3], "rule": "bias", "eta": 0.5, "slot_shape": [], "why": "", "source": "recipe"}


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"family": "", "leaves": 3},
        {"family": "", "leaves": [{}]},
        {"family": "", "leaves": [LEAF | {"eta": -1.0}]},
        {"family": "", "leaves": [LEAF | {"shape": "x"}]},
        {"family": "", "leaves": [LEAF | {"source": "nobody"}]},
    ],
)
def test_a_choice_that_cannot_be_read_is_named(written):
    whole = {"choice": {"family": "", "leaves": [LEAF]}}
    assert decode_options({"eta": whole}, {})["eta"].rule_for("eta", "a", (3,)) == 0.5
    with pytest.raises(errors.StorageError, match="a choice that cannot be read"):
        decode_options({"eta": {"choice": written}}, {})
