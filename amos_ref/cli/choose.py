"""The command ``amos-ref choose``: eta and slot shape of every leaf of a model, from a file."""

import argparse
import json
from typing import Any

from amos_ref.choosing import AXIS_ORDERS, MODEL_FAMILIES
from amos_ref.cli.status import DEPARTS, OK
from amos_ref.errors import HyperParameterError, escape
from amos_ref.terminal import print_table


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
    choose.add_argument("--json", action="store_true", help="print the choice as JSON")
    choose.set_defaults(run=main)


def main(args: argparse.Namespace) -> int:
    """Print the choice for the leaves of a file."""
    import amos_ref
    from amos_ref.choosing.choice import TABLE_COLUMNS
    from amos_ref.choosing.files import read_file

    overrides = dict(_split(text) for text in args.override)
    choice = amos_ref.choose(read_file(args.file), family=args.family, layout=args.layout, overrides=overrides or None)
    if args.json:
        print(json.dumps(choice.to_dict(), indent=1))
    else:
        print("\n".join(map(escape, choice.summary())))
        print()
        print_table(TABLE_COLUMNS, choice.rows(), left=[name for name in TABLE_COLUMNS if name != "eta"])
    return DEPARTS if choice.named("unknown") else OK


def _split(text: str) -> tuple[str, Any]:
    name, equals, eta = text.rpartition("=")
    if not equals:
        raise HyperParameterError(f"--override is {text!r}; it must be NAME=ETA")
    try:
        return name, float(eta)
    except ValueError:
        return name, eta
