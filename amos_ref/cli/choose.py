"""The command ``amos-ref choose``: eta and slot shape of every leaf of a model, from a file."""

import argparse
import json
from typing import Any

from amos_ref.choosing import AXIS_ORDERS, MODEL_FAMILIES
from amos_ref.cli.status import DEPARTS, OK
from amos_ref.errors import HyperParameterError, escape
from amos_ref.terminal import counted, print_table

MOST_ROWS = 16  # of ranks that differ
MOST_EDGES = 6


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers."""
    choose = commands.add_parser(
        "choose",
        help=summary,
        description="eta and slot shape for every parameter of a model, by its names and shapes, with a reason for "
        "each. The least certain come first. Exit status: 0, or 1 if there is a parameter that is unknown.",
    )
    choose.add_argument(
        "file", metavar="FILE", help="model.safetensors or its index, checkpoint.npz, or JSON of shapes"
    )
    choose.add_argument(
        "--family", choices=MODEL_FAMILIES, metavar="NAME", help=f"what it is: {', '.join(MODEL_FAMILIES)}"
    )
    choose.add_argument("--layout", choices=AXIS_ORDERS, metavar="NAME", help=f"whose axes: {', '.join(AXIS_ORDERS)}")
    choose.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="NAME=ETA",
        help="an eta for a name, or for a regex of names; may be repeated",
    )
    choose.add_argument(
        "--ranks", type=int, metavar="R", help="also say which of so many MPI ranks has what, and sends"
    )
    choose.add_argument(
        "--balance", choices=("whole", "each"), help="cut as few leaves as can be, or every one (default whole)"
    )
    choose.add_argument("--json", action="store_true", help="print the choice as JSON")
    choose.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Print the choice for the leaves of a file."""
    import amos_ref
    from amos_ref.choosing.choice import TABLE_COLUMNS
    from amos_ref.choosing.files import read_file

    if args.balance and args.ranks is None:
        raise HyperParameterError("--balance goes with --ranks")
    overrides = dict(_split(text) for text in args.override)
    choice = amos_ref.choose(read_file(args.file), family=args.family, layout=args.layout, overrides=overrides or None)
    spread = None if args.ranks is None else Spread(choice, args.ranks, args.balance or "whole")
    if args.json:
        print(json.dumps(choice.to_dict() | ({} if spread is None else spread.to_dict()), indent=1))
    else:
        print("\n".join(map(escape, choice.summary())))
        print()
        print_table(TABLE_COLUMNS, choice.rows(), left=[name for name in TABLE_COLUMNS if name != "eta"])
        if spread is not None:
            spread.show()
    return DEPARTS if choice.named("unknown") else OK


class Spread:
    """The leaves of a choice that are trained, over the ranks of an MPI job."""

    def __init__(self, choice: Any, ranks: int, balance: str) -> None:
        import amos_ref
        from amos_ref.mpi.layout import Layout

        shapes = {name: entry.shape for name, entry in choice.items() if entry.eta is not None}
        if not shapes:
            raise HyperParameterError("--ranks: there is no leaf whose eta is known")
        self.choice = choice
        opt = amos_ref.Amos(eta=choice, slot_shape=choice)
        self.layout: Any = Layout.even(shapes, ranks, opt, balance)
        self.shares: Any = self.layout.bytes(opt, "float32")

    def to_dict(self) -> dict[str, Any]:
        """Return the layout and its bytes as JSON has them."""
        return {"layout": json.loads(self.layout.to_json()), "bytes": [share._asdict() for share in self.shares]}

    def show(self) -> None:
        """Print what ranks have and send, and how leaves are cut."""
        cut = {name: cut for name, cut in self.layout.cuts.items() if not isinstance(cut, int)}
        print()
        print(
            f"Amos over {counted(len(self.shares), 'rank')}, in bytes: float32 parameters, state in float64, "
            "and what a rank sends to all others in a step"
        )
        print_table(("rank", "parameters", "state", "payload"), self._rows())
        print()
        print(f"{len(cut)} of {counted(len(self.layout.cuts), 'leaf', 'leaves')} cut, the others whole on one rank")
        if cut:
            print_table(("leaf", "shape", "axis", "edges"), self._cuts(cut), left=("leaf", "shape", "edges"))

    def _cuts(self, cut: dict[str, Any]) -> list[tuple[str, ...]]:
        """Return a row for all leaves that are cut alike and differ only in their numbers."""
        from amos_ref.choosing.model import pattern_of

        groups: dict[tuple[str, ...], list[str]] = {}
        for name, (axis, edges) in cut.items():
            shown = str(self.choice[name].shape), str(axis), _describe_edges(edges)
            groups.setdefault((pattern_of(name), *shown), []).append(name)
        return [
            (names[0] if len(names) == 1 else f"{pattern} ({len(names)})", *shown)
            for (pattern, *shown), names in groups.items()
        ]

    def _rows(self) -> list[tuple[str, ...]]:
        """Return a row for each rank, or for neighbours that have the same; then the most, and all together."""
        groups: list[list[int]] = []
        for rank, share in enumerate(self.shares):
            if groups and self.shares[groups[-1][-1]] == share:
                groups[-1].append(rank)
            else:
                groups.append([rank])
        rows = [(f"{g[0]}-{g[-1]}" if len(g) > 1 else str(g[0]), self.shares[g[0]]) for g in groups]
        rows = [*rows[:MOST_ROWS], *([("...", None)] if len(rows) > MOST_ROWS else [])]
        columns = list(zip(*self.shares, strict=True))
        rows += [("most", tuple(map(max, columns))), ("all", tuple(map(sum, columns)))]
        return [(name, *(("",) * 3 if each is None else (f"{n:,}" for n in each))) for name, each in rows]


def _describe_edges(edges: Any) -> str:
    """Return the edges of a cut, as far as they fit a line."""
    shown = [str(edge) for edge in edges]
    return ", ".join(shown if len(shown) <= MOST_EDGES else [*shown[: MOST_EDGES - 2], "...", shown[-1]])


def _split(text: str) -> tuple[str, Any]:
    name, equals, eta = text.rpartition("=")
    if not equals:
        raise HyperParameterError(f"--override is {text!r}; it must be NAME=ETA")
    try:
        return name, float(eta)
    except ValueError:
        return name, eta
