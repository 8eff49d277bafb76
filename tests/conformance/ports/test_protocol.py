"""The protocol: messages follow its schema, its document shows them, and wrong answers are told as such."""

import importlib.resources
import json
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
from helpers import ROOT
from helpers.children import PLAIN, judge_one

from amos_ref.conformance import CommandPort
from amos_ref.conformance.ports.failures import Garbage
from amos_ref.errors import TargetError


def test_a_transcript_holds_messages_of_the_schema(example, tmp_path):
    schema = json.loads((importlib.resources.files("amos_ref.conformance.ports") / "protocol.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    port = CommandPort(example, transcript=tmp_path / "transcript")
    judge_one(port, PLAIN)
    port.put({"b": {"bias": np.array(16.0)}})
    port.close()
    lines = (tmp_path / "transcript").read_text().splitlines()
    assert [line[0] for line in lines] == [">", "<"] * (len(lines) // 2) + [">"]
    messages = [json.loads(line[2:]) for line in lines]
    calls = [m["call"] for m in messages[::2]]
    assert calls == ["hello", "init"] + ["step"] * 8 + ["put", "bye"]
    for message in messages:
        validator.validate(message)
        assert not validator.is_valid(message | {"more": 1})


def test_the_protocols_document_shows_what_the_example_says(in_c):
    """Its transcript is replayed: the same answers, to the bit."""
    lines = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8").splitlines()
    said = [line[6:] for line in lines if line.startswith(("    > {", "    < {"))]
    asked, answers = said[::2], said[1::2]
    assert [json.loads(line)["call"] for line in asked] == ["hello", "init", "step", "put", "step", "bye"]
    found = subprocess.run(in_c, input="\n".join(asked) + "\n", capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.splitlines() == answers


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("time.sleep(60)", "gave no answer within 0.5 s"),
        ("sys.exit(2)", "ended with exit status 2"),
        ("hello['protocol'] = 'amos-ref-port-3'; say(**hello)", "speaks the protocol 'amos-ref-port-3'; this is amos-"),
        ("del hello['name']; say(**hello)", "its answer to hello has no 'name'"),
        ("say(**hello, fast=True)", "has 'fast', which is not of the protocol"),
        ("hello['put'] = 1; say(**hello)", "has put '1'; expected a bool"),
        ("hello['name'] = '\\x1b[2J'; say(**hello)", "its name is '\\x1b[2J'; expected 1 to 100 printable"),
        ("hello['options'] = ['eta', 'lr']; say(**hello)", "its options hold '\"lr\"'; expected some of learning_rate"),
        ("hello['options'] = ['eta']; say(**hello)", "its options do not hold learning_rate"),
        ("hello['dtypes'] = ['float8']; say(**hello)", "its dtypes hold '\"float8\"'; expected some of float16"),
        ("say(error='not today')", "not today"),
    ],
)
def test_a_child_that_cannot_say_hello_is_a_named_error(child, answer, text):
    with pytest.raises(TargetError) as caught:
        child(hello=answer, timeout=0.5 if "sleep" in answer else 5.0)
    assert text in str(caught.value)
    assert str(caught.value).startswith(sys.executable)


def test_a_wrong_answer_to_init(child):
    with pytest.raises(Garbage, match=r'answered init with .*; expected {"ok":true}'):
        child(init="say(ok=False)").init(PLAIN.params, {"learning_rate": 0.25, "eta": PLAIN.eta})


def test_nan_bits_are_numbers(child):
    port = child(step="say(theta={k: '7ff8000000000000' * (len(x) // 16) for k, x in theta.items()})")
    result = judge_one(port, PLAIN)
    assert result.verdict == "not finite"
    assert "is nan where the page has" in result.detail
