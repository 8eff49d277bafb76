"""amos-ref info."""

import json

import amos_ref
from amos_ref.cli import main


def test_info_names_versions_and_backends(capsys):
    assert main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["amos_ref"] == amos_ref.__version__
    assert main(["info"]) == 0
    assert "  numpy " in capsys.readouterr().out
