"""Stored vectors as plain lines, in the order in which a runner needs them: for languages without a reader of JSON.

A line is words with a blank between them, of which the first says what is to be done; docs/vectors.md has the table. A
number is the 16 hexadecimal digits of its float64 bits, whatever the dtype of the case.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from amos_ref.conformance.vectors.bits import Json, encode
from amos_ref.conformance.vectors.read import COMMAND_NAMES, cases
from amos_ref.conformance.vectors.stored import StoredCase, stored_case
from amos_ref.errors import VectorError


def as_lines(document: Json) -> str:
    """Return the cases that a port is to compute, all but those that it is to refuse, as text.

    Parameters
    ----------
    document : dict
        Of :func:`amos_ref.conformance.vectors.export.select`.

    Raises
    ------
    VectorError
        If a port is to refuse all of them.
    """
    computed = [stored_case(entry, dtype) for entry, dtype in cases(document) if "error" not in entry]
    if not computed:
        raise VectorError("a port is to refuse each of these cases, and lines are of cases that it is to compute")
    return "".join(f"{line}\n" for case in computed for line in _lines_of(case))


def _lines_of(case: StoredCase) -> Iterator[str]:
    name = COMMAND_NAMES["closed" if case.scale == "sigma" else "paper"]
    yield f"case {case.id} {name} {case.dtype.name}"
    for option, x in case.numbers().items():
        yield f"option {option} {x if isinstance(x, str) else encode(np.float64(x))}"
    for leaf, shape in case.shapes.items():
        sizes = " ".join(f"[{','.join(map(str, axes))}]" for axes in (shape, case.slots[leaf]))
        yield f"leaf {leaf} {encode(np.float64(case.scale_of(leaf)))} {sizes}"
    first = case.entry["steps"][0]["t"]
    sets = {first, first + 1} if "injected-state" in case.entry["flags"] else {first}
    for t, step, rate, grads in case.steps():
        if t in sets:
            for what, arrays in case.state(step, "pre").items():
                yield from (f"set {leaf} {what}{_numbers(a)}" for leaf, a in arrays.items())
        # exp(-2 S_t) is stored of the stored steps only.
        yield f"step {t}" + (f" {encode(np.float64(rate))}" if step or case.scale == "eta" else "")
        yield from (f"grad {leaf}{_numbers(g)}" for leaf, g in grads.items() if g is not None)
        for leaf, of in step.get("leaves", {}).items():
            for what, text in (of["tolerance"] or {}).items():
                post, near = case.array(of["post"][what], leaf, what), case.array(text, leaf, what, "tolerance")
                yield f"want {leaf} {what}{_numbers(np.stack([post.astype(np.float64), near], axis=-1))}"


def _numbers(a: Any) -> str:
    """Return the bits of each entry, with a blank before it."""
    return "".join(f" {bits:016x}" for bits in np.asarray(a, dtype=np.float64).ravel().view(np.uint64).tolist())
