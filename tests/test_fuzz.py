"""Hostile input: each outcome is the page's answer or a named error with every bit kept.

Bounded here; ``nox -s fuzz -- EXAMPLES`` runs longer, with fresh seeds.
"""

import contextlib
import io
import pathlib
import tempfile
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref import expressions
from amos_ref.cli import main
from amos_ref.conformance.vectors import read as vectors
from amos_ref.errors import AmosError, ExpressionError, VectorError
from amos_ref.optimizers.amos import compute_stages
from amos_ref.optimizers.leaf import Leaf

DTYPES = [np.dtype(t) for t in ("float64", "float32", "float16", ml_dtypes.bfloat16)]
WORDS = (
    """SHAPE SHAPE[0] sqrt prod min max log exp len ( ) [ ] , : + - * / // % ** 9 0 1e308 2 . __class__ lambda import =
    ' \\ é if for in { } := ~ @ 1j True None ... not await""".split()
    + [" ", "\n", "\t", "\0"]
)


def is_one_line(error):
    return "\n" not in str(error)


# expressions


@given(st.one_of(st.lists(st.sampled_from(WORDS), max_size=40).map("".join), st.text(max_size=60)))
def test_an_expression_has_a_small_value_or_is_refused(text):
    try:
        value = expressions.evaluate(text, (30, 8, 5))
    except ExpressionError as refusal:
        value = refusal
    if isinstance(value, ExpressionError):
        assert is_one_line(value)
        return
    assert isinstance(value, int | float | tuple)
    if isinstance(value, tuple):
        assert len(value) <= expressions.MOST_ENTRIES
    elif isinstance(value, int):
        assert abs(value) <= expressions.LARGEST_INTEGER


@st.composite
def nested(draw, depth=6):
    """An expression of allowed parts that tries to grow."""
    if depth == 0:
        return draw(st.sampled_from(["9", "SHAPE[0]", "1e300", "2.5", "SHAPE", "(SHAPE)"]))
    left, right = draw(nested(depth=depth - 1)), draw(nested(depth=draw(st.integers(0, depth - 1))))
    form = draw(st.sampled_from(["({})**({})", "({})*({})", "({})+({})", "exp({})*{}", "prod(({},{}))", "({})%({})"]))
    return form.format(left, right)


@given(nested())
def test_an_expression_that_tries_to_grow_takes_little_memory(text):
    tracemalloc.start()
    try:
        with contextlib.suppress(ExpressionError):
            expressions.evaluate(text, (2**31, 8))
        # The parser's own tree of 500 characters is a few 100 kB; a number of 9**9**9 digits would be 300 MB.
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


# vectors


@given(st.text(max_size=40), st.sampled_from(DTYPES), st.sampled_from([(), (2,), (0,), (3, 1)]))
def test_bits_are_read_or_refused(text, dtype, shape):
    try:
        a = vectors.decode(text, dtype, shape)
    except VectorError as refusal:
        a = refusal
    if isinstance(a, VectorError):
        assert is_one_line(a)
    else:
        assert vectors.encode(a) == "".join(text.split()).lower()


# files of state


@given(st.data())
def test_a_file_of_state_is_read_as_it_was_written_or_refused(data):
    params = {"w": np.linspace(0.0, 1.0, 6).reshape(2, 3)}
    state = amos_ref.Amos(0.25, 0.5, momentum=0.5).init(params)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "state.safetensors")
        amos_ref.save_state(path, state)
        whole = path.read_bytes()
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, min(start + 20, len(whole))))
        changed = whole[:start] + data.draw(st.binary(max_size=20)) + whole[stop:]
        path.write_bytes(changed)
        try:
            read = amos_ref.load_state(path, like=params)
        except AmosError as refusal:
            read = refusal
    if isinstance(read, AmosError):
        assert is_one_line(read)
        assert changed != whole
    else:
        assert changed == whole
        assert held(read.v, read.b, read.m) == held(state.v, state.b, state.m)


# the step


SPECIAL = [0.0, -0.0, 1.0, -2.5, 5e-324, -1e-310, 2.0**-24, 65504.0, 3.4e38, 1e154, 1e155, -1.7e308, np.inf, -np.inf]
NANS = list(np.array([0x7FF8000000000001, 0xFFF0000000000001, 0x7FFFFFFFFFFFFFFF], np.uint64).view(np.float64))


@st.composite
def arrays(draw, shape, dtype, nasty):
    """An array of any layout: contiguous, Fortran, every other entry, reversed, offset by one entry, or broadcast."""
    pool = SPECIAL + NANS if nasty else SPECIAL[:8]
    values = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))
    with np.errstate(all="ignore"):
        a = np.resize(np.array(values), shape).astype(dtype)
    layout = draw(st.sampled_from(["C", "F", "strided", "reversed", "offset", "broadcast"]))
    if not shape or layout == "C":
        return a
    if layout == "offset":
        buffer = np.zeros(a.size * a.itemsize + 1, np.uint8)
        view = buffer[1:].view(dtype) if a.size else a
        view = view.reshape(shape)
        view[...] = a
        return view
    if layout == "broadcast":
        return np.broadcast_to(a[:1], shape) if shape[0] else a
    return {
        "F": lambda: np.asfortranarray(a),
        "strided": lambda: np.repeat(a, 2, axis=-1)[..., ::2],
        "reversed": lambda: a[..., ::-1].copy()[..., ::-1],
    }[layout]()


@st.composite
def steps(draw):
    """Optimizer, parameters, gradients and state, hostile in at most some ways."""
    nasty, state_dtype = draw(st.booleans()), draw(st.sampled_from(["float64", "param"]))
    momentum = draw(st.sampled_from([None, 0.5]))
    params, grads = {}, {}
    for name in draw(st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3)):
        shape = draw(st.sampled_from([(), (1,), (3,), (2, 3), (0, 2), (130,), (3, 1, 2)]))
        dtype = draw(st.sampled_from(DTYPES[:2] if nasty else DTYPES))
        params[name] = draw(arrays(shape, dtype, nasty))
        grads[name] = draw(st.one_of(st.none(), arrays(shape, dtype, nasty), st.just(params[name])))
    slot = draw(st.sampled_from(["tensor", "element", lambda name, shape: (*shape[:1], *[1] * (len(shape) - 1))]))
    options = dict(beta=draw(st.sampled_from([0.0, 0.75])), momentum=momentum, extra_l2=0.125, slot_shape=slot)
    options |= dict(clip_value=draw(st.sampled_from([None, 1.5])), state_dtype=state_dtype)
    return params, grads, options, draw(st.sampled_from([0.0, 0.25, 1e-3])), draw(st.sampled_from([None, 0, 7, 2**40]))


def held(*trees):
    return [a.tobytes() for t in trees for a in t.values() if a is not None]


def same(got, want):
    """Equal bits, but for the payload and sign of a NaN, which IEEE leaves open."""
    got, want = np.asarray(got), np.asarray(want)
    nan = np.isnan(want.astype(np.float64))
    equal = (got.astype(np.float64) == want.astype(np.float64)) | (nan & np.isnan(got.astype(np.float64)))
    signs = np.signbit(got.astype(np.float64)) == np.signbit(want.astype(np.float64))
    return got.dtype == want.dtype and got.shape == want.shape and bool((equal & (signs | nan)).all())


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@given(steps())
def test_a_step_is_the_pages_answer_or_a_named_error_with_all_bits_kept(backend, drawn):
    params, grads, options, xi, count = drawn
    opt = amos_ref.Amos(xi, 0.5, backend=backend, **options)
    try:
        state = opt.init(params)
    except AmosError:
        zero = {name: np.zeros(a.shape) for name, a in params.items()}
        state = opt.init({name: a.astype(params[name].dtype) for name, a in zero.items()})
    state = state if count is None else state._replace(count=count)
    before = held(params, grads, state.v, state.b, state.m or {})
    wanted = expected(opt, params, grads, state)
    try:
        new = opt.step(params, grads, state)
    except AmosError as refusal:
        new = refusal
    if isinstance(new, AmosError):
        assert is_one_line(new)
        assert held(params, grads, state.v, state.b, state.m or {}) == before
        return
    assert wanted is not None
    for name, (theta, v, b, m) in wanted.items():
        assert same(params[name], theta)
        assert same(new.v[name], v)
        assert same(new.b[name], b)
        assert m is None or same(new.m[name], m)


def expected(opt, params, grads, state):
    """The page's answer, leaf by leaf; None if it refuses."""
    try:
        updates, new = opt.update(grads, state, params)
        thetas = amos_ref.apply_updates(params, updates)
    except AmosError:
        return None
    return {name: (thetas[name], new.v[name], new.b[name], None if new.m is None else new.m[name]) for name in params}


def test_the_comparison_can_fail():
    assert not same(np.array([0.0]), np.array([-0.0]))
    assert not same(np.array([1.0]), np.array([np.nextafter(1.0, 2.0)]))
    assert same(np.array(NANS[:1]), np.array(NANS[1:2]))


# the command line

ARGUMENTS = (
    """check explain info vectors generate --json --quick --eta --map --step x=y 0 -1 99999999999999999999 nonsense
    a:b : /dev/null:x /:x .py:x -- é""".split()
    + ["", "\udcff"]
)


@given(st.lists(st.sampled_from(ARGUMENTS), max_size=4).filter(lambda argv: argv[:1] != ["check"] or len(argv) > 1))
def test_the_command_line_never_ends_in_a_traceback(argv):
    if argv[:1] == ["check"] and set(argv[1:]) <= {"--json", "--"}:
        return  # a whole check of this installation is tested elsewhere
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 1, 2, 3)
    assert (status == 0) == (err.getvalue() == "")
    assert "Traceback" not in err.getvalue()


def test_binary_huge_and_unreadable_targets(tmp_path, capsys):
    binary, empty = tmp_path / "binary.py", tmp_path / "empty.py"
    binary.write_bytes(bytes(range(256)))
    empty.write_bytes(b"")
    for target in (f"{binary}:x", f"{empty}:x", f"{tmp_path}:x", f"{tmp_path}.py:x", "x" * 100_000 + ":x"):
        assert main(["check", target]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("amos-ref: ")
        assert err.count("\n") == 1


def test_the_page_refuses_what_the_stepper_refuses():
    """`computed` is the one place where a gradient is refused; with it silenced, NaN would reach the parameters."""
    leaf = Leaf("w", np.ones(3), np.array([1.0, np.nan, 2.0]), np.zeros(()), np.zeros(()), None, 0.5)
    rates = amos_ref.Amos(0.25)._rates(1)
    with pytest.raises(AmosError, match=r"gradient of leaf 'w'\[1\] is nan"):
        compute_stages(leaf, rates)
