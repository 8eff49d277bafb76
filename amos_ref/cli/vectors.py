"""The command ``amos-ref vectors``: write the stored vectors again, list or export them."""

import argparse
import pathlib
import sys
import tempfile
from typing import Any

from amos_ref.cli.status import OK
from amos_ref.errors import TargetError


def add_to(commands: Any, summary: str) -> None:
    """Add the command to argparse's subparsers; the summary is its line in the list of commands."""
    vectors = commands.add_parser("vectors", help=summary)
    actions = vectors.add_subparsers(required=True, metavar="ACTION")
    generate = actions.add_parser("generate", help="write the stored vectors again (needs python-flint)")
    generate.add_argument("folder", type=pathlib.Path, help="an existing folder")
    generate.set_defaults(run=_generate)
    export = actions.add_parser("export", help="write stored vectors of all dtypes to one file")
    export.add_argument("--format", required=True, choices=["json", "lines", "zip", "npz", "safetensors"])
    listing = actions.add_parser("list", help="show ids, flags and purpose of the stored cases, one a line")
    for action in (export, listing):
        action.add_argument("--algorithm", choices=["paper", "closed-form"], help="whose vectors (default: of both)")
        action.add_argument("--case", metavar="ID", help="one case, e.g. plain/float32")
        action.add_argument("--flag", metavar="FLAG", help="the cases with a flag, e.g. momentum")
    listing.set_defaults(run=_list)
    export.add_argument(
        "--output", default="-", metavar="PATH", help="the file to write; - (the default) is standard output"
    )
    export.set_defaults(run=_export)


def _generate(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors.write import write

    if not args.folder.is_dir():
        raise TargetError(f"there is no folder {str(args.folder)!r}")
    for path in write(args.folder):
        print(path)
    return OK


def _list(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors.export import select
    from amos_ref.conformance.vectors.read import cases

    for entry, _ in cases(select(args.case, args.flag, args.algorithm)):
        print(f"{entry['id']}: {entry['about']} [{', '.join(entry['flags'])}]")
    return OK


def _export(args: argparse.Namespace) -> int:
    from amos_ref.conformance.vectors.export import export, select

    document = select(args.case, args.flag, args.algorithm)
    if args.output != "-":
        export(document, args.format, pathlib.Path(args.output))
        print(args.output)
        return OK
    if args.format not in ("json", "lines") and sys.stdout.isatty():
        raise TargetError(
            f"standard output is a terminal, which cannot show {args.format}: --output says where to write"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "vectors")
        export(document, args.format, path)
        sys.stdout.buffer.write(path.read_bytes())
    return OK
