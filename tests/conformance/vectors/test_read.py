"""Stored vectors are read to the bit, every backend computes them, and one wrong bit is found."""

import importlib.resources

import numpy as np
import pytest
from helpers.stored_vectors import find

from amos_ref.conformance.vectors import read as vectors
from amos_ref.errors import VectorError

F64 = np.dtype(np.float64)


@pytest.mark.parametrize("name", vectors.VECTOR_DTYPES)
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_every_backend_gives_the_stored_bits(name, backend):
    count, wrong = vectors.verify(name, backend)
    assert count >= 36
    assert wrong == []


def flipped(text):
    return text[:-1] + "0123456789abcdef"[int(text[-1], 16) ^ 1]


@pytest.mark.parametrize(
    ("case_id", "k", "part", "message"),
    [
        ("plain/float32", 2, "post", "plain/float32, step 3: v of leaf 'bias' has other bits"),
        ("plain/float32", 2, "pre", "plain/float32, before step 3: v of leaf 'bias' has other bits"),
        ("long/float64", 3, "post", "long/float64, step 1000: v of leaf 'x' has other bits"),
        ("nan-gradient/float16", 0, "post", "nan-gradient/float16 is refused, but v of leaf 'x' was changed"),
    ],
)
def test_one_flipped_bit_is_found(case_id, k, part, message):
    entry, dtype = find(case_id)
    leaf = entry["steps"][k]["leaves"]["bias" if "plain" in case_id else "x"]
    leaf[part] = leaf[part] | {"v": flipped(leaf[part]["v"])}
    assert vectors.verify_case(entry, dtype, "numpy") == message


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_a_refusal_that_does_not_come_or_is_another_one_is_found(backend):
    entry, dtype = find("inf-gradient/float32")
    assert vectors.verify_case(entry | {"error": "range"}, dtype, backend).startswith(
        "inf-gradient/float32 is refused with NonFiniteError, which is not of the kind range: "
    )
    entry["options"]["clip_value"] = vectors.encode(2.0)
    message = "inf-gradient/float32 is computed; it must be refused: non-finite"
    assert vectors.verify_case(entry, dtype, backend) == message


@pytest.mark.parametrize("name", vectors.VECTOR_DTYPES)
def test_bits_survive_writing_and_reading(name):
    dtype = vectors.dtype_of(name)
    a = np.array([[0.0, -0.0, 1.5], [np.inf, np.nan, -(2.0**-14)]]).astype(dtype)
    text = vectors.encode(a)
    assert len(text) == a.size * dtype.itemsize * 2
    assert vectors.decode(text, dtype, a.shape).tobytes() == a.tobytes()
    assert vectors.encode(np.float64(1.0)) == "3ff0000000000000"


@pytest.mark.parametrize("text", ["zz", "3ff", "3ff00000000000003ff0000000000000"])
def test_damaged_bits_are_named(text):
    with pytest.raises(VectorError, match=r"is not the bits of \(\) float64"):
        vectors.decode(text, F64, ())


def test_damaged_files_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(VectorError, match="vectors of float64: "):
        vectors.load("float64")
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "paper-float64.json"
    for content, text in (
        ("{", "vectors of float64: "),
        ("[]", "not of the format"),
        ('{"format": "amos-ref-vectors-1"}', "not of the format"),
    ):
        path.write_text(content)
        with pytest.raises(VectorError, match=text):
            vectors.load("float64")


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({}, "the document is not of the format: KeyError: 'groups'"),
        ({"groups": [{"dtype": ",", "cases": [{}]}]}, "there are no vectors of dtype ','"),
        ({"groups": [{"dtype": "float32", "cases": [{"id": "x"}]}]}, "a case is not of the format: KeyError: 'leaves'"),
        (
            {
                "groups": [
                    {"dtype": "float32", "cases": [dict(id="x", leaves={}, steps=[dict(leaves={})], error="escape")]}
                ]
            },
            "there is no kind of error 'escape'",
        ),
    ],
)
def test_what_is_not_of_the_format_is_named(document, text):
    with pytest.raises(VectorError, match=f"^{text}$"):
        [vectors.verify_case(entry, dtype, "numpy") for entry, dtype in vectors.cases(document)]
