"""What choose returns: for every leaf eta, slot shape, and where they come from."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from amos_ref.choosing.model import pattern_of
from amos_ref.dtypes import Shape
from amos_ref.errors import RuleError, escape
from amos_ref.rules import LeafRule, LeafRules

#: Where an entry comes from, in the order in which tables have them, the least certain first.
SOURCES = {
    "unknown": "an error when it is used",
    "guess": "look at these first",
    "analogy": "the authors' models have no such leaf; it follows from one that they have",
    "given": "from overrides",
    "recipe": "what the authors' models have",
    "buffer": "not trained",
}
TABLE_COLUMNS = ("leaf", "shape", "eta", "slot shape", "rule", "from", "why")


class Entry(NamedTuple):
    """What is chosen for one leaf.

    Attributes
    ----------
    shape : tuple of int
    rule : str
        What the leaf was taken for: "bias", "norm", "embedding", "linear", "second layer", "convolution", ...
    eta : float or None
        None of a leaf that is unknown, or not trained.
    slot_shape : tuple of int or None
    why : str
    source : str
        "recipe", "analogy", "guess", "unknown", "given" or "buffer".
    """

    shape: Shape
    rule: str
    eta: float | None
    slot_shape: Shape | None
    why: str
    source: str

    def rule_for(self, kind: str, name: str, shape: Shape) -> Any:
        """Return eta or the slot shape of a leaf; raise RuleError if the entry is for another shape, or unknown."""
        if kind not in ("eta", "sigma", "slot_shape"):
            raise RuleError(f"{kind}: a choice has eta and slot shapes only; give a number, or rules by name")
        if self.shape != tuple(shape):
            raise RuleError(f"{kind} of leaf {name!r}: it was chosen for shape {self.shape}, and the leaf has {shape}")
        if self.eta is None:
            raise RuleError(f"{kind} of leaf {name!r} of shape {shape}: {_complaint(name, self)}")
        return self.slot_shape if kind == "slot_shape" else self.eta

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Entry":
        """Return an entry from a dict of its fields; raise ValueError, TypeError or KeyError for anything else."""
        eta, slot = written["eta"], written["slot_shape"]
        if eta is not None and not 0 < float(eta) < math.inf:
            raise ValueError(f"eta is {eta!r}")
        rule, why, source = (str(written[key]) for key in ("rule", "why", "source"))
        if source not in SOURCES:
            raise ValueError(f"source is {source!r}")
        slots = None if slot is None else tuple(map(int, slot))
        return cls(tuple(map(int, written["shape"])), rule, eta, slots, why, source)


LeafRule.register(Entry)


class Choice(LeafRules):
    """eta and slot shape of every leaf of a model: a mapping of names to entries that cannot be changed.

    Pass it as ``eta=`` (or ``sigma=``) and as ``slot_shape=``. Its entries are rules too, each for the leaf of its
    name: ``{**choice, "new.*": 0.5}``. Printed, it is a table; leaves that differ only in their numbers share a row,
    and what is unsure comes first.

    Attributes
    ----------
    family : str
        Whose recipe it follows where that differs from the authors' table: "t5", "lstm", ..., or "".
    """

    family: str

    def __init__(self, entries: Mapping[str, Entry], family: str = "") -> None:
        self._entries, self.family = dict(entries), family

    def __getitem__(self, name: str) -> Entry:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and (self._entries, self.family) == (other._entries, other.family)

    def __hash__(self) -> int:
        return hash((tuple(self._entries.items()), self.family))

    def rule_for(self, kind: str, name: str, shape: Shape) -> Any:
        """Return eta or the slot shape of a leaf; raise RuleError for one that it has not, or that is unknown."""
        entry = self._entries.get(name)
        if entry is None:
            raise RuleError(f"{kind}: the choice has no leaf {name!r}; choose for the parameters that are trained")
        return entry.rule_for(kind, name, shape)

    def named(self, *sources: str) -> list[str]:
        """Return the leaves whose entries come from one of these sources, such as "unknown" or "guess"."""
        return [name for name, entry in self._entries.items() if entry.source in sources]

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table: the least certain first, and one row for all leaves that differ only in their numbers."""
        groups: dict[tuple[str, Entry], list[str]] = {}
        for name, entry in self._entries.items():
            groups.setdefault((pattern_of(name), entry), []).append(name)
        order = list(SOURCES)
        ranked = sorted(groups.items(), key=lambda item: order.index(item[0][1].source))
        return [_row(pattern, names, entry) for (pattern, entry), names in ranked]

    def summary(self) -> list[str]:
        """Return lines that say what was chosen for how many leaves, and what is missing."""
        counts = {source: len(self.named(source)) for source in SOURCES}
        size = sum(math.prod(entry.shape) for entry in self._entries.values() if entry.source != "buffer")
        lines = [f"{_count(len(self), 'leaf', 'leaves')}, {_count(size, 'parameter', 'parameters')}"]
        lines[0] += f", recipe of {self.family}" if self.family else ""
        lines += [f"{source}: {counts[source]} ({words})" for source, words in SOURCES.items() if counts[source]]
        unknown = self.named("unknown")
        if unknown:
            lines.append(_complaint(unknown[0], self._entries[unknown[0]]))
        return lines

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(names)} {source}" for source in SOURCES if (names := self.named(source)))
        return f"<Choice for {_count(len(self), 'leaf', 'leaves')}: {counts}>"

    def __str__(self) -> str:
        rows = [[escape(text) for text in row] for row in (TABLE_COLUMNS, *self.rows())]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(x.ljust(n) for x, n in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*map(escape, self.summary()), "", *lines])

    def _repr_html_(self) -> str:
        def cells(row: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(escape(x))}</{tag}>" for x in row) + "</tr>"

        summary = "<br>".join(html.escape(escape(line)) for line in self.summary())
        body = "".join(cells(row, "td") for row in self.rows())
        return f"<p>{summary}</p><table><thead>{cells(TABLE_COLUMNS, 'th')}</thead><tbody>{body}</tbody></table>"

    def to_dict(self) -> dict[str, Any]:
        """Return the choice as JSON can hold it."""
        leaves = [{"name": name, **entry._asdict()} for name, entry in self._entries.items()]
        return {"family": self.family, "leaves": leaves}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Choice":
        """Return the choice that :meth:`to_dict` wrote; raise ValueError, TypeError or KeyError for anything else."""
        entries = {str(leaf["name"]): Entry.from_dict(leaf) for leaf in written["leaves"]}
        return cls(entries, str(written["family"]))


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _complaint(name: str, entry: Entry) -> str:
    if entry.source == "buffer":
        return f"it is {entry.why}; leave it out of the parameters, or add overrides={{{name!r}: eta}}"
    return f"unknown: {entry.why}; add a line to overrides, as in choose(params, overrides={{{name!r}: 0.5}})"


def _row(pattern: str, names: list[str], entry: Entry) -> tuple[str, ...]:
    leaf = names[0] if len(names) == 1 else f"{pattern} ({len(names)})"
    eta = "" if entry.eta is None else f"{entry.eta:.4g}"
    slot = "" if entry.slot_shape is None else str(entry.slot_shape)
    return leaf, str(entry.shape), eta, slot, entry.rule, entry.source, entry.why
