"""Regular expressions of rules: re's answers, in bounded time."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import amos_ref
from amos_ref import patterns, rules
from amos_ref.errors import RuleError
from amos_ref.patterns import Matcher

PARTS = (
    r"""a b A é É / . [ab] [^a] \d \w \W \s [a-c0-3] [^/] ^ $ \b \B \A \Z (?i:a) (?i:[a-c]) (?a:\w) (?i:É)
(?i:[k-s]) (?i:[^a]) (?s:.) (?m:^) (?m:$)""".split()
    + ["\u017f"]
)
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{0,3}", "{2,}"]


def grow(inner):
    several = st.lists(inner, min_size=1, max_size=3)
    ways = several.map("|".join) | st.just("a|")
    groups = st.tuples(st.sampled_from(["(", "(?:", "(?=", "(?!", "(?<=", "(?<!"]), ways).map(
        lambda x: f"{x[0]}{x[1]})"
    )
    repeats = st.tuples(inner, st.sampled_from(REPEATS)).map(lambda x: f"(?:{x[0]}){x[1]}")
    return several.map("".join) | groups | repeats


@pytest.mark.parametrize("most_ways", [patterns.MOST_WAYS, 0], ids=["both ways", "never left to re"])
@given(
    flags=st.sampled_from(["", "(?i)", "(?a)", "(?ai)", "(?s)", "(?m)"]),
    pattern=st.recursive(st.sampled_from(PARTS), grow, max_leaves=8),
    name=st.text(alphabet="abABéÉ/0 \n\u017fsKk\u212a", max_size=8),
)
@example("", "(?:a|ab)(?:c|bcd)*$", "abcd")
def test_a_pattern_matches_what_re_matches(most_ways, flags, pattern, name):
    try:
        want = re.match(flags + pattern, name) is not None
    except re.error:
        return
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(patterns, "MOST_WAYS", most_ways)
        assert Matcher(name).matches(flags + pattern) is want


EXPONENTIAL = [r"(a+)+$", r"(a|a)*$", r"(a|aa)+$", r"(.*)*x", r"(?=(a*)*$)b", r"(a?){200}a{200}$", r".*.*.*.*.*.*.*.*x"]


@pytest.mark.parametrize("pattern", [*EXPONENTIAL, "(a|a)" * 40 + "x", "(?:){4000000000}x", "(?:a?){4000000000}x"])
def test_what_takes_re_for_ever_is_followed_in_few_places(pattern):
    matcher = Matcher("a" * 80 + "!")
    assert not matcher.matches(pattern)
    assert patterns.MOST_PLACES - matcher.left < 50_000


def test_what_is_left_to_re_is_what_it_does_at_once(monkeypatch):
    """A wrong version: patterns with a repeat in a repeat are left to re, which is seen and not waited for."""
    left = []
    monkeypatch.setattr(patterns.re, "match", lambda pattern, name: left.append(pattern))
    for pattern in (*EXPONENTIAL, ".*kernel$", r"(\w+)/\1"):
        Matcher("a" * 80 + "!").matches(pattern)
    assert left == [".*kernel$", r"(\w+)/\1"]
    left.clear()
    monkeypatch.setattr(patterns, "_ways", lambda parts, size: 1)
    Matcher("a").matches(EXPONENTIAL[0])
    assert left == EXPONENTIAL[:1]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("a{999999999999}", "the repetition number is too large"),
        ("(" * 5000 + ")" * 5000, "it is nested too deeply"),
        ("(" * 5000, "nested too deeply"),
        ("x" * 10_001, "it has 10001 characters; at most 10000 are allowed"),
        ("((a?){1000}){1000}$", "it takes too long on a name of 1001 characters"),
        (r"(a*)*\1", "it refers back to a group, which rules cannot do"),
        ("((?>a))*", "it has a group or repeat that gives nothing back, which rules cannot do"),
        ("(a)?(?(1)a|b)", "it refers back to a group"),
        ("(?:(?<=a*)a)*b", "look-behind requires fixed-width pattern"),
        ("(?<=a*)a", "look-behind requires fixed-width pattern"),
        ("(", "missing ), unterminated subpattern at position 0"),
        (b"a", "it is not a string"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_a_pattern_that_is_refused_is_one_short_line(pattern, why):
    with pytest.raises(RuleError) as error:
        rules.eta_of({pattern: 0.5}, "a" * 1000 + "!", (2,))
    assert why in str(error.value)
    assert str(error.value).startswith("eta of leaf 'aaa")
    assert len(str(error.value)) < 1400
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["(?:a|aa)*b", "(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)(a|a)b"])
def test_the_bound_is_for_all_patterns_of_a_name_together(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "MOST_PLACES", 1000)
    with pytest.raises(RuleError, match="no rule matches"):
        rules.eta_of({pattern: 0.5}, "a" * 60, (2,))
    with pytest.raises(RuleError, match="it takes too long on a name of 60 characters"):
        rules.eta_of({f"{pattern}{i}": 0.5 for i in range(600)}, "a" * 60, (2,))


def test_compiled_patterns_are_patterns():
    assert rules.eta_of({re.compile("W", re.IGNORECASE): 0.5}, "w", (2,)) == 0.5
    assert Matcher("aA").matches(re.compile("(a+)+$", re.IGNORECASE))


def test_a_file_of_state_brings_no_pattern_that_takes_for_ever(tmp_path):
    params = {"a" * 40 + "!": amos_ref.spec.np.ones(3)}
    path = tmp_path / "x.safetensors"
    opt = amos_ref.Amos(0.1, eta={"(a+)+$": 0.5, "(a|a)*!": 0.25})
    amos_ref.save(path, params, opt.init(params), opt)
    read, state, again = amos_ref.load(path, like=params)
    again.step(read, params, state)
