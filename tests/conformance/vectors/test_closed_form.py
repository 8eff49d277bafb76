"""The closed form's numbers in the files: the page's beside the oracle's, within the counted roundings."""

import collections

import numpy as np
import pytest
from helpers.stored_vectors import CLOSED_CASES, CLOSED_COMPUTED

from amos_ref import closed_form, exact
from amos_ref.conformance.vectors import read as vectors
from tools import closed_exactness


def given_steps():
    """Yield what the oracle and the page need for each stored step of each leaf, the case, the step and the leaf."""
    for entry, dtype in CLOSED_COMPUTED:
        case = vectors.stored_case(entry, dtype)
        options = {name: x for name, x in case.numbers().items() if name != "sigma"}
        for step in entry["steps"]:
            before = case.state(step, "pre")
            for name, leaf in step["leaves"].items():
                if leaf["g"] is not None:
                    arrays = {what: held[name] for what, held in before.items()} | {
                        "g": case.array(leaf["g"], name, "g")
                    }
                    full = options | dict(t=step["t"], sigma=case.scale_of(name))
                    yield (
                        closed_exactness.ClosedStep(arrays, case.slots[name], full, dtype.name),
                        case,
                        step,
                        name,
                        leaf,
                    )


def test_page_and_oracle_agree_within_the_counted_roundings():
    """real is itself half an ulp off at most; what is below the normal numbers may be a few subnormal units off."""
    seen = collections.Counter()
    for given, case, step, name, leaf in given_steps():
        got = closed_exactness.run_page(given)
        for quantity, bound in closed_exactness.bound_errors(given, got)[1].items():
            text = step["real"]["shrink"] if quantity == "shrink" else leaf["real"][quantity]
            real = vectors.number(text) if quantity == "shrink" else case.array(text, name, quantity, "real")
            close = abs(got[quantity] - real) <= bound + abs(np.spacing(real)) / 2
            assert np.all(close), f"{case.id}, step {step['t']}: {quantity} of {name}"
            seen[quantity] += np.size(real)
    assert set(seen) == {"shrink", "m", "v", "u", "u2", "alpha", "rho", "delta", "theta"}
    assert sum(seen.values()) > 30_000


def test_stored_parameters_are_the_oracles_correctly_rounded():
    """The stored numbers of a recurrence were computed with the real exp(-2 S_t), correctly rounded."""
    right = collections.Counter()
    for given, case, _, name, leaf in given_steps():
        theta = case.array(leaf["post"]["theta"], name, "theta")
        step = exact.closed_form.step(**given.arrays, slot_shape=given.slot, dtype=given.dtype, **given.options)
        right[given.dtype, "all"] += theta.size
        right[given.dtype, "equal"] += int(np.sum(theta == step["theta"]))
    for name in ("float32", "float16", "bfloat16"):
        assert right[name, "equal"] == right[name, "all"] > 1000


def test_sigma_is_the_oracles_within_its_roundings():
    """n squares, a sum in the page's order, a division and a root, which halves what was before it."""
    kinds = set()
    for entry, dtype in CLOSED_CASES:
        case = vectors.stored_case(entry, dtype)
        for name, leaf in entry["leaves"].items() if "error" not in entry else ():
            assert ("measured" in leaf) == (entry["options"].get("sigma") == "init")
            if "measured" in leaf:
                sigma, real = case.scale_of(name), vectors.number(leaf["measured"])
                n = max(int(np.prod(case.shapes[name])), 1)
                assert abs(sigma - real) <= ((min(n - 1, 71) + 2) / 2 + 1.5) * 2.0**-53 * real
                kinds.add(name)
    assert kinds >= {"kernel", "bias", "constant", "minus", "number", "ones", "one", "two", "zeros", "x"}


@pytest.mark.parametrize(
    ("stage", "wrong", "seen"),
    [
        ("weight_decay", lambda alpha_0, q, shrink: alpha_0 * alpha_0 / 2.0 * shrink, "rho"),
        ("scale_ratio", lambda sigma, u2, epsilon: sigma / np.sqrt(np.maximum(u2, 2.0**-125)), "alpha"),
        ("shrink_inverse_square", lambda x: 1.0 / (1.0 + x), "shrink"),
    ],
)
def test_a_wrong_page_is_seen_by_the_oracle(stage, wrong, seen, monkeypatch):
    monkeypatch.setattr(closed_form, stage, wrong)
    with pytest.raises(AssertionError, match=f": {seen} of"):
        test_page_and_oracle_agree_within_the_counted_roundings()
