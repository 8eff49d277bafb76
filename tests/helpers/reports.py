"""What the tests of reports share."""

import json
import pathlib

import jsonschema
from markdown_it import MarkdownIt

import amos_ref

SCHEMA = json.loads((pathlib.Path(amos_ref.__path__[0]) / "conformance" / "report.schema.json").read_text())


def validate(report):
    """Return a report as plain values, after they were found to follow the schema."""
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return data


def cells(markdown):
    """Return the rows of all tables, each a list of texts."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    row: list[str] = []
    rows = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append(row := [])
        elif token.type == "inline" and token.children is not None:
            row.append("".join(child.content for child in token.children))
    return rows
