"""What the tests of the command line share."""

import json

from amos_ref.cli import main


def output_lines(capsys):
    out, err = capsys.readouterr()
    return out.splitlines(), err.splitlines()


def run_json(capsys, *argv):
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def cells(line):
    return line.split()
