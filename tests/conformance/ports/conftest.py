"""Programs that speak the protocol: the examples, and one that a test writes."""

import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

from amos_ref.conformance import CommandPort

PORTS = ROOT / "examples" / "ports"


@pytest.fixture(scope="session")
def in_c(tmp_path_factory):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler (cc)")
    program = tmp_path_factory.mktemp("c") / "amos"
    flags = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", program, PORTS / "amos.c", "-lm"], check=True, timeout=120)
    return [str(program)]


@pytest.fixture(scope="session")
def in_javascript():
    if shutil.which("node") is None:
        pytest.skip("there is no node")
    return ["node", str(PORTS / "amos.mjs")]


@pytest.fixture(params=["in_c", "in_javascript"])
def example(request):
    return request.getfixturevalue(request.param)


CHILD = """
import json, os, signal, sys, time

def say(**answer):
    print(json.dumps(answer), flush=True)

OPTIONS = ["learning_rate", "eta", "beta", "c_coef", "d_coef"]
FLAGS = dict(dtypes=["float64", "float32"], null_gradients=False, state=False, put=False)
t = 0
for line in sys.stdin:
    message = json.loads(line)
    call = message["call"]
    if call == "hello":
        hello = dict(protocol="amos-ref-port-1", name="child", options=OPTIONS) | FLAGS
        HELLO
    elif call == "init":
        theta, t = {k: leaf["theta"] for k, leaf in message["leaves"].items()}, 0
        INIT
    elif call == "step":
        t += 1
        STEP
    elif call == "bye":
        BYE
"""


@pytest.fixture
def child(tmp_path):
    """Return a function that makes a port of a child that answers as told, and closes it in the end."""
    made = []

    def make(step="say(theta=theta)", init="say(ok=True)", hello="say(**hello)", bye="break", timeout=5.0, **options):
        path = tmp_path / f"child{len(made)}.py"
        text = CHILD
        for place, code in (("HELLO", hello), ("INIT", init), ("STEP", step), ("BYE", bye)):
            text = text.replace(f"        {place}\n", f"        {code}\n")
        path.write_text(text)
        port = CommandPort([sys.executable, str(path)], timeout=timeout, **options)
        made.append(port)
        return port

    yield make
    for port in made:
        port.close()
