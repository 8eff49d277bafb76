"""The life of a transformation of optax, NaN and counts: a right one conforms, and each wrong one is named."""

import pytest

from amos_ref.conformance import table
from amos_ref.conformance.diagnosis.lives import diagnose
from amos_ref.conformance.extremes import is_extreme
from amos_ref.conformance.judging.judge import run
from amos_ref.conformance.life import is_life
from amos_ref.conformance.ports.target import load_port

optax = pytest.importorskip("optax")
optax_amos = pytest.importorskip("helpers.optax_amos")

# JAX warns of its own affairs while it is imported and used.
pytestmark = pytest.mark.filterwarnings("default")

FEW = [case for case in table() if case.dtype == "float64"]
FEW = [case for case in FEW if is_life(case) or is_extreme(case) or case.name in ("plain", "schedule", "clip")]
OF_TORCH = {"foreach", "fused", "capturable", "differentiable", "maximize", "closure", "zero_grad", "lr-tensor"}
#: What a compiled or wrapped transformation undergoes.
WAYS = {"jit", "donate", "masked", "groups", "inject_hyperparams", "multi-steps", "pickle", "deepcopy", "state_dict"}


def judged(port, cases):
    results, seen = run(load_port(port, {}), cases)
    return {r.case: r for r in results}, seen


def test_a_right_one_conforms_throughout_its_life():
    found, _ = judged(optax_amos.amos, FEW)
    assert {r.verdict for r in found.values()} == {"conforms", "not supported"}
    conforming = {name.removeprefix("life-") for name, r in found.items() if r.verdict == "conforms"}
    assert (
        WAYS | {"two-at-once", "other-order", "equal-shapes", "nan", "nan-v", "count-2^24", "count-2^31"} <= conforming
    )
    assert not OF_TORCH & conforming


@pytest.mark.parametrize("port", optax_amos.WRONG, ids=lambda port: port.__name__)
def test_a_wrong_one_is_caught_and_named(port):
    lives = port is optax_amos.counting_in_python
    found, seen = judged(port, [case for case in FEW if case.name == "plain" or is_life(case) == lives])
    assert any(r.failed for r in found.values())
    said = diagnose(load_port(port, {}), seen)
    assert said is not None
    assert said.deviations == optax_amos.WRONG[port]


def test_what_a_way_makes_of_an_error_is_no_wrong_number():
    """A transformation that looks into its tree as a dict does not know optax.MaskedNode; it says so itself."""

    def of_dicts(learning_rate, eta_fn, beta=0.999):
        inner = optax_amos.amos(learning_rate, eta_fn, beta)
        init = lambda params: inner.init({name: p.astype(p.dtype) for name, p in params.items()})  # noqa: E731
        return optax.GradientTransformation(init, inner.update)

    case = next(case for case in FEW if case.name == "life-masked")
    (result,), _ = run(load_port(of_dicts, {}), [case])
    assert result.verdict == "not supported"
    assert "the port cannot be used with masked: AttributeError" in result.detail
