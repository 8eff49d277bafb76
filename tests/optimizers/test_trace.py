"""A trace is the update taken apart: what every optimizer shows of one step, and what some show beside."""

import html

import numpy as np
import pytest
from helpers import strategies as own
from helpers.optimizers import make, members, parts_of
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import Amos, ClosedFormAmos, closed_form


def begin(name):
    """An optimizer, its parameters, their state after three steps, and gradients."""
    opt, params = make(name), tree_of(0)
    state = opt.init(params)
    for seed in (1, 2, 3):
        state = opt.step(params, tree_of(seed), state)
    return opt, params, state, tree_of(9)


def check_trace(name):
    opt, params, state, grads = begin(name)
    trace, (updates, after) = opt.trace(grads, state, params), opt.update(grads, state, params)
    named, new = amos_ref.tree.flatten(updates), amos_ref.tree.flatten(amos_ref.apply_updates(params, updates))
    assert trace.t == 3 + opt.first_step
    assert list(trace) == list(named)
    assert len(trace) == len(named)
    for leaf, found in trace.items():
        averaged = isinstance(opt, Amos) and opt.averages
        assert own.bits(found["m" if averaged else "delta"]) == own.bits(named[leaf])
        assert own.bits(found["theta"]) == own.bits(new[leaf])
        assert all(
            own.bits(np.asarray(found[part])) == own.bits(getattr(after, part)[leaf])
            for part in parts_of(state, constants=False)
        )
        shown = str(trace).split(f"leaf {leaf!r}:")[1].split("leaf '")[0]
        for symbol in [symbol for symbol, _ in opt.lines]:
            assert (f"  {symbol} = " in shown or symbol == "error") == (found[symbol] is not None)
        assert set(found) <= {symbol for symbol, _ in opt.lines}
    return trace, state


# All arrays are float64, so that what is stored is what the trace shows before it is rounded.
@members
def test_trace_is_the_update_taken_apart(name, monkeypatch):
    check_trace(name)
    # A trace of other numbers would be seen.
    kind = type(make(name))
    right = kind._stages
    monkeypatch.setattr(kind, "_stages", lambda *given: right(*given) | {"theta": right(*given)["theta"] + 1.0})
    with pytest.raises(AssertionError):
        check_trace(name)


def flat(rates):
    """The numbers of a step by name, those of its direction in their place."""
    for key, value in rates._asdict().items():
        yield from flat(value) if isinstance(value, tuple) else [(key, value)]


@members
def test_a_trace_prints_each_leaf_and_what_leaves_share(name):
    opt, params, state, grads = begin(name)
    trace = opt.trace(grads, state, params)
    lines = str(trace).splitlines()
    shared = [f"{key}={value:.6g}" for key, value in flat(trace.rates) if value is not None]
    assert lines[0] == f"step t={trace.t}: {', '.join(shared)}"
    for leaf, theta in amos_ref.tree.flatten(params).items():
        (head,) = [line for line in lines if line.startswith(f"leaf {leaf!r}: ")]
        assert f"shape {theta.shape}" in head
    numbers = " ".join(f"{x:.6g}" for x in params["dense"][0]["kernel"].reshape(-1)[:6])
    assert f"{numbers} ... (30 numbers)" in str(trace)
    assert all_bits(params) == all_bits(begin(name)[1])


@members
def test_a_trace_of_skipped_leaves_has_the_others(name):
    opt, params, state, grads = begin(name)
    trace = opt.trace({**grads, "scale": None}, state, params)
    whole = opt.trace(grads, state, params)
    assert list(trace) == [leaf for leaf in whole if leaf != "scale"]
    assert all(own.bits(trace[leaf]["theta"]) == own.bits(whole[leaf]["theta"]) for leaf in trace)


@pytest.mark.parametrize("name", ["ClosedFormAmos by gradient", "ClosedFormAmos by Adam", "ClosedFormAmos by sign"])
def test_a_trace_of_the_closed_form_predicts_the_error(name):
    trace, state = check_trace(name)
    assert trace.rates.shrink == closed_form.error(3, alpha_0=0.2, half_life=3.0)
    for leaf, found in trace.items():
        assert found["error"] == state.sigma[leaf] ** 2 * trace.rates.shrink
        for part in "mv":
            assert (found[part] is None) == (name != "ClosedFormAmos by Adam")
        shown = str(trace).split(f"leaf {leaf!r}:")[1]
        assert f"sigma={float(state.sigma[leaf]):.6g}" in shown
        assert "predicted mean(eps^2) before the step" in shown


def test_a_trace_of_a_step_at_another_count():
    opt, params = ClosedFormAmos(0.2, half_life=3.0), tree_of(0)
    trace = opt.trace(tree_of(9), opt.init(params)._replace(count=5), params)
    assert trace.t == 5
    assert trace.rates.shrink == closed_form.error(5, alpha_0=0.2, half_life=3.0)


def test_a_trace_is_one_line_among_other_values_and_whole_in_a_notebook():
    opt = Amos(0.5, slot_shape="element")
    one, two = {"<b>": np.ones(2)}, {"<b>": np.ones(2), "c": np.ones(3)}
    traces = [opt.trace(params, opt.init(params), params) for params in (one, two)]
    assert [repr(trace) for trace in traces] == [
        "<Trace of step 1, 1 leaf; print() shows the numbers>",
        "<Trace of step 1, 2 leaves; print() shows the numbers>",
    ]
    shown = traces[1]._repr_html_()
    assert html.unescape(shown) == f"<pre>{traces[1]}</pre>"
    assert "<b>" not in shown
