"""How good the judge is, measured: what it catches, what it names, when it is wrong, and what published ports do.

``python -m tools.judge_quality FOLDER`` writes matrix.md and deviations.md (``nox -s matrix``). With ``--closed-form``
it measures the closed form alone, in minutes, and renews that section of FOLDER/matrix.md; with ``--paper``, what
stands before that section. ``--part 4`` asks for the names of every fourth deviation, and so with all that is drawn at
random; the page then says so.
"""

import collections
import functools
import importlib.metadata
import itertools
import multiprocessing
import pathlib
import re
import sys
import textwrap
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from amos_ref.conformance import check
from amos_ref.conformance.algorithms import ALGORITHMS
from amos_ref.conformance.cases import Case, table
from amos_ref.conformance.diagnosis.catalogue import CATALOGUE, KNOWN, in_order, reading_of
from amos_ref.conformance.diagnosis.deviation import STORED, Catalogue
from amos_ref.conformance.diagnosis.diagnose import diagnose
from amos_ref.conformance.diagnosis.factors import GRAMMAR
from amos_ref.conformance.diagnosis.lives import is_special
from amos_ref.conformance.judging.drive import Failure, observe
from amos_ref.conformance.judging.judge import first_departure, run
from amos_ref.conformance.judging.tolerance import METHOD, trajectory_of_page
from amos_ref.storage.files import write_file
from tools.simulated_port import SimulatedPort

DTYPES = ("float64", "float32", "bfloat16", "float16")
SEED = 3  # of the evaluation that simulated ports have, and of what is drawn
PAIRS, PAIRS_NAMED = 1000, 6  # pairs of deviations that are drawn, and how many of them are diagnosed
MUTANTS, MUTANTS_NAMED = 2000, 60  # single changes that are drawn from the grammar, likewise
DROPPED = 12  # deviations that are left out of the catalogue in turn
HELD_OUT = 2000  # the seed of the first input that the search does not use
FIRST, EVALUATIONS = 1000, 1000  # right evaluations that look for false alarms: seeds
PORTS = {
    "pytorch_optimizer 4.1.0": "pytorch_optimizer:Amos",
    "jestimator 0.3.3 (amos.py)": "{jestimator}:amos",
}


class Catch(NamedTuple):
    """Where a port departs first, in the fewest steps of any case."""

    step: int
    case: str


class Judge:
    """The cases of a dtype with the page's answers, computed once.

    Parameters
    ----------
    dtype : str
    algorithm : {"paper", "closed-form"}
    """

    def __init__(self, dtype: str, algorithm: str = "paper") -> None:
        self.dtype, self.algorithm = dtype, algorithm
        table = ALGORITHMS[algorithm].table()
        self.cases = [case for case in table if case.dtype == dtype and not is_special(case)]
        self.pages = [trajectory_of_page(case, case.eta) for case in self.cases]

    def catch(self, *names: str) -> list[Catch | None]:
        """Return where a simulated port is caught soonest, with its state shown and in theta alone."""
        port = self.port(*names)
        found = [self._departures(port, i) for i in range(len(self.cases))]
        return [min(filter(None, some), default=None) for some in zip(*found, strict=True)]

    def catches(self, *names: str) -> bool:
        """Whether a simulated port is caught in any case."""
        port = self.port(*names)
        return any(self._departures(port, i)[0] for i in range(len(self.cases)))

    def false_alarms(self, seed: int) -> list[str]:
        """Return the cases, of three, in which a right evaluation departs."""
        return self.departing(seed, 3)

    def departing(self, seed: int, several: int) -> list[str]:
        """Return the cases, of several, in which a right evaluation departs."""
        port, n = self.port(seed=seed), len(self.cases)
        return [self.cases[i % n].name for i in range(seed, seed + several) if self._departures(port, i % n)[0]]

    def names(self, *names: str) -> bool:
        """Whether every candidate of the diagnosis of a simulated port does what the port does, on inputs held out."""
        return self._called(self.port(*names), names) == "the same"

    def dropped(self, name: str) -> str:
        """Return what a port is called whose deviation the catalogue lacks: "nothing", "the same" or "another"."""
        catalogue = KNOWN[self.algorithm].catalogue
        every, port = dict(catalogue), self.port(name)
        del catalogue[name]
        try:
            candidates = self._candidates(port)
        finally:
            catalogue.clear()
            catalogue.update(every)  # in the same order
        return self.word_of(candidates, (name,))

    def names_as(self, name: str) -> str:
        """Return what a port with a deviation is called: "nothing", "the same" or "another"."""
        return self._called(self.port(name), (name,))

    def _called(self, port: SimulatedPort, names: tuple[str, ...]) -> str:
        return self.word_of(self._candidates(port), names)

    def port(self, *names: str, seed: int = SEED) -> SimulatedPort:
        """Return a simulated port with some deviations."""
        return SimulatedPort(*names, seed=seed, dtypes=(self.dtype,), algorithm=self.algorithm)

    def word_of(self, candidates: list[list[str]], names: tuple[str, ...]) -> str:
        """Return what candidates are to a set of deviations: "nothing", "the same" or "another"."""
        if not candidates:
            return "nothing"
        return "the same" if all(same(tuple(c), names, self.algorithm) for c in candidates) else "another"

    def _candidates(self, port: SimulatedPort) -> list[list[str]]:
        found = diagnose(port, run(port, self.cases)[1])
        return [] if found is None else found.candidates

    def _departures(self, port: SimulatedPort, i: int) -> list[Catch | None]:
        case, page = self.cases[i], self.pages[i]
        try:
            shown = observe(port, case).shown
        except Failure:  # its slots are not those of the state that the case sets
            return [Catch(2, case.name)] * 2
        both = (first_departure(shown, page, stages)[0] for stages in (None, ("theta",)))
        return [None if departure is None else Catch(departure["step"], case.name) for departure in both]


@functools.cache
def _judge(dtype: str, algorithm: str) -> Judge:
    return Judge(dtype, algorithm)


def _do(job: tuple[str, str, str, tuple[Any, ...]]) -> Any:
    """Call a method of the judge of a dtype, in a process of the pool."""
    algorithm, dtype, method, arguments = job
    return getattr(_judge(dtype, algorithm), method)(*arguments)


@functools.cache
def held_out(algorithm: str) -> list[Case]:
    """Return twenty inputs."""
    known = ALGORITHMS[algorithm]
    return [known.load("cases").random_case(HELD_OUT + i, tuple(known.options)) for i in range(20)]


def same(one: tuple[str, ...], other: tuple[str, ...], algorithm: str = "paper") -> bool:
    """Whether two sets of deviations are one reading, on twenty inputs that the diagnosis does not use."""
    if set(one) == set(other):
        return True
    for case in held_out(algorithm):
        sets = (in_order(names, algorithm) for names in (one, other))
        runs = (reading_of(names, algorithm).run(case, case.eta) for names in sets)
        for a, b in zip(*runs, strict=True):
            if any(np.shape(a[k].theta) != np.shape(b[k].theta) or not _near(a[k].theta, b[k].theta) for k in a):
                return False
    return True


def _near(x: np.ndarray, y: np.ndarray) -> bool:
    return np.allclose(x, y, rtol=1e-10, atol=1e-12, equal_nan=True)


def is_wrong_in(name: str, dtype: str, algorithm: str = "paper") -> bool:
    """Whether a deviation is one in this dtype: to store in the parameters' dtype, or in a wider one, is right."""
    return KNOWN[algorithm].catalogue[name].stage != "storage" or name.rpartition("-")[2] not in STORED[dtype]


def formulas_wrong_in(dtype: str) -> list[str]:
    """Return the catalogue's deviations that act in the formulas and are wrong in a dtype."""
    plain = table()[0]
    return [name for name, d in CATALOGUE.items() if d.only(plain) and is_wrong_in(name, dtype)]


def draw_mutants(rng: np.random.Generator) -> list[str]:
    """Return single changes of the grammar, in the order in which they are drawn."""
    singles = list(GRAMMAR.singles)
    return [str(name) for name in rng.choice(singles, min(MUTANTS, len(singles)), replace=False)]


def jobs() -> list[tuple[str, str, tuple[Any, ...]]]:
    """Return all that is measured: (dtype, method of Judge, arguments)."""
    found: list[tuple[str, str, tuple[Any, ...]]] = []
    plain, rng = table()[0], np.random.default_rng(SEED)
    formulas = [name for name, d in CATALOGUE.items() if d.only(plain)]
    mutants = draw_mutants(rng)
    for dtype in DTYPES:
        wrong = formulas_wrong_in(dtype)
        found += [(dtype, "catch", (name,)) for name in wrong]
        found += [(dtype, "false_alarms", (seed,)) for seed in range(FIRST, FIRST + EVALUATIONS)]
        if dtype in ("float64", "float32"):
            pairs = list(itertools.combinations(wrong, 2))
            drawn = [pairs[i] for i in rng.choice(len(pairs), PAIRS, replace=False)]
            found += [(dtype, "catches", pair) for pair in drawn]
            found += [(dtype, "names", names) for names in [*((name,) for name in wrong), *drawn[:PAIRS_NAMED]]]
            found += [(dtype, "catches", (name,)) for name in mutants]
            found += [(dtype, "names_as", (name,)) for name in mutants[:MUTANTS_NAMED]]
    found += [("float64", "dropped", (str(name),)) for name in rng.choice(formulas, DROPPED, replace=False)]
    return found


def part_of(todo: list[tuple[str, str, tuple[Any, ...]]], every: int) -> list[tuple[str, str, tuple[Any, ...]]]:
    """Return every so many of the jobs of each kind; of where deviations are caught, all."""
    kinds: dict[tuple[str, str, int], list[tuple[str, str, tuple[Any, ...]]]] = {}
    for job in todo:
        kinds.setdefault((*job[:2], len(job[2])), []).append(job)
    return [job for kind, some in kinds.items() for job in (some if kind[1] == "catch" else some[::every])]


def jobs_of_closed_form() -> list[tuple[str, str, tuple[Any, ...]]]:
    """Return what is measured of the closed form, in a few minutes."""
    found: list[tuple[str, str, tuple[Any, ...]]] = []
    plain, rng = ALGORITHMS["closed-form"].table()[0], np.random.default_rng(SEED)
    formulas = [name for name, d in KNOWN["closed-form"].catalogue.items() if d.only(plain)]
    for dtype in DTYPES:
        wrong = [name for name in formulas if is_wrong_in(name, dtype, "closed-form")]
        found += [(dtype, "catches", (name,)) for name in wrong]
        found += [(dtype, "departing", (seed, 1)) for seed in range(FIRST, FIRST + EVALUATIONS)]
        every = {"float64": 1, "float32": 3}.get(dtype)
        found += [(dtype, "names_as", (name,)) for name in wrong[::every]] if every else []
    found += [("float64", "dropped", (str(name),)) for name in rng.choice(formulas, DROPPED // 2, replace=False)]
    return found


def measure(
    todo: list[tuple[str, str, tuple[Any, ...]]], algorithm: str
) -> dict[str, dict[str, dict[tuple[Any, ...], Any]]]:
    """Do jobs on every core; return the answers by dtype, method and arguments."""
    answers: dict[str, dict[str, dict[tuple[Any, ...], Any]]] = {}
    with multiprocessing.get_context("spawn").Pool() as pool:
        of_algorithm = ((algorithm, *job) for job in todo)
        results = track(pool.imap(_do, of_algorithm, chunksize=8), "judge", len(todo), console=Console(stderr=True))
        for (dtype, method, arguments), answer in zip(todo, results, strict=True):
            answers.setdefault(dtype, {}).setdefault(method, {})[arguments] = answer
    return answers


def catalogue_page() -> str:
    """Return the catalogue of deviations as a page in Markdown."""
    rows = ["# The catalogue of deviations", "", f"{len(CATALOGUE)} ways to read the algorithm otherwise. This page is"]
    rows += ["written by `nox -s matrix`. How they are found: [diagnosis](diagnosis.md).", "", *_rows_of(CATALOGUE)]
    other = KNOWN["closed-form"].catalogue
    rows += ["", "## The closed form", "", f"{len(other)} ways to read the [closed form](closed_form.md) otherwise."]
    return "\n".join([*rows, "", *_rows_of(other)]) + "\n"


def _rows_of(catalogue: Catalogue) -> list[str]:
    rows = ["| stage | name | what is done | what comes of it in training |", "|---|---|---|---|"]
    texts = (f"| {d.stage} | {d.name} | {d.does} | {d.effect} |" for d in catalogue.values())
    return rows + [re.sub(r"\|(\w+)\|(?! *$)", r"abs(\1)", text) for text in texts]


def matrix_page(every: int = 1) -> str:
    """Measure everything; return the page in Markdown."""
    return paper_part(every) + "\n" + closed_form_section()


def paper_part(every: int = 1) -> str:
    """Measure how good the judge is for paper Amos; return the page as far as the section of the closed form."""
    answers = measure(part_of(jobs(), every), "paper")
    reports = {name: check(_path(target)) for name, target in PORTS.items()}
    parts = [_HEAD.format(method=METHOD)]
    parts += [f"Of what is drawn, and of what is asked for its name, one in {every} was taken.\n"] if every > 1 else []
    parts += [_scores(answers), _unseen(answers), _alarms(answers), _power(answers), _matrix(reports)]
    return "\n".join(parts)


CLOSED_FORM_HEAD = "## The closed form\n"


def closed_form_section() -> str:
    """Measure how good the judge is for the closed form; return the section."""
    answers = measure(jobs_of_closed_form(), "closed-form")
    rows = [CLOSED_FORM_HEAD, "Deviations of its [catalogue](deviations.md) that are caught and named, and right"]
    rows += [
        "evaluations that depart, one case each. `python -m tools.judge_quality docs --closed-form` measures this.",
        "",
    ]
    rows += ["| dtype | caught | named, of those asked | named wrong | right evaluations | of these depart |"]
    rows += ["|---|---|---|---|---|---|"]
    notes = []
    for dtype, found in answers.items():
        caught, named, alarms = found["catches"], found.get("names_as", {}), found["departing"]
        words = collections.Counter(named.values())
        cells = [_share(sum(caught.values()), len(caught))]
        cells += [_share(words["the same"], len(named)) if named else "not measured", str(words["another"])]
        rows.append(f"| {dtype} | {' | '.join(cells)} | {len(alarms)} | {sum(map(bool, alarms.values()))} |")
        notes += _list(f"Not caught in {dtype}", [names for names, ok in caught.items() if not ok])
        notes += _list(f"Not named in {dtype}", [names for names, word in named.items() if word != "the same"])
    dropped = collections.Counter(answers["float64"]["dropped"].values())
    text = (
        f"Of {dropped.total()} deviations drawn at random, each was left out of the catalogue: {dropped['nothing']} "
        f"ports with one then got no name, {dropped['the same']} one that does the same, "
        f"{dropped['another']} another's."
    )
    return "\n".join([*rows, *notes, "", text]) + "\n"


_HEAD = """# How good the judge is

This page is written by `nox -s matrix`; nothing on it is typed by hand. A deviation is one of the
[catalogue](diagnosis.md); a port with it is simulated: the page with that stage overridden, evaluated in another order
and, below float64, in lower precision (`tools.simulated_port`). Tolerances: {method}.
"""


def _share(count: int, of: int) -> str:
    return f"{count} of {of} ({100 * count / of:.1f} %)"


def _scores(answers: dict[str, Any]) -> str:
    rows = [
        "## What is caught, and what is named",
        "",
        "| dtype | caught, state shown | caught in theta alone | named |",
    ]
    rows.append("|---|---|---|---|")
    notes = []
    for dtype, found in answers.items():
        caught = found["catch"]
        shares = [_share(sum(both[i] is not None for both in caught.values()), len(caught)) for i in (0, 1)]
        named = {n: ok for n, ok in found.get("names", {}).items() if len(n) == 1}
        shares.append(_share(sum(named.values()), len(named)) if named else "not measured")
        rows.append(f"| {dtype} | {' | '.join(shares)} |")
        notes += _list(f"Not caught in {dtype}", [n for n, both in caught.items() if both[0] is None])
        notes += _list(f"Not caught in theta alone in {dtype}", [n for n, both in caught.items() if both[1] is None])
        notes += _list(f"Not named in {dtype}", [n for n, ok in named.items() if not ok])
        notes += _pairs(dtype, found) if named else []
    return "\n".join(rows + notes) + "\n"


def _list(what: str, sets: list[tuple[str, ...]]) -> list[str]:
    return ["", f"{what}: {'; '.join(map(' + '.join, sets))}."] if sets else []


def _pairs(dtype: str, found: dict[str, Any]) -> list[str]:
    drawn = {pair: ok for pair, ok in found["catches"].items() if len(pair) == 2}
    cancelling = [pair for pair, ok in drawn.items() if not ok and same(pair, ())]
    pairs = {pair: ok for pair, ok in drawn.items() if pair not in cancelling}
    named = {names: ok for names, ok in found["names"].items() if len(names) == 2}
    text = (
        f"Pairs in {dtype}: {_share(sum(pairs.values()), len(pairs))} caught (those that undo each other left out: "
        f"{len(cancelling)}); of {len(named)} drawn at random, {sum(named.values())} named. Named means: what is found "
        "does the same as the port, on twenty inputs that the search does not use."
    )
    missed = _list(f"Pairs not caught in {dtype}", [pair for pair, ok in pairs.items() if not ok])
    return ["", text, *missed, *_list(f"Pairs not named in {dtype}", [pair for pair, ok in named.items() if not ok])]


def _unseen(answers: dict[str, Any]) -> str:
    """What becomes of changes that the catalogue does not have."""
    rows = [
        "## Changes that are in no list",
        "",
        "Single changes drawn from the grammar of factors, which the catalogue does not",
    ]
    rows += ["have. A name is right if it does the same as the port on twenty inputs that the search does not use.", ""]
    rows += [
        "| dtype | caught | named, of those | named right | named wrong | without a name |",
        "|---|---|---|---|---|---|",
    ]
    for dtype, found in answers.items():
        named = collections.Counter(found.get("names_as", {}).values())
        caught = [ok for names, ok in found.get("catches", {}).items() if len(names) == 1]
        if named:
            cells = (
                _share(sum(caught), len(caught)),
                named.total(),
                named["the same"],
                named["another"],
                named["nothing"],
            )
            rows.append(f"| {dtype} | {' | '.join(map(str, cells))} |")
    dropped = collections.Counter(answers["float64"].get("dropped", {}).values())
    text = (
        f"\nOf {dropped.total()} deviations drawn at random, each was left out of the catalogue: {dropped['nothing']} "
        f"ports with one then got no name, {dropped['the same']} one that does the same, "
        f"{dropped['another']} another's."
    )
    return "\n".join([*rows, text]) + "\n"


def _alarms(answers: dict[str, Any]) -> str:
    rows = ["## False alarms", "", "Right evaluations, drawn at random (none of them is one of those that make the"]
    rows += ["envelope), three cases each.", "", "| dtype | evaluations | departures |", "|---|---|---|"]
    for dtype, found in answers.items():
        alarms = list(itertools.chain.from_iterable(found["false_alarms"].values()))
        where = f" ({', '.join(sorted(set(alarms)))})" if alarms else ""
        rows.append(f"| {dtype} | {len(found['false_alarms'])} | {len(alarms)}{where} |")
    return "\n".join(rows) + "\n"


def _power(answers: dict[str, Any]) -> str:
    rows = [
        "## After how many steps",
        "",
        "The fewest steps of any case after which a deviation is caught: with the state",
    ]
    rows += [
        "shown, and from theta alone.",
        "",
        f"| deviation | {' | '.join(answers)} |",
        "|---|" + "---|" * len(answers),
    ]
    for name in (name for (name,) in answers["float64"]["catch"]):
        cells = []
        for found in answers.values():
            both = found["catch"].get((name,))
            words = ["never" if one is None else str(one.step) for one in both or ()]
            cells.append(", ".join(words) if both else "right")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _matrix(reports: dict[str, Any]) -> str:
    rows = ["## Published ports", "", f"| case | dtype | {' | '.join(reports)} |", "|---|---|" + "---|" * len(reports)]
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for name, report in reports.items():
        for r in report.results:
            cells.setdefault((r.case, r.dtype), {})[name] = r.verdict + (
                f" (step {r.step}, {r.stage})" if r.stage else ""
            )
    for (case, dtype), row in cells.items():
        rows.append(f"| {case} | {dtype} | {' | '.join(row.get(name, 'not supported') for name in reports)} |")
    for name, report in reports.items():
        if report.diagnosis:
            folded = [textwrap.fill(line, 80) for line in report.diagnosis.text.splitlines()]
            rows += ["", f"What {name} does instead:", "", "```text", *folded, "```"]
    return "\n".join(rows) + "\n"


def _path(target: str) -> str:
    """Return the target; jestimator is loaded by path, since its package does not import on today's JAX."""
    if "{jestimator}" not in target:
        return target
    folder = importlib.metadata.distribution("jestimator").locate_file("jestimator/amos.py")
    return target.replace("{jestimator}", str(folder))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    write_file(folder / "deviations.md", catalogue_page())
    every = int(sys.argv[sys.argv.index("--part") + 1]) if "--part" in sys.argv else 1
    head, mark, section = (folder / "matrix.md").read_text(encoding="utf-8").partition(CLOSED_FORM_HEAD)
    if "--closed-form" in sys.argv:
        write_file(folder / "matrix.md", head.rstrip() + "\n\n" + closed_form_section())
    elif "--paper" in sys.argv:
        write_file(folder / "matrix.md", paper_part(every) + "\n" + mark + section)
    else:
        write_file(folder / "matrix.md", matrix_page(every))
