"""Which of our options a port's callable takes and where, and what of its signature is not understood."""

import functools
import inspect
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from amos_ref.conformance.algorithms import ALGORITHMS, PAPER_AMOS, Algorithm
from amos_ref.conformance.ports.failures import text_of
from amos_ref.conformance.ports.names import NAMES, Names
from amos_ref.errors import TargetError, escape

DEFAULTS = PAPER_AMOS.options

_WRITTEN = re.compile(r"(?:(\w+)\.)?(\w+)(?:\[(-?\d+)\])?")
_NONE: Any = inspect.Parameter.empty


class Place(NamedTuple):
    """Where a port takes an option: a parameter, a keyword that its `**kwargs` takes, or an entry of a tuple."""

    name: str
    index: int | None = None

    def __str__(self) -> str:
        return self.name if self.index is None else f"{self.name}[{self.index}]"

    def put(self, held: Any, value: Any) -> Any:
        """Return what this parameter is to hold: the value, or the entries that it holds with the value among them."""
        if self.index is None:
            return value
        entries = *held[: self.index], value, *held[self.index + 1 :]
        return list(entries) if isinstance(held, list) else entries


class Note(NamedTuple):
    """What a signature says that no case may show.

    Attributes
    ----------
    kind : {"default", "not understood"}
    option : str
        Our name, or the port's where it is not understood.
    port : str
        The port's default.
    page : str or None
        The page's default.
    hint : str or None
        What would say what it is.
    """

    kind: str
    option: str
    port: str
    page: str | None = None
    hint: str | None = None


def describe(notes: Iterable[Note]) -> list[str]:
    """Return notes in words, one line for each kind."""
    notes = list(notes)
    strange = [note for note in notes if note.kind == "not understood"]
    other = [f"{note.option} {note.port} (page {note.page})" for note in notes if note.kind == "default"]
    lines = [f"defaults that are not the page's: {', '.join(other)}."] if other else []
    if strange:
        named = ", ".join(f"{note.option}={note.port}" if note.port else note.option for note in strange)
        hints = " ".join(note.hint for note in strange if note.hint) or "--map OURS=NAME"
        held = " (defaults, which hold in every case)" if any(note.port for note in strange) else ""
        lines.append(f"not understood: {named}{held}; {hints} says what it is.")
    return lines


class Signature:
    """Which of our options a callable takes, and where.

    Parameters
    ----------
    target : callable
    renamed : mapping of str to str
        ``ours -> theirs``, before the known aliases; theirs is ``NAME``, ``NAME[1]`` for an entry of a tuple, or
        ``kwargs.NAME``.
    given : collection of str
        Parameters that are no options: what an adapter gives by itself.
    of_framework : mapping of str to object
        Parameters that are no options of the algorithm, and the defaults that are not worth a word; `...` is any.
    algorithm : Algorithm
    """

    algorithm: Algorithm
    names: Names
    of_leaf: tuple[str, str]
    bound: set[str]
    given: tuple[str, ...]
    of_framework: Mapping[str, Any]
    parameters: dict[str, inspect.Parameter]
    rest: str | None

    def __init__(
        self,
        target: Callable[..., Any],
        renamed: Mapping[str, str],
        given: Collection[str] = (),
        of_framework: Mapping[str, Any] = {},
        algorithm: Algorithm = PAPER_AMOS,
    ) -> None:
        self.algorithm, self.names = algorithm, NAMES[algorithm.name]
        self.of_leaf = algorithm.scale, "slot_shape"
        parameters = parameters_of(target)
        self.bound = set(target.keywords) if isinstance(target, functools.partial) else set()
        self.given, self.of_framework = tuple(given), of_framework
        self.parameters = {name: p for name, p in parameters.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        self.rest = next((name for name, p in parameters.items() if p.kind is p.VAR_KEYWORD), None)
        self.places: dict[str, Place] = {}
        for ours, written in renamed.items():
            place = self._find(ours, written, f"--map {ours}={written}")
            taken = next((other for other, there in self.places.items() if there == place), None)
            if taken is not None:
                raise TargetError(f"--map {ours}={written}: that is {taken} already")
            self.places[ours] = place
        taken = {place.name for place in self.places.values()} | set(self.given)
        for ours, names in self.names.options.items():
            found = next((place for name in names if (place := self._usual(name)) and place.name not in taken), None)
            found = None if found is not None and self._is_no_word(ours, found) else found
            if ours not in self.places and found is not None and self.names.beside.get(ours) in (None, *self.places):
                self.places[ours] = found
                taken |= {found.name} if found.index is None else set()
        self._check(signature_text(target))

    def _is_no_word(self, ours: str, place: Place) -> bool:
        """Whether an option that is a word has a number for its default, as a weight decay that is called decay."""
        words = ours in self.algorithm.words and ours != self.algorithm.scale
        return words and place.index is None and isinstance(self.parameters[place.name].default, int | float)

    def _usual(self, written: str) -> Place | None:
        """Return the place of a usual name, which may be an entry of a tuple; None if the port has none."""
        _, name, index = _WRITTEN.fullmatch(written).groups()  # type: ignore[union-attr]
        if name not in self.parameters:
            return None
        entries = self.parameters[name].default
        if index is None:
            return Place(name)
        return Place(name, int(index)) if isinstance(entries, tuple | list) and int(index) < len(entries) else None

    def _check(self, text: str) -> None:
        rate = self.algorithm.rate
        if rate not in self.places:
            example = "NAME" if self.rest is None or self.parameters.keys() - set(self.given) else f"{self.rest}.NAME"
            raise TargetError(
                f"the port takes ({text}) and has no parameter for {self.algorithm.rate_in_words} "
                f"(looked for {', '.join(self.names.options[rate])}); --map {rate}={example} names it"
            )
        known = {place.name for place in self.places.values()} | {*self.given, *self.of_framework}
        lacking = [n for n, p in self.parameters.items() if p.default is _NONE and n not in known]
        if lacking:
            raise TargetError(
                f"the port must be given {', '.join(lacking)}, and it is not known what that is: "
                f"--map OURS={lacking[0]} says so, or functools.partial(PORT, {lacking[0]}=...) gives it"
                + self._as_another(lacking)
            )

    def _as_another(self, lacking: Iterable[str]) -> str:
        """Return as which other algorithm a port with these parameters may be meant."""
        for name, names in NAMES.items():
            known = {written for several in names.options.values() for written in several}
            if name != self.algorithm.name and set(lacking) <= known:
                return f"; if the port is {ALGORITHMS[name].title}: --algorithm {name}"
        return ""

    def _find(self, ours: str, written: str, where: str) -> Place:
        """Return the place that a text names, or raise TargetError."""
        if ours not in self.names.options:
            raise TargetError(f"{where}: {ours!r} is not one of {', '.join(self.names.options)}")
        match = _WRITTEN.fullmatch(written)
        if match is None:
            raise TargetError(f"{where}: {written!r} is not of the form NAME, NAME[1] or kwargs.NAME")
        into, name, index = match.groups()
        if into not in (None, self.rest):
            raise TargetError(f"{where}: the port has no **{into}; it has {self}")
        if name in self.given or name == self.rest or (self.rest is None and name not in self.parameters):
            raise TargetError(f"{where}: the port has no parameter {name!r}; it has {self}")
        if index is None:
            return Place(name)
        entries = self.parameters[name].default if name in self.parameters else _NONE
        if not isinstance(entries, tuple | list):
            raise TargetError(f"{where}: {name} has no default with entries; without [{index}] it is given as a whole")
        if not -len(entries) <= int(index) < len(entries):
            raise TargetError(f"{where}: {name} has {len(entries)} entries, {_text(entries)}, counted from 0")
        return Place(name, int(index) % len(entries))

    def __str__(self) -> str:
        names = [n for n in self.parameters if n not in self.given] + ([f"**{self.rest}"] if self.rest else [])
        return ", ".join(names) or "none"

    @property
    def options(self) -> set[str]:
        """Our names of the options that the port has."""
        return set(self.places)

    @property
    def theirs(self) -> dict[str, str]:
        """Our option -> the parameter or keyword that holds it."""
        return {ours: place.name for ours, place in self.places.items()}

    def default(self, ours: str) -> Any:
        """Return the port's default of an option that it has, or inspect's `empty`."""
        place = self.places[ours]
        found = self.parameters[place.name].default if place.name in self.parameters else _NONE
        return found if place.index is None else found[place.index]

    def words(self) -> dict[str, tuple[str, ...]]:
        """Return which words the port knows of an option, as far as its signature says it."""
        found: dict[str, tuple[str, ...]] = {}
        for option in self.algorithm.words:
            other, word = self.names.implied.get(option, ("", ""))
            if option not in self.places and other in self.places:
                found[option] = (word,)
            elif option == self.algorithm.scale and option in self.places and self._takes_numbers_alone(option):
                found[option] = ()
        return found

    def _takes_numbers_alone(self, ours: str) -> bool:
        return self.default(ours) is not None and not isinstance(self.default(ours), str)

    def keywords(self, hyper: Mapping[str, Any]) -> dict[str, Any]:
        """Return the port's keyword arguments for these options; those that a case does not set are switched off."""
        values = {ours: self._as_taken(ours, value) for ours, value in hyper.items() if ours in self.places}
        for ours in self.places.keys() - values.keys():
            must = self.default(ours) is _NONE and self.places[ours].name in self.parameters
            if ours in self.names.off and not is_off(self.default(ours)):
                values[ours] = self.names.off[ours]
            elif must and ours not in self.of_leaf:
                values[ours] = self.algorithm.options[ours]
        keywords: dict[str, Any] = {}
        for ours, value in values.items():
            place = self.places[ours]
            held = keywords.get(place.name, self.parameters[place.name].default if place.index is not None else None)
            keywords[place.name] = place.put(held, value)
        return keywords

    def _as_taken(self, ours: str, value: Any) -> Any:
        """Return what a port is to measure as its default, if that is None."""
        measured = ours == self.algorithm.scale and isinstance(value, str) and value == self.algorithm.measured
        return None if measured and self.default(ours) is None else value

    def notes(self) -> list[Note]:
        """Return which defaults are not the page's, and what of the signature is not understood."""
        found = []
        for ours in self.places:
            theirs, page = self.default(ours), self.algorithm.options[ours]
            if self.names.off.get(ours, 0.0) is None:  # it has no default, and is chosen
                continue
            comparable = self.places[ours].name not in self.bound and _is_number(theirs, page)
            if comparable and not self._same(ours, theirs, page):
                found.append(Note("default", ours, _text(theirs), "0" if page is None else f"{page:.6g}"))
        return found + [
            Note("not understood", name, text, hint=self._guess(name)) for name, text in self._strange().items()
        ]

    def _strange(self) -> dict[str, str]:
        whole = {place.name for place in self.places.values() if place.index is None} | set(self.given)
        parts = [(place.name, place.index) for place in self.places.values()]
        found: dict[str, str] = {}
        for name, p in self.parameters.items():
            if name in whole | self.bound or self._is_usual(name, p.default):
                continue
            if any(name == other for other, _ in parts):
                left = [i for i in range(len(p.default)) if (name, i) not in parts]
                found |= {f"{name}[{i}]": _text(p.default[i]) for i in left}
            else:
                found[name] = _text(p.default)
        if self.rest is not None and self.rest not in self.of_framework and whole <= set(self.parameters):
            found[f"**{self.rest}"] = ""
        return found

    def _is_usual(self, name: str, default: Any) -> bool:
        """Whether it is a parameter of the framework, left as every optimizer of it has it."""
        usual = self.of_framework.get(name, _NONE)
        return usual is ... or (usual is not _NONE and (is_off(default) or text_of(default) == text_of(usual)))

    def _same(self, ours: str, theirs: float, page: float | None) -> bool:
        """Whether two defaults are one number, or both leave the option off."""
        if page is None or (ours in self.names.off and is_off(page)):
            return is_off(theirs) or theirs == self.names.off[ours]
        return math.isclose(theirs, page, rel_tol=1e-6)

    def _guess(self, name: str) -> str | None:
        """Return the --map that says what a parameter may be."""
        if name == f"**{self.rest}":
            return f"--map OURS={self.rest}.NAME"
        if name == "betas" and "beta" in self.names.options.keys() - self.places.keys():
            return "--map beta=betas[1]"
        ours = self.names.guesses.get(name)
        return f"--map {ours}={name}" if ours and ours not in self.places else None


class Call:
    """A callable that can be given by name what it takes by position only, and first what it takes elsewhere."""

    func: Callable[..., Any]
    given: Collection[str]
    signature: inspect.Signature

    def __init__(self, func: Callable[..., Any], given: Collection[str]) -> None:
        self.func, self.given, self.signature = func, given, inspect.signature(func)

    def __call__(self, *first: Any, **named: Any) -> Any:
        """Call it with `first` for the parameters that were `given`."""
        values = dict(zip(self.given, first, strict=False)) | named
        known = {name: values.pop(name) for name in self.signature.parameters if name in values}
        bound = inspect.BoundArguments(self.signature, known)  # type: ignore[arg-type]
        bound.apply_defaults()
        return self.func(*bound.args, **bound.kwargs | values)


def by_name(target: Callable[..., Any], signature: Signature) -> Callable[..., Any]:
    """Return the callable itself if it takes `given` first and options by name, or one that does."""
    only = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY]
    first = list(signature.parameters)[: len(signature.given)]
    usual = set(only) <= set(signature.given) and tuple(first) == signature.given
    moved = any(signature.parameters[n].kind is inspect.Parameter.KEYWORD_ONLY for n in signature.given)
    return target if usual and not moved else Call(target, signature.given)


def parameters_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Return a callable's parameters, or raise TargetError."""
    try:
        return inspect.signature(target).parameters
    except (TypeError, ValueError) as error:
        raise TargetError(f"the signature of {target!r} cannot be read: {error}") from None


def signature_text(target: Callable[..., Any]) -> str:
    """Return the parameters of a callable as they are written, without annotations."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parts = [(f"{stars.get(p.kind, '')}{p.name}", p.default) for p in parameters_of(target).values()]
    return ", ".join(name if default is _NONE else f"{name}={_text(default)}" for name, default in parts)


def is_off(value: Any) -> bool:
    """Whether a default leaves an option off."""
    return value is None or value is False or (isinstance(value, int | float) and value == 0)


def is_number(value: Any) -> bool:
    """Whether a default is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_number(theirs: Any, page: Any) -> bool:
    return (isinstance(page, float) or page is None) and is_number(theirs)


def _text(value: Any) -> str:
    try:
        return escape(text_of(repr(value))[:60])
    except Exception:  # a repr that raises
        return f"a {type(value).__name__}"
