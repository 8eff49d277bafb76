"""A user's day in a folder: steps, saving, loading and the commands. Run as a program: journey.py FOLDER.

It prints, as JSON in ASCII, what must be the same everywhere: digests of states, exit statuses, and what is printed.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import sys

import numpy as np

import amos_ref
from amos_ref.cli import main

STEP = pathlib.Path(__file__).parent.parent.parent / "examples" / "ports" / "amos_numpy.py"
NAMES = "mein pört.py", "falsch ö.py", "häuser Í.csv", "erwartet é.toml", "bericht ö.md", "bericht ö.xml", "bild ö.png"
EXPECTED = '[[departure]]\r\ncase = "plain"\r\nverdict = "departs"\r\nreason = "heiße Luft"\r\n'


def name(text):
    """The name that has these bytes in UTF-8, whatever the encoding of names is here."""
    return os.fsdecode(text.encode())


def states(folder):
    for backend in ("numpy", "cpu"):
        for opt in (
            amos_ref.Amos(slot_shape="(1,)", momentum=0.9, backend=backend),
            amos_ref.ClosedFormAmos(alpha_0=0.01, half_life=10, backend=backend),
        ):
            params = {"größe": np.linspace(-1, 1, 24).reshape(4, 6).astype("f4"), "b": np.ones(3)}
            state, path = opt.init(params), folder / name(f"zustand ü {backend}")
            for _ in range(2):
                for _ in range(3):
                    state = opt.step(params, {key: a * 0.5 for key, a in params.items()}, state)
                amos_ref.save(path, params, state, opt)  # the second time over a file that was just read
                params, state, opt = amos_ref.load(path, params)
            yield f"{type(opt).__name__} {backend}", hashlib.sha256(path.read_bytes()).hexdigest()


def commands(folder):
    """Yield the commands' arguments."""
    port, wrong, houses, expected, markdown, junit, picture = map(name, NAMES)
    step = STEP.read_bytes().replace(b"\r", b"").replace(b"\n", b"\r\n")
    contents = {
        port: "# übt\r\n".encode() + step,
        wrong: step.replace(b"return ", b"return 0 * "),
        "modul.py": step,
        houses: "größe,preis\r\n1,2\r\n3,4.5\r\n5,5\r\n".encode(),
        expected: EXPECTED.encode(),
    }
    for path, content in contents.items():
        (folder / path).write_bytes(content)
    os.chdir(folder)
    yield ["explain"]
    yield ["schedule"]
    yield ["run", "quadratic", "--steps", "20", "--plot", picture]
    yield ["run", houses, "--target", "preis", "--steps", "20"]
    yield ["check", f"{port}:step", "--quick", "--markdown", markdown, "--junit-xml", junit]
    yield ["check", f"{port}:step", "--quick", "--expect", expected]
    yield ["check", f"{wrong}:step", "--quick"]
    yield ["check", "modul:step", "--quick"]
    yield ["check", "fehlt.py:step"]


def journey(folder):
    """Return {what was done: what came of it}."""
    found = dict(states(folder))
    for argv in commands(folder):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = main(argv)
        text = " ".join([*argv, "->", out.getvalue()])
        for known in NAMES:
            for shown in (name(known), name(known).encode("ascii", "backslashreplace").decode()):
                text = text.replace(shown, known)
        found[f"{len(found)} {argv[0]}"] = status, text
    reports = [folder / name(text) for text in NAMES if "bericht" in text]
    return found | {"reports": [bool(path.read_bytes().decode("utf-8")) for path in reports]}


if __name__ == "__main__":
    print(json.dumps(journey(pathlib.Path(sys.argv[1]))))
