"""What a fuzzer found worth keeping is given to the entry points again, without it; tools/fuzz.py looks for more."""

import pytest
from helpers import TESTS, fuzzing

from amos_ref import rules
from amos_ref.errors import AmosError

CORPUS = sorted(path for path in (TESTS / "corpus").rglob("*") if path.is_file())


@pytest.mark.parametrize("path", CORPUS, ids=[f"{path.parent.name}/{path.name}" for path in CORPUS])
def test_each_input_has_an_answer_or_a_named_error(path):
    fuzzing.feed(path.parent.name, path.read_bytes())


def test_each_target_has_inputs():
    assert {path.parent.name for path in CORPUS} == set(fuzzing.TARGETS)


def test_the_corpus_stays_small():
    assert sum(path.stat().st_size for path in CORPUS) < 200_000


def test_any_other_exception_is_a_fault(monkeypatch):
    """A wrong version: a pattern that is not one is a raw error, and an error's text has a control character."""
    for error, fault in ((OverflowError("x"), OverflowError), (AmosError("x"), AssertionError)):

        def fail(*args, error=error):
            raise error

        monkeypatch.setattr(rules, "eta_of", fail)
        error.args = ("\x1b",)
        with pytest.raises(fault):
            fuzzing.feed("rule", b"\0\0a")
