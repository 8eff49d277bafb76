"""Entry points fed with bytes: each target returns, or raises an AmosError; anything else is a fault.

Bytes are read as choices and numbers, so that a fuzzer that changes bytes changes what is asked for.
"""

import contextlib
import functools
import io
import json
import pathlib
import re
import struct
import sys
import tempfile
import warnings

import numpy as np

import amos_ref
from amos_ref import expressions, interop, patterns, rules
from amos_ref.adamw import AdamW
from amos_ref.cli import csv_data, main
from amos_ref.conformance import expect
from amos_ref.conformance.algorithms import CLOSED_FORM, PAPER_AMOS
from amos_ref.conformance.ports import protocol
from amos_ref.conformance.ports.failures import Garbage
from amos_ref.conformance.vectors import read as vectors
from amos_ref.errors import AmosError
from amos_ref.storage import container

NAMES = "layer_0/attention/query/kernel", "a" * 40 + "!", "", "w"
SHAPES = (), (3,), (2, 3), (0, 2), (1, 3, 1)
NUMBERS = 0.0, 1.0, 0.5, -1.0, 1e-3, 1e308, 5e-324, float("nan"), float("inf"), 2**63, 1e155, 0.999
OPTIONS = {
    amos_ref.Amos: "learning_rate eta slot_shape beta momentum clip_value extra_l2 c_coef d_coef epsilon state_dtype",
    amos_ref.ClosedFormAmos: "alpha_0 half_life p_0 decay q sigma direction slot_shape beta1 beta2 p_t",
    AdamW: "learning_rate beta1 beta2 adam_epsilon weight_decay",
}
WORDS = "param adam sign tensor element init falling constant recurrence inverse-square sqrt(1/SHAPE[0])".split()
ARGUMENTS = """run explain schedule quadratic rosenbrock quadratic: n=3 condition=2 seed= --algorithm paper closed-form
adamw paper:eta=0.1 paper: --learning-rate --json --steps 0 1 3 -1 nan 1e999 --alpha-0 --half-life --p-0 --q --eta
--target --feature --delimiter --decimal , ; nothing.csv --step 99999999999999999999 x=y
-- = : \x1b[31m --help info""".split()
PARTS = PAPER_AMOS.parts
FORM = {
    "a": protocol.Form(np.dtype(np.float32), (2,), (), PARTS),
    "b": protocol.Form(np.dtype(np.float64), (), (), PARTS),
}


class Drawn:
    """Bytes, from which choices and numbers are taken; zeros follow the last one."""

    def __init__(self, data):
        self.data = data

    def take(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        return taken.ljust(count, b"\0")

    def choice(self, among):
        return among[self.take(1)[0] % len(among)]

    def number(self):
        at = self.take(1)[0]
        return NUMBERS[at] if at < len(NUMBERS) else struct.unpack("<d", self.take(8))[0]

    def value(self):
        kind = self.take(1)[0] % 8
        some = (None, True, -1, (1, 3), {".*": self.number()}, {"(": "tensor"}, {".*": "SHAPE"}, [self.number()])
        return [self.number, self.number, self.number, lambda: self.choice(WORDS), lambda: self.choice(some)][
            kind % 5
        ]()

    def text(self):
        return self.data.decode("utf-8", "surrogateescape")

    def array(self, shape):
        with np.errstate(all="ignore"):
            a = np.resize([self.number() for _ in range(2)], shape)
            return a.astype(self.choice(["f8", "f8", "f4", "f2", ">f8", "i8", "c16"]))


def step(data):
    """Options, init and step: the page's answer, or an error that leaves all bits."""
    drawn = Drawn(data)
    member = drawn.choice(list(OPTIONS))
    names = OPTIONS[member].split()
    options = {drawn.choice(names): drawn.value() for _ in range(drawn.take(1)[0] % 5)}
    opt = member(**({} if member is not amos_ref.ClosedFormAmos or "p_0" in options else {"half_life": 5.0}) | options)
    params, grads = (
        {name: drawn.array(shape) for name, shape in zip("ab", SHAPES[1:3], strict=True)} for _ in range(2)
    )
    state = opt.init(params)
    before = [a.tobytes() for a in (*params.values(), *grads.values())]
    try:
        updates, _ = member(**opt.options | {"backend": "numpy"}).update(grads, state, params)
        want = amos_ref.apply_updates(params, updates)
        opt.step(params, grads, state)
    except AmosError:
        assert [a.tobytes() for a in (*params.values(), *grads.values())] == before
        raise
    assert all(np.array_equal(want[name], params[name], equal_nan=True) for name in params)


def rule(data):
    """A pattern beside re, where re is known to end soon; and a rule for eta."""
    drawn = Drawn(data)
    name, shape = drawn.choice(NAMES), drawn.choice(SHAPES)
    pattern = drawn.text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(re.error, RecursionError, OverflowError):
            parsed = patterns._parse(pattern, 0)
            if patterns._ways(parsed, 8) < 10_000:
                most, patterns.MOST_WAYS = patterns.MOST_WAYS, 0
                try:
                    with contextlib.suppress(AmosError):
                        found = patterns.Matcher(name[:8]).matches(pattern)
                        assert found == bool(re.match(pattern, name[:8]))
                finally:
                    patterns.MOST_WAYS = most
        rules.eta_of({pattern: 0.5}, name, shape)


def expression(data):
    """The value of an expression is small, and a number or a tuple."""
    drawn = Drawn(data)
    value = expressions.evaluate(drawn.text(), drawn.choice(SHAPES))
    assert isinstance(value, int | float | tuple)
    assert len(repr(value)) < 10_000


def state(data):
    """A file of state with a right hash."""
    at = data.find(container._MARK) + len(container._MARK)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.safetensors")
        if at >= len(container._MARK):
            blank = data[:at] + container._BLANK + data[at + 64 :]
            data = data[:at] + container.hashlib.sha256(blank).hexdigest().encode() + data[at + 64 :]
        path.write_bytes(data)
        like = {"w": np.zeros((2, 3))}
        with contextlib.suppress(AmosError):
            amos_ref.load_state(path)
        amos_ref.load(path, like)


def csv(data):
    """A CSV file on standard input, by one of four forms."""
    drawn = Drawn(data)
    form = csv_data.Form(*drawn.choice([(None, "."), (None, ","), ("tab", "."), (",", ",")]))
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BufferedReader(io.BytesIO(drawn.data)))
    try:
        regression = csv_data.read_regression("-", "y", form=form)
    finally:
        sys.stdin = before
    assert np.isfinite(regression.mean).all()


def message(data):
    """What a port answers to hello and step."""
    drawn = Drawn(data)
    call = drawn.choice(["hello", "step", "put"])
    found = protocol.parse(call, drawn.data)
    if call == "hello":
        with contextlib.suppress(Garbage):
            protocol.read_hello(dict(found), CLOSED_FORM)
        protocol.read_hello(found)
    elif call == "put":
        protocol.read_done(call, found)
    else:
        protocol.read_step(found, FORM, True)


def expectations(data):
    """A list of expected departures."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.toml")
        path.write_bytes(data)
        expect.read(path)


def vector(data):
    """A file of vectors, or edits of a stored case: every case of it is verified, or the file is damaged."""
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(data) if data[:1] == b"{" else edited_vector(Drawn(data))
        for entry, dtype in vectors.cases(document):
            vectors.verify_case(entry, dtype, "numpy")


@functools.cache
def small_vectors():
    group = vectors.load("float64")["groups"][0]
    return json.dumps({"groups": [group | {"cases": [min(group["cases"], key=lambda case: len(json.dumps(case)))]}]})


def edited_vector(drawn):
    """A document with one stored case, some of whose parts are replaced."""
    document = json.loads(small_vectors())
    for _ in range(1 + drawn.take(1)[0] % 3):
        at = document
        while True:
            key = drawn.choice(list(at) if isinstance(at, dict) else range(len(at)))
            if not isinstance(at[key], dict | list) or not at[key] or drawn.take(1)[0] < 40:
                break
            at = at[key]
        at[key] = drawn.choice([None, -1, 3, 1.5, "", "error", "00" * 8, [], {}, [1], {"t": 1}, True, "float32"])
    return document


def arguments(data):
    """The command line: a status, and no traceback."""
    drawn = Drawn(data)
    argv = [drawn.choice(ARGUMENTS) for _ in range(min(len(data), 7))]
    argv += ["--steps", "2"] if argv[:1] == ["run"] else []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 2, 3)
    assert "\x1b" not in err.getvalue()


def foreign(data):
    """A state_dict of torch that is of another make."""
    drawn = Drawn(data)
    params = {"a": np.zeros(3), "b": np.zeros((2, 3))}
    keys = "step exp_avg_sq b decay param_groups state params 0 1".split()

    def tree(depth):
        kind = drawn.take(1)[0] % (6 if depth else 3)
        if kind < 3:
            return (drawn.value, lambda: drawn.array((3,)), lambda: drawn.choice([0, 1, "a", b""]))[kind]()
        some = [tree(depth - 1) for _ in range(drawn.take(1)[0] % 4)]
        return some if kind == 3 else {drawn.choice([*keys, 0, 1]): entry for entry in some}

    interop.from_torch({"state": tree(3), "param_groups": [{"params": [0, 1]}]} | {"x": tree(1)}, ["a", "b"], params)


TARGETS = {
    f.__name__: f
    for f in (step, rule, expression, state, csv, message, expectations, vector, arguments, foreign)
}  # fmt: skip


def feed(name, data):
    """Give bytes to a target; an AmosError of one line is as good as an answer."""
    with np.errstate(all="ignore"):
        error = None
        try:
            TARGETS[name](data)
        except AmosError as refusal:
            error = refusal
        assert str(error).isprintable()
