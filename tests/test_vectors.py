"""The stored vectors are what the page computes, to the byte, and exact arithmetic agrees with every step."""

import copy
import importlib.resources
import itertools
from fractions import Fraction

import naive
import numpy as np
import pytest

from amos_ref import spec
from amos_ref.conformance import vectors
from amos_ref.conformance.tolerance import Bound
from amos_ref.errors import VectorError
from amos_ref.leaf import Leaf, Rates

F64 = np.dtype(np.float64)
DEFAULTS = {"momentum": None, "clip_value": None, "extra_l2": 0.0, "c_coef": 0.25, "d_coef": 0.25, "epsilon": 2.0**-125}


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_the_files_are_what_the_tool_writes(name):
    stored = importlib.resources.files("amos_ref.conformance") / "vectors" / f"paper-{name}.json"
    assert vectors.text_of(name) == stored.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", vectors.DTYPES)
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_every_backend_gives_the_stored_bits(name, backend):
    count, wrong = vectors.verify(name, backend)
    assert count >= 27
    assert wrong == []


def fractions(a):
    return {i: Fraction(float(a[i])) for i in itertools.product(*map(range, a.shape))}


def leaves_before_each_step(entry):
    """Yield (t, leaf before the step, rates, what is stored after it), from the bits alone."""
    options = DEFAULTS | {name: float(vectors.decode(text, F64, ())) for name, text in entry["options"].items()}
    for name, head in entry["leaves"].items():
        shape, slot = tuple(head["shape"]), tuple(head["slot_shape"])
        eta = float(vectors.decode(head["eta"], F64, ()))
        shapes = {"theta": shape, "v": slot, "b": slot} | ({"m": shape} if options["momentum"] else {})
        now = {part: np.zeros(s) for part, s in shapes.items()} | {"theta": vectors.decode(head["theta"], F64, shape)}
        for t, step in enumerate(entry["steps"], 1):
            after = {part: vectors.decode(step[part][name], F64, s) for part, s in shapes.items()}
            if step["grad"][name] is not None:
                g = vectors.decode(step["grad"][name], F64, shape)
                xi = float(vectors.decode(step["learning_rate"], F64, ()))
                shared = {key: options[key] for key in Rates._fields[2:]}
                leaf = Leaf(name, now["theta"], g, now["v"], now["b"], now.get("m"), eta)
                yield t, leaf, Rates(spec.one_minus_power(options["beta"], t), xi, **shared), after
            now = after


@pytest.mark.parametrize("entry", vectors.load("float64")["cases"], ids=lambda entry: entry["id"])
def test_exact_arithmetic_agrees_with_every_stored_step(entry):
    """Each step by itself from its stored pre-state, within the rounding bound of one step (tolerance.py)."""
    for t, leaf, rates, stored in leaves_before_each_step(entry):
        hyper = {k: None if x is None else Fraction(x) for k, x in rates._asdict().items() if k != "q"}
        m = None if leaf.m is None else fractions(leaf.m)
        given = (fractions(a) for a in (leaf.theta, leaf.g, leaf.v, leaf.b))
        exact = naive.step(*given, m, leaf.theta.shape, leaf.v.shape, t, eta=Fraction(leaf.eta), **hyper)
        bound = Bound(leaf, "float64")
        after = spec.step(*leaf[1:6], eta=leaf.eta, **rates._asdict())
        bound.advance(leaf, rates, t, after)
        for part, a in stored.items():
            allowed = bound.allowed(part)
            for i, x in fractions(a).items():
                assert abs(x - exact[part][i]) <= Fraction(float(allowed[i])), f"{part}{list(i)} at step {t}"


@pytest.mark.parametrize("name", vectors.DTYPES)
def test_bits_survive_writing_and_reading(name):
    dtype = vectors.dtype_of(name)
    a = np.array([[0.0, -0.0, 1.5], [np.inf, np.nan, -(2.0**-14)]]).astype(dtype)
    text = vectors.encode(a)
    assert len(text) == a.size * dtype.itemsize * 2
    assert vectors.decode(text, dtype, a.shape).tobytes() == a.tobytes()
    assert vectors.encode(np.float64(1.0)) == "3ff0000000000000"


def test_one_flipped_bit_is_found():
    entry = copy.deepcopy(vectors.load("float32")["cases"][0])
    text = entry["steps"][3]["v"]["bias"]
    entry["steps"][3]["v"]["bias"] = text[:-1] + "0123456789abcdef"[int(text[-1], 16) ^ 1]
    assert (
        vectors.verify_case(entry, np.dtype(np.float32), "numpy")
        == "plain/float32, step 4: v of leaf 'bias' has other bits"
    )


@pytest.mark.parametrize("text", ["zz", "3ff", "3ff00000000000003ff0000000000000"])
def test_damaged_bits_are_named(text):
    with pytest.raises(VectorError, match=r"is not the bits of \(\) float64"):
        vectors.decode(text, F64, ())


def test_damaged_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(VectorError, match="vectors of float64: "):
        vectors.load("float64")
    (tmp_path / "vectors").mkdir()
    path = tmp_path / "vectors" / "paper-float64.json"
    for content, text in (
        ("{", "vectors of float64: "),
        ("[]", "not of the format"),
        ('{"format": "x"}', "not of the format"),
    ):
        path.write_text(content)
        with pytest.raises(VectorError, match=text):
            vectors.load("float64")


def test_bfloat16_without_ml_dtypes_is_a_named_error(monkeypatch):
    import sys

    from amos_ref.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'amos_ref\[bf16\]'"):
        vectors.dtype_of("bfloat16")
