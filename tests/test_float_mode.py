"""Where the processor does not compute as IEEE 754 says, a step says so and changes nothing."""

import contextlib
import threading
from typing import NamedTuple

import numpy as np
import pytest
from helpers.float_mode import KNOWN, MODES, float_mode
from helpers.messages import one_line
from helpers.optimizers import cases, make
from helpers.trees import all_bits, tree_of

import amos_ref
from amos_ref import dtypes, errors, interop
from amos_ref import float_mode as checked
from amos_ref.cli import main
from amos_ref.kernels.cpu import threads
from amos_ref.optimizers import base

pytestmark = pytest.mark.skipif(not KNOWN, reason="how this system keeps the mode is not known")


def words_of(mode):
    return "flushed to zero" if "Z" in mode else f"rounded {mode}"


@pytest.mark.parametrize("mode", MODES)
@cases
def test_a_step_in_another_mode_is_refused_and_changes_nothing(name, backend, mode):
    opt, pure, params = make(name, backend), make(name), tree_of(0)
    state = opt.step(params, tree_of(1), opt.init(params))
    before = all_bits((params, state))
    calls = [
        (opt.step, params, tree_of(2), state),
        (pure.update, tree_of(2), state, params),
        (pure.trace, tree_of(2), state, params),
        (pure.init, params),
        (amos_ref.apply_updates, params, params),
    ]
    for call, *args in calls:
        with float_mode(mode), pytest.raises(errors.FloatModeError) as caught:
            call(*args)
        one_line(caught.value, ["in this thread", words_of(mode), "torch.set_flush_denormal(False)"])
        assert all_bits((params, state)) == before
    opt.step(params, tree_of(2), state)


def test_a_step_that_did_not_look_would_have_other_bits(monkeypatch):
    theta, g = np.full(2, 1e-308), np.full(2, 1.0)
    found = []
    monkeypatch.setattr(base, "check_mode", lambda: None)
    for backend in ("numpy", "cpu"):
        for mode in (None, *MODES):
            opt, params = amos_ref.Amos(1e-309, backend=backend), theta.copy()
            state = opt.init(params)
            if mode is None:
                opt.step(params, g, state)
            else:
                with float_mode(mode):
                    opt.step(params, g, state)
            found.append(params.tobytes())
    assert len(set(found)) > 1


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_a_schedule_or_rule_that_leaves_another_mode_behind_is_noticed(backend):
    mode = next(iter(MODES))
    with contextlib.ExitStack() as stack:

        def schedule(t):
            stack.enter_context(float_mode(mode))
            return 0.5

        opt, params = amos_ref.Amos(schedule, eta=0.5, backend=backend), tree_of(0)
        state = opt.init(params)
        before = all_bits((params, state))
        with pytest.raises(errors.FloatModeError):
            opt.step(params, tree_of(1), state)
        assert all_bits((params, state)) == before


def test_a_helper_in_another_mode_takes_no_work_and_is_replaced(monkeypatch):
    """A thread starts in the mode of the thread that starts it, and keeps it."""
    monkeypatch.setattr(threads, "helpers", [])
    monkeypatch.setattr(threads, "launches", threads.queue.SimpleQueue())
    with float_mode(next(iter(MODES))):
        assert threads._hire(2) == 2
    hired = list(threads.helpers)
    for thread in hired:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert threads.helpers == []
    opt, params = amos_ref.Amos(0.1, backend="cpu"), {"w": np.ones(2**20, np.float32)}
    with threads.limit_threads(3):
        opt.step(params, {"w": np.ones(2**20, np.float32)}, opt.init(params))
    assert len(threads.helpers) == 2


def test_a_helper_whose_mode_changes_takes_no_batch():
    done = []
    launched = threads.Launch(lambda first: done.append(first), [(0,), (1,)], (), 2)
    with float_mode(next(iter(MODES))):
        launched.help(0)
    assert (done, launched.busy.tolist()) == ([], [0])
    launched.help(0)
    assert done == [0, 1]


def test_other_threads_have_their_own_mode():
    found = []
    with float_mode(next(iter(MODES))):
        ready = threading.Thread(target=lambda: found.append(checked.is_ieee()))
        ready.start()
        ready.join()
    assert found == [False]
    late = threading.Thread(target=lambda: found.append(checked.is_ieee()))
    late.start()
    late.join()
    assert found == [False, True]


@pytest.mark.parametrize("mode", MODES)
def test_info_names_the_mode(mode, capsys):
    assert main(["info"]) == 0
    assert "IEEE 754" in capsys.readouterr().out
    with float_mode(mode):
        assert main(["info"]) == 0
    assert words_of(mode) in capsys.readouterr().out


def test_check_judges_nothing_in_another_mode(capsys):
    with float_mode(next(iter(MODES))):
        assert main(["check", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "subnormal numbers are flushed to zero" in err


class Theirs(NamedTuple):
    """A state as optax keeps it."""

    count: int = 3
    v: object = np.array(1e-40, np.float32)
    b: object = np.array(1.0, np.float32)


CONVERSIONS = {
    "load_state": lambda path: amos_ref.load_state(path, like=np.ones(3, np.float32), state_dtype="param").v[""],
    "from_optax": lambda path: interop.from_optax(Theirs(), np.ones(3, np.float32), state_dtype="float64").v[""],
}


@pytest.mark.parametrize("conversion", CONVERSIONS)
def test_a_state_whose_numbers_are_rounded_on_the_way_is_not_flushed(conversion, tmp_path, monkeypatch):
    """v of small gradients came out of a file or another library as 0, and the next step was far too long."""
    path, convert = tmp_path / "state", CONVERSIONS[conversion]
    amos_ref.save_state(path, amos_ref.Amos(0.1).init(np.ones(3))._replace(v={"": np.array(1e-40)}))
    right = convert(path)
    assert right > 0
    with float_mode(max(MODES, key=lambda mode: mode.count("Z"))):
        with pytest.raises(errors.FloatModeError):
            convert(path)
        monkeypatch.setattr(dtypes, "check_mode", lambda: None)
        wrong = convert(path)
        amos_ref.load_state(path)  # as it is in the file
    assert wrong.tobytes() != right.tobytes()
