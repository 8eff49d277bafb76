"""No false name: a port whose deviation is unknown is told so, and is not given another's name.

Deviations are left out of their catalogue in turn: ``nox -s long`` tries some, ``nox -s long -- --whole`` all of them.
"""

import pytest
from helpers import dropped

from amos_ref.conformance.diagnosis.catalogue import KNOWN
from amos_ref.conformance.diagnosis.diagnose import Diagnosis

SOME = {"formulas": 7, "of_life": 2}  # of each algorithm: what is drawn takes ten seconds of a core each


def test_a_deviation_that_the_catalogue_lacks_is_never_called_by_anothers_name(request):
    whole = request.config.getoption("--whole", default=False)
    answers = dropped.called(dropped.drawn(**(dict.fromkeys(SOME) if whole else SOME)))
    words = [word for word, _ in answers.values()]
    print(f"{len(words)} left out in turn: {', '.join(f'{words.count(word)} {word}' for word in dropped.RIGHT)}")
    assert {job: named for job, (word, named) in answers.items() if word not in dropped.RIGHT} == {}


@pytest.mark.parametrize(
    ("lacking", "named", "text", "word"),
    [
        ("d-absent", ["d-absent"], "", "the same"),
        ("d-absent", ["d_coef-times-0"], "", "the same"),
        ("d-absent", ["d-rooted"], "", "another"),
        ("d-absent", [], "no known set of deviations explains it.", "nothing"),
        ("pickle-loses-v", ["pickle-loses-b"], "", "another"),
        ("pickle-loses-v", ["pickle-loses-b"], "beside that, no known deviation explains case life-pickle.", "a part"),
    ],
)
def test_a_false_name_is_told_from_a_right_one(monkeypatch, lacking, named, text, word):
    def diagnose(port, seen):
        assert lacking not in KNOWN["paper"].catalogue
        return Diagnosis(text, named, [named] if named else [], None, [], named)

    monkeypatch.setattr(dropped, "run", lambda port, cases: ([], []))
    monkeypatch.setattr(dropped.lives, "diagnose", diagnose)
    before = list(KNOWN["paper"].catalogue)
    assert dropped.word_of(("paper", lacking)) == (word, [named] if named else [])
    assert list(KNOWN["paper"].catalogue) == before
