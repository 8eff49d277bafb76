"""Leaves deviations out of the catalogue in turn, and asks what a port that has one is then called."""

import contextlib
import itertools
import multiprocessing

import numpy as np

from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.diagnosis import lives
from amos_ref.conformance.diagnosis.catalogue import KNOWN, in_order, reading_of
from amos_ref.conformance.judging.judge import run
from tools import judge_quality
from tools.simulated_port import SimulatedPort

SEED = 3  # of the evaluation that the ports have

#: What a port may be called whose deviation the catalogue lacks; "another" is a false name.
RIGHT = ("nothing", "the same", "a part")


def word_of(job):
    """Return one of RIGHT or "another", and the names that were given; `job` is an algorithm and a name."""
    algorithm, name = job
    known, port = KNOWN[algorithm], SimulatedPort(name, seed=SEED, dtypes=("float64",), algorithm=algorithm)
    table = [case for case in ALGORITHMS[algorithm].table() if case.dtype == "float64"]
    in_formulas = known.catalogue[name].only(table[0])
    cases = [case for case in table if not (in_formulas and lives.is_special(case))]
    seen = run(port, cases)[1]
    with without(known.catalogue, name):
        found = lives.diagnose(port, seen)
    named = [] if found is None else found.candidates
    if not in_formulas and found is not None:
        named = [list(found.life)] if found.life else []
    if not named:
        return "nothing", named
    alike = judge_quality.same if in_formulas else same_life
    if all(alike(tuple(one), (name,), algorithm) for one in named):
        return "the same", named
    return ("a part" if "no known deviation explains" in found.text else "another"), named


@contextlib.contextmanager
def without(catalogue, name):
    """Leave one entry out; the others keep their order."""
    every = dict(catalogue)
    del catalogue[name]
    try:
        yield
    finally:
        catalogue.clear()
        catalogue.update(every)


def same_life(one, other, algorithm):
    """Whether two sets of deviations give the same numbers in every case of a life that the table has."""
    cases = [c for c in ALGORITHMS[algorithm].table() if c.dtype == "float64" and lives.is_special(c)]
    for case in cases:
        for a, b in zip(*(_steps(names, case, algorithm) for names in (one, other)), strict=True):
            if a.keys() != b.keys() or not all(_near(a[leaf].theta, b[leaf].theta) for leaf in a):
                return False
    return True


def _near(x, y):
    return np.allclose(x, y, rtol=1e-10, atol=1e-12, equal_nan=True)


def _steps(names, case, algorithm):
    with np.errstate(all="ignore"):
        return list(reading_of(in_order(names, algorithm), algorithm).run(case, case.eta))


def called(jobs):
    """Return the answer for each job, by every core."""
    with multiprocessing.get_context("spawn").Pool() as pool:
        return dict(zip(jobs, pool.imap(word_of, jobs, chunksize=1), strict=True))


def drawn(formulas, of_life):
    """Return jobs: so many deviations of the formulas and of a life for each algorithm; all with None."""
    rng, jobs = np.random.default_rng(SEED), []
    for algorithm, known in KNOWN.items():
        plain = ALGORITHMS[algorithm].table()[0]
        for acts, many in ((True, formulas), (False, of_life)):
            names = [name for name, d in known.catalogue.items() if d.only(plain) is acts]
            jobs += [(algorithm, str(name)) for name in itertools.islice(rng.permutation(names), many)]
    return jobs
