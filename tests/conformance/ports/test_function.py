"""A plain function as a port."""

import numpy as np
import pytest

from amos_ref.conformance import check, table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.ports.failures import Garbage, Unsupported
from amos_ref.conformance.ports.target import as_port
from examples.ports.amos_numpy import step

CASES = {case.name: case for case in table() if case.dtype == "float64"}


def half(theta, g, state, t, learning_rate, eta, beta=0.999, extra_l2=0.0):
    """The mistake: half of extra_l2."""
    return step(theta, g, state, t, learning_rate, eta, (), beta, extra_l2=extra_l2 / 2)


def test_a_plain_function_conforms():
    report = check(step)
    assert report.ok
    assert set(report.counts()) == {"conforms", "not supported"}
    conforming = {r.case for r in report.results if r.verdict == "conforms" and r.dtype == "float64"}
    wanted = {"plain", "schedule", "none-gradient", "0-d", "slots-rows", "slots-mixed", "slots-momentum"}
    assert wanted <= conforming
    assert all("something else than ours" not in r.detail for r in report.results)


def test_a_wrong_function_departs_where_it_is_wrong():
    departing = [r for r in check(half).results if r.verdict == "departs"]
    assert {r.case for r in departing} == {"extra_l2", "aged-extra_l2", "aged-rest", "life-groups-decay"}
    assert {(r.step, r.stage) for r in departing} == {(1, "theta")}
    assert {r.dtype for r in departing} == {"float64", "float32"}


@pytest.mark.parametrize("answer", [None, np.zeros(3), (np.zeros(3),), (np.zeros(3), None)])
def test_a_function_that_returns_no_pair(answer):
    port = as_port(lambda theta, g, state, learning_rate, eta: answer)
    port.init({"x": np.ones(3)}, {"learning_rate": 0.25, "eta": {"x": 0.5}})
    with pytest.raises(Garbage, match="expected a pair of theta and a dict, the state"):
        port.step({"x": np.ones(3)})


def test_a_function_that_writes_to_its_gradient_is_told_so():
    def scribbling(theta, g, state, t, learning_rate, eta, beta=0.999):
        new = step(theta, g, state, t, learning_rate, eta, (), beta)
        g *= 2
        return new

    assert "it writes to the gradient of" in judge.judge(as_port(scribbling), CASES["plain"])[0].detail


def test_the_next_step_starts_from_what_is_put():
    """Injected far from where it stands, it goes on as the function does from there."""
    port, case = as_port(step), CASES["plain"]
    port.init(case.params, case.options | {"eta": case.eta})
    with pytest.raises(Unsupported, match="keeps no b of leaf 'kernel' that could be set"):
        port.put({"b": {"kernel": np.array(16.0)}})
    port.step(case.grads[0])
    theta = {name: a + 1 for name, a in case.params.items()}
    slots = dict.fromkeys(theta, np.array(16.0))
    port.put({"theta": theta, "v": slots, "b": slots})
    got, shown = port.step(case.grads[1]), port.state()
    for name, eta in case.eta.items():
        want, after = step(theta[name], case.grads[1][name], {"v": 16.0, "b": 16.0}, 2, 0.25, eta, (), 0.75)
        np.testing.assert_array_equal(got[name], want)
        assert {part: shown[part][name] for part in shown} == after
