"""Ports of the closed form: functions, what their signatures say, and what they cannot be asked."""

import importlib.resources
import json
import re
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from helpers import ROOT
from helpers import closed_form_ports as ports

import amos_ref
from amos_ref.cli import main
from amos_ref.conformance import check
from amos_ref.conformance.algorithms import CLOSED_FORM, PAPER_AMOS
from amos_ref.conformance.judging.drive import observe, unsupported
from amos_ref.conformance.judging.judge import judge
from amos_ref.conformance.ports.names import NAMES
from amos_ref.conformance.ports.target import as_port
from amos_ref.errors import RuleError, TargetError
from examples.ports import amos_numpy

CLOSED = {"algorithm": "closed-form"}


def verdicts(report):
    return {(r.case, r.dtype): r for r in report.results}


def test_a_right_function_conforms_in_all_that_it_has():
    report = check(ports.step, **CLOSED)
    assert report.ok, str(report)
    assert report.algorithm is CLOSED_FORM
    assert report.notes == []
    assert {"plain", "sigma-init", "adam"} <= {r.case for r in report.results if r.verdict == "conforms"}
    assert str(report).splitlines()[-1].startswith("examples.ports.closed_form_numpy:step as the closed form: ")


@pytest.mark.parametrize("wrong", [ports.from_one, ports.whole_decay])
def test_a_wrong_function_departs(wrong):
    report = check(wrong, **CLOSED)
    found = verdicts(report)
    assert {found["plain", dtype].verdict for dtype in ("float64", "float32")} == {"departs"}
    assert (found["plain", "float64"].step, found["plain", "float64"].stage) == (1, "theta")


def test_a_counter_is_named_only_if_it_explains_all_that_counts_far():
    """A cap was called a counter of 16 bits, by the one case of three in which both leave nothing of alpha."""
    cases = ("plain", "count-*")
    named, not_named = (
        check(port, "quick", cases=cases, **CLOSED).diagnosis for port in (ports.in_int16, ports.capped)
    )
    assert named.life == ["count-int16"]
    assert not_named.life == []
    assert "no known deviation explains cases count-2^15, count-2^24, count-2^31" in not_named.text


def test_what_departs_is_split_into_alpha_and_rho():
    detail = verdicts(check(ports.whole_decay, cases="plain", dtypes="float64", **CLOSED))["plain", "float64"].detail
    assert "rho is 0.0625 (page 0.03125)" in detail


@pytest.mark.parametrize("right", [ports.by_cosine, ports.squared, ports.adam])
def test_a_port_that_has_less_is_asked_for_less(right):
    words = {"decay": "inverse-square"} if right is ports.squared else None
    report = check(right, words=words, **CLOSED)
    assert report.ok, str(report)
    ran = {r.case for r in report.results if r.verdict == "conforms"}
    assert "plain" in ran  # with p_0 for the half-life, which is exactly that; with the decay and direction that it has
    assert ("adam" in ran) == (right is ports.adam)
    if right is ports.by_cosine:
        assert verdicts(report)["sigma-init", "float64"].detail == "the port has no sigma 'init'"


def test_a_decay_that_it_hard_codes_must_be_said():
    report = check(ports.squared, cases="plain", **CLOSED)
    assert not report.ok
    assert verdicts(report)["plain", "float64"].verdict == "departs"


def test_a_word_that_a_port_refuses_by_name_is_not_supported():
    case = next(case for case in CLOSED_FORM.table() if case.name == "plain" and case.dtype == "float64")
    case = case._replace(options=case.options | {"decay": "recurrence"})
    result, _ = judge(as_port(ports.step, algorithm=CLOSED_FORM), case)
    assert result.verdict == "not supported"
    assert result.detail == "the port has no decay 'recurrence': ValueError: there is no decay 'recurrence' here"


def test_half_life_and_p_0_are_exchanged_where_that_is_exact():
    exchange = CLOSED_FORM.exchange
    assert exchange({"alpha_0": 0.25, "half_life": 4.0}, {"p_0"}) == {"alpha_0": 0.25, "p_0": 0.5}
    assert exchange({"alpha_0": 0.25, "p_0": 0.5}, {"half_life"}) == {"alpha_0": 0.25, "half_life": 4.0}
    for options in (
        {"alpha_0": 0.25, "half_life": 3.0},  # 2/3 is no number of float64
        {"alpha_0": 0.25, "half_life": 4.0, "decay": "inverse-square"},  # the square root of 2 is none
        {"alpha_0": 0.25, "half_life": 4.0, "decay": "recurrence", "p_t": "constant"},
    ):
        assert exchange(options, {"p_0"}) == options
    both = {"alpha_0": 0.25, "half_life": 4.0}
    assert exchange(both, {"p_0", "half_life"}) == both


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (ports.step, {"eta": 0.5}, "the closed form has no eta; what a port of it hard-codes is its sigma"),
        (amos_numpy.step, {"algorithm": "paper", "sigma": 0.5}, "paper Amos has no sigma; what a port"),
        (ports.step, {"sigma": 0.5}, "takes sigma, so --sigma, which is for ports that hard-code it, does not apply"),
        (ports.step, {"words": {"decay": "square"}}, "there is no decay 'square'; it is one of inverse-time, inverse-"),
        (ports.step, {"words": {"q": "one"}}, "the closed form: 'q' is no option that has words; those that have are"),
        (amos_numpy.step, {"algorithm": "paper", "words": {"decay": "x"}}, "paper Amos: 'decay' is no option that has"),
        (ports.step, {"algorithm": "nonsense"}, "algorithm is 'nonsense'; it must be 'paper' or 'closed-form'"),
        (lambda theta, g, state, xi: None, {}, "has no parameter for alpha_0"),
        (lambda theta, g, state, lr: None, {"renamed": {"eta": "lr"}}, "'eta' is not one of alpha_0, half_life, p_0"),
        (ports.step, {"cases": "aged-rows-extra"}, "there is no case 'aged-rows-extra'"),
        (ports.squared, {"sigma": "-1"}, "sigma of leaf 'kernel' is -1; it must be a finite number > 0"),
        (ports.squared, {"sigma": " "}, "--sigma is empty; it must be a number, or an expression in SHAPE"),
    ],
)
def test_what_cannot_be_asked_is_a_named_error(target, options, words):
    with pytest.raises((TargetError, RuleError), match=re.escape(words)):
        check(target, **(CLOSED | options))


def test_a_sigma_that_the_port_hard_codes():
    def fixed(theta, g, state, t, alpha_0, half_life):
        return ports.step(theta, g, state, t, alpha_0, half_life, sigma=0.75)

    few = {"cases": ["plain", "q-large", "sigma-init"], "dtypes": "float64", **CLOSED}
    report = check(fixed, sigma="0.75", **few)
    assert report.ok
    assert verdicts(report)["sigma-init", "float64"].detail == "the port has the sigma that is given, and measures none"
    assert not check(fixed, sigma="0.5", **few).ok
    assert not check(fixed, **few).ok  # as if it measured


class Ported:
    """The class of this package as a Port."""

    name, options, skips_none = "ours", set(amos_ref.ClosedFormAmos(half_life=1.0).options) | {"clip_value"}, True
    dtypes = ("float64", "float32", "float16", "bfloat16")

    def init(self, params, hyper):
        sigma, slots = hyper["sigma"], hyper["slot_shape"]
        own = sigma if isinstance(sigma, str) else lambda name, shape: sigma[name]
        options = {k: x for k, x in hyper.items() if k not in ("sigma", "slot_shape")}
        self.optimizer = amos_ref.ClosedFormAmos(**options, sigma=own, slot_shape=lambda name, shape: slots[name])
        self.params = {name: a.copy() for name, a in params.items()}
        self.held = self.optimizer.init(self.params)

    def step(self, grads):
        self.held = self.optimizer.step(self.params, grads, self.held)
        return self.params

    def state(self):
        return {part: arrays for part in "mv" if (arrays := getattr(self.held, part)) is not None}

    def own_eta(self, params):
        return None


def test_the_class_of_this_package_conforms():
    report = check(Ported(), cases=["plain", "sigma-init", "adam"], **CLOSED)
    assert report.ok, str(report)
    assert set(report.counts()) == {"conforms"}


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"words": ["decay"]}, {}, "ours has words of type list; they must be a dict by option"),
        ({"algorithm": PAPER_AMOS}, {}, "ours was made as paper Amos, and is to be checked as the closed form"),
        ({}, {"words": {"decay": "recurrence"}}, "ours is a Port, which says by itself what words it knows"),
    ],
)
def test_a_port_that_says_other_things_of_itself(change, options, words):
    port = Ported()
    vars(port).update(change)
    with pytest.raises(TargetError, match=words):
        check(port, cases="plain", **options, **CLOSED)


def test_a_port_that_says_one_word_as_a_text_is_run_with_it():
    port, case = Ported(), next(case for case in CLOSED_FORM.table() if case.name == "plain")
    port.options, port.words = Ported.options - {"decay"}, {"decay": "inverse-square"}
    assert observe(port, case).case.options["decay"] == "inverse-square"
    port.words = {"decay": ["inverse-square", "recurrence"]}
    assert unsupported(port, case) == "the port has no decay 'inverse-time'"


def test_a_decay_of_a_number_is_no_word():
    def step(theta, g, state, t, lr, half_life, decay=0.01):
        return ports.step(theta, g, state, t, lr, half_life)

    port = as_port(step, algorithm=CLOSED_FORM)
    assert "decay" not in port.options
    assert [(note.kind, note.option) for note in port.notes] == [("not understood", "decay")]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_of_the_options_and_parts(name):
    names, algorithm = NAMES[name], {"paper": PAPER_AMOS, "closed-form": CLOSED_FORM}[name]
    assert set(names.options) <= set(algorithm.options)
    assert set(names.off) <= set(names.options)
    assert set(names.state) == set(algorithm.parts)
    assert {*names.beside, *names.beside.values()} <= set(names.options)
    assert set(names.implied) <= set(algorithm.words) <= set(algorithm.options)


# a program


PROTOCOL = json.loads((importlib.resources.files("amos_ref.conformance.ports") / "protocol.schema.json").read_text())


def test_the_schema_of_messages_has_the_options_and_words():
    jsonschema.Draft202012Validator.check_schema(PROTOCOL)
    answer, init = (PROTOCOL["$defs"][name]["properties"] for name in ("hello_answer_2", "init_2"))
    assert answer["options"]["items"]["enum"] == list(NAMES["closed-form"].options)
    words = {option: tuple(known["items"]["enum"]) for option, known in answer["words"]["properties"].items()}
    assert words == dict(CLOSED_FORM.words)
    assert set(init["options"]["properties"]) == set(NAMES["closed-form"].options) - {"sigma", "slot_shape"}


CHILD = """
import json, struct, sys

def say(**answer):
    print(json.dumps(answer), flush=True)

def number(text):
    return struct.unpack(">d", bytes.fromhex(text))[0]

def numbers(text):
    return [number(text[i:i + 16]) for i in range(0, len(text), 16)]

for line in sys.stdin:
    message = json.loads(line)
    call = message["call"]
    if call == "hello":
        say(protocol="amos-ref-port-2", name="child", options=["alpha_0", "half_life", "q", "sigma"],
            dtypes=["float64"], null_gradients=False, state=True, put=False, **MORE)
    elif call == "init":
        o = {name: number(text) for name, text in message["options"].items()}
        theta, t, sigma = {}, FIRST, {}
        for name, leaf in message["leaves"].items():
            theta[name] = x = numbers(leaf["theta"])
            own = leaf["sigma"]
            measured = 0.5 if set(x) in ({0.0}, {1.0}) else (sum(a * a for a in x) / len(x)) ** 0.5
            sigma[name] = measured if own == "init" else number(own)
        say(ok=True)
    elif call == "step":
        for name, text in message["grads"].items():
            g = numbers(text)
            shrink = 1 / (1 + t / o["half_life"])
            root = max(sum(a * a for a in g) / len(g), 2.0**-125) ** 0.5
            alpha, rho = o["alpha_0"] * sigma[name] / root * shrink, o["alpha_0"] ** 2 / 2 / o["q"] * shrink
            theta[name] = [x - (alpha * a + rho * x) for x, a in zip(theta[name], g)]
        t += 1
        say(theta={name: struct.pack(f">{len(x)}d", *x).hex() for name, x in theta.items()})
    elif call == "bye":
        break
"""


@pytest.fixture
def cli(capsys):
    """Return a function that runs the command line; it returns the status and what was printed."""

    def call(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def program(tmp_path):
    """Return a function that writes a program, and a command that runs it."""

    def make(first="0", more="{}"):
        path = tmp_path / "child.py"
        path.write_text(CHILD.replace("FIRST", first).replace("MORE", more))
        return path

    return make


def test_a_program_of_the_second_protocol(program, cli, tmp_path):
    path = program(more="{'words': {'sigma': ['init']}}")
    said = tmp_path / "said"
    command = [
        "check",
        "--exec",
        f"{sys.executable} {path}",
        *("--algorithm", "closed-form", "--json", "--transcript", said),
    ]
    status, out, _ = cli(*command)
    report = json.loads(out)
    assert (status, report["ok"], report["algorithm"]) == (0, True, "closed-form")
    validator = jsonschema.Draft202012Validator(PROTOCOL)
    for line in said.read_text().splitlines():
        validator.validate(json.loads(line[2:]))
        assert not validator.is_valid(json.loads(line[2:]) | {"more": 1})
    assert said.read_text().startswith('> {"call":"hello","protocol":"amos-ref-port-2","algorithm":"closed-form"}\n')
    found = {r["case"]: r for r in report["results"] if r["dtype"] == "float64"}
    assert found["plain"]["verdict"] == found["sigma-init"]["verdict"] == "conforms"
    assert found["adam"]["detail"] == "the port has no direction 'adam'"


def test_the_examples_in_other_languages_lack_the_recurrence_alone(example, cli):
    _, out, _ = cli("check", "--exec", " ".join(example), "--algorithm", "closed-form", "--quick", "--json")
    report = json.loads(out)
    assert report["ok"]
    of_formulas = [r for r in report["results"] if not r["case"].startswith("life-")]
    lacking = {r["detail"] for r in of_formulas if r["verdict"] != "conforms"}
    assert lacking == {"the port has no decay 'recurrence'"}  # which docs/closed_form.md says, with the reason


def test_the_protocols_document_shows_what_such_a_program_says(program):
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    said = re.search(r"```text\n(> .*?)```", text, re.DOTALL)
    assert said is not None
    lines = said[1].splitlines()
    asked = "".join(f"{line[2:]}\n" for line in lines[::2])
    argv = [sys.executable, str(program())]
    found = subprocess.run(argv, input=asked, capture_output=True, text=True, check=True, timeout=60)
    assert [json.loads(line) for line in found.stdout.splitlines()] == [json.loads(line[2:]) for line in lines[1::2]]


def test_a_program_that_counts_from_one_departs(program, cli):
    status, out, _ = cli("check", "--exec", f"{sys.executable} {program('1')}", "--algorithm", "closed-form", "--json")
    assert status == 1
    assert {r["verdict"] for r in json.loads(out)["results"] if r["case"] == "plain"} == {"departs"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            "{'words': {'q': ['one']}}",
            'its words are \'{"q": ["one"]}\'; expected lists for decay, direction, p_t, sigma',
        ),
        ("{'words': {'decay': 'all'}}", "its words are"),
        ("{'words': {'decay': ['all']}}", "its words of decay hold"),
    ],
)
def test_a_program_whose_words_mean_nothing(program, cli, more, words):
    status, _, err = cli("check", "--exec", f"{sys.executable} {program(more=more)}", "--algorithm", "closed-form")
    assert status == 2
    assert words in err


def test_a_program_of_the_first_protocol_has_paper_amos_alone(child):
    with pytest.raises(TargetError, match="speaks the protocol 'amos-ref-port-1', which has paper Amos alone"):
        child(algorithm="closed-form")


def test_a_program_may_answer_paper_amos_with_the_second_version(child):
    port = child(hello="hello['protocol'] = 'amos-ref-port-2'; say(**hello)")
    port.init({"x": np.ones(3)}, {"learning_rate": 0.25, "eta": {"x": 0.5}})
    assert port.step({"x": np.ones(3)}).keys() == {"x"}


# one algorithm checked as the other


def test_paper_amos_checked_as_the_closed_form_is_told_so():
    def paper(theta, g, state, t, lr, eta=0.5, beta=0.999):
        return amos_numpy.step(theta, g, state, t, lr, eta, (), beta)

    report = check(paper, **CLOSED)
    assert not report.ok
    assert set(report.counts()) == {"not supported"}
    assert report.diagnosis.text.startswith("this is paper Amos: as that, it conforms in all ")
    assert "--algorithm paper" in report.diagnosis.text
    assert report.diagnosis.deviations == []


@pytest.mark.parametrize(
    ("target", "algorithm", "words"),
    [
        (amos_numpy.step, "closed-form", "; if the port is paper Amos: --algorithm paper"),
        (ports.from_one, "paper", "--map learning_rate=NAME names it"),
        (ports.adam, "paper", "; if the port is the closed form: --algorithm closed-form"),
    ],
)
def test_what_must_be_given_says_which_algorithm_it_may_be(target, algorithm, words):
    with pytest.raises(TargetError, match=re.escape(words)):
        check(target, algorithm=algorithm)


def test_the_closed_form_checked_as_paper_amos_is_told_so():
    def by_sigma(theta, g, state, lr, sigma=0.5, half_life=8.0):
        t = state.get("t", 0)
        theta, state = ports.step(theta, g, state, t, lr, half_life, sigma=sigma)
        return theta, state | {"t": t + 1}

    text = check(by_sigma, renamed={"eta": "sigma"}, suite="quick", skip="life-*").diagnosis.text
    assert text.startswith("this is not paper Amos but the closed form: ")
    assert "half life 8" in text
    assert text.endswith("check it as that: --algorithm closed-form, or check(..., algorithm='closed-form').")


def test_a_wrong_port_of_neither_is_told_neither():
    def neither(theta, g, state, t, lr, half_life, sigma):
        return theta - lr * g, state

    report = check(neither, **CLOSED)
    assert not report.ok
    assert report.diagnosis is None or "this is" not in report.diagnosis.text
