"""The first rule that matches a name, looked up or tried: the same one as by trying all in their order."""

import re

import pytest
from helpers.messages import one_line
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import rules
from amos_ref.errors import RuleError
from amos_ref.options import freeze
from amos_ref.patterns import Matcher

LETTERS = "ab.0/\n"
TEXTS = st.text(alphabet=LETTERS, max_size=5)
REGEXES = st.sampled_from([
    ".*", "a.*b", "[ab]+", "a|b", "(", "a{2}", r"\w+\.0", "^a", "b$", r"a\.b", ".", "..", "a.b", "", "(?i)A",
    re.compile("A.", re.I),
])  # fmt: skip
ENTRY = amos_ref.choose({"a": (3, 4)}, overrides={"a": 0.5})["a"]


def first_by_trying(mapping, name):
    """Return the first rule that matches, as `resolve` once found it; entries of a choice match their name."""
    matcher = Matcher(name)
    for pattern, value in mapping.items():
        if pattern == name if value is ENTRY else matcher.matches(pattern):
            return pattern
    return None


def outcome(find, *args):
    try:
        return find(*args)
    except RuleError as error:
        return str(error)


@given(patterns=st.lists(TEXTS | REGEXES, max_size=12, unique=True), name=TEXTS, data=st.data())
def test_it_is_the_first_that_matches(patterns, name, data):
    mapping = {p: ENTRY if isinstance(p, str) and data.draw(st.booleans()) else i for i, p in enumerate(patterns)}
    assert outcome(rules.RuleIndex(mapping).first_match, name) == outcome(first_by_trying, mapping, name)


WRONG = [
    ("a plain name before a regex that is earlier", {"a.*": 1, "ab": 2}, "ab", "a.*"),
    ("a dot that is only a dot", {"a.b": 1, ".*": 2}, "aXb", "a.b"),
    ("a dot that is a line break", {"a.b": 1, ".*": 2}, "a\nb", ".*"),
    ("the longest name, not the first", {"a": 1, "ab": 2}, "ab", "a"),
    ("the whole name only", {"a": 1}, "ab", "a"),
]


@pytest.mark.parametrize(("fault", "mapping", "name", "first"), WRONG)
def test_ways_to_get_it_wrong(fault, mapping, name, first):
    assert first_by_trying(mapping, name) == first
    assert rules.RuleIndex(mapping).first_match(name) == first


def test_a_wrong_index_would_be_seen(monkeypatch):
    exact = lambda self, size, dots: [(size, dots)] * ((size, dots) in self._plain)  # noqa: E731
    monkeypatch.setattr(rules.RuleIndex, "_possible", exact)
    with pytest.raises(AssertionError):
        test_ways_to_get_it_wrong(*WRONG[1])


def test_only_rules_before_the_match_are_looked_at():
    mapping = {"fc": 0.25, "(": 0.5}
    assert rules.eta_of(mapping, "fc/kernel", (2,)) == 0.25
    with pytest.raises(RuleError, match="is not a regular expression"):
        rules.eta_of(mapping, "other", (2,))


def test_plain_names_are_not_tried_one_after_the_other(monkeypatch):
    names = [f"layers.{i}.{part}.weight" for i in range(300) for part in ("attn.q", "attn.k", "mlp.fc1")]
    tried = []
    old = Matcher.matches
    monkeypatch.setattr(Matcher, "matches", lambda self, pattern: tried.append(pattern) or old(self, pattern))
    mapping = freeze({**{name: i + 1 for i, name in enumerate(names)}, ".*": 0.5})
    assert [rules.eta_of(mapping, name, ()) for name in names] == list(range(1, len(names) + 1))
    assert rules.eta_of(mapping, "other", ()) == 0.5
    assert tried == [".*"]


def test_many_rules_are_listed_in_part():
    with pytest.raises(RuleError) as error:
        rules.eta_of({f"w{i}": 0.5 for i in range(1000)}, "v", ())
    one_line(error.value, ["'w0'", "'w19'", "and 980 more"])
    assert "'w20'" not in str(error.value)
