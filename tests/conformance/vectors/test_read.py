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
@pytest.mark.parametrize("algorithm", vectors.VECTOR_ALGORITHMS)
def test_every_backend_gives_the_stored_bits(name, backend, algorithm):
    count, wrong = vectors.verify(name, backend, algorithm=algorithm)
    assert count >= 36
    assert wrong == []


def flipped(text):
    return text[:-1] + "0123456789abcdef"[int(text[-1], 16) ^ 1]


@pytest.mark.parametrize(
    ("case_id", "k", "part", "what", "message"),
    [
        ("plain/float32", 2, "post", "v", "plain/float32, step 3: v of leaf 'bias' has other bits"),
        ("plain/float32", 2, "pre", "v", "plain/float32, before step 3: v of leaf 'bias' has other bits"),
        ("long/float64", 3, "post", "v", "long/float64, step 1000: v of leaf 'x' has other bits"),
        ("nan-gradient/float16", 0, "post", "v", "nan-gradient/float16 is refused, but v of leaf 'x' was changed"),
        (
            "closed-plain/float32",
            2,
            "post",
            "theta",
            "closed-plain/float32, step 2: theta of leaf 'bias' has other bits",
        ),
        (
            "closed-long-adam/float64",
            3,
            "post",
            "v",
            "closed-long-adam/float64, step 999: v of leaf 'x' has other bits",
        ),
        (
            "closed-late/float64",
            2,
            "pre",
            "theta",
            f"closed-late/float64, before step {10**6 + 1}: theta of leaf 'x' has other bits",
        ),
        (
            "closed-inf-adam/bfloat16",
            0,
            "post",
            "m",
            "closed-inf-adam/bfloat16 is refused, but m of leaf 'x' was changed",
        ),
    ],
)
def test_one_flipped_bit_is_found(case_id, k, part, what, message):
    entry, dtype = find(case_id)
    leaf = entry["steps"][k]["leaves"]["bias" if "plain/" in case_id else "x"]
    leaf[part] = leaf[part] | {what: flipped(leaf[part][what])}
    assert vectors.verify_case(entry, dtype, "numpy") == message


def test_a_flipped_bit_of_the_plan_or_of_sigma_is_found():
    entry, dtype = find("closed-plain/float32")
    entry["steps"][3]["shrink"] = flipped(entry["steps"][3]["shrink"])
    assert vectors.verify_case(entry, dtype, "numpy") == "closed-plain/float32: shrink at step 3 has other bits"
    entry, dtype = find("closed-init/float64")
    entry["leaves"]["kernel"]["sigma"] = flipped(entry["leaves"]["kernel"]["sigma"])
    assert vectors.verify_case(entry, dtype, "numpy") == "closed-init/float64: sigma of leaf 'kernel' has other bits"


def test_a_recurrence_may_have_other_last_bits_and_no_other_digits():
    """exp and log1p are the platform's. Steps take the stored number, so that what comes of them is exact again."""
    for factor, seen in ((1 + 2.0**-51, ""), (1 + 1e-9, "shrink at step 2")):
        entry, dtype = find("closed-recurrence/float64")
        case = vectors.stored_case(entry, dtype)
        entry["steps"][2]["shrink"] = vectors.encode(factor * case.rate(entry["steps"][2]))
        assert case.verify_plan(None) == seen
        found = vectors.verify_case(entry, dtype, "numpy")
        assert found.startswith(
            "closed-recurrence/float64" + (": shrink at step 2" if seen else ", step 2: theta of leaf")
        )


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
