"""Nothing half done, by any optimizer: signals, exceptions from the caller's own code, memory that runs out."""

import collections
import itertools
import signal
import socket
import sys
import threading

import numpy as np
import pytest
from helpers.leaves import wrap_run
from helpers.optimizers import BACKENDS, CASES, MEMBERS, cases, make
from helpers.trees import all_bits

from amos_ref import errors
from amos_ref.kernels import page, way
from amos_ref.kernels.cpu import backend as cpu
from amos_ref.kernels.cpu import whole as small_tables
from amos_ref.optimizers import base, interrupt


def tree(seed=1, names="kv"):
    """Two leaves, of two dtypes; "k" alone is what the compiled kernels step in one call."""
    rng = np.random.default_rng(seed)
    leaves = {"k": rng.standard_normal((6, 5)), "v": rng.standard_normal(7).astype(np.float32)}
    return {name: leaves[name] for name in names}


def start(name, backend, names="kv", **changes):
    """An optimizer, its parameters and their state."""
    opt, params = make(name, backend, **changes), tree(names=names)
    return opt, params, opt.init(params)


def after(steps, name, names="kv", **changes):
    """All bits after so many steps that nothing disturbs."""
    opt, params, state = start(name, "numpy", names, **changes)
    for k in range(steps):
        state = opt.step(params, tree(10 + k, names), state)
    return all_bits((params, state[1:]))


# signals


class Told(BaseException):
    """What a handler raises that nobody expects."""


SIGNALS = {
    "SIGINT": KeyboardInterrupt,
    "SIGALRM": TimeoutError,
    "SIGTERM": SystemExit,
    "SIGUSR1": Told,
    "SIGRTMIN": ZeroDivisionError,
}
WHICH = [name for name in SIGNALS if hasattr(signal, name)]


@pytest.fixture
def handlers():
    """Set handlers, which are taken back when the test ends: ``handlers(name, function)`` returns the number."""
    kept = {}

    def put(name, action):
        number = getattr(signal, name)
        kept.setdefault(number, signal.getsignal(number))
        signal.signal(number, action)
        return number

    yield put
    for number, action in kept.items():
        signal.signal(number, action)


def raiser(kind):
    def act(number, frame):
        raise kind(f"signal {number}")

    return act


def disturbed(monkeypatch, backend, numbers, moment="between leaves"):
    """Let signals arrive while a step writes."""

    def run_all(leaves, run):
        if moment == "before":
            list(map(signal.raise_signal, numbers))
        for leaf in leaves:
            run([leaf])
            if moment == "between leaves":
                list(map(signal.raise_signal, numbers))
        if moment == "behind":
            list(map(signal.raise_signal, numbers))
        return -1

    wrap_run(monkeypatch, BACKENDS[backend].Work, run_all)


@pytest.mark.parametrize("moment", ["before", "between leaves", "behind"])
@cases
def test_a_signal_waits_for_the_whole_step(name, backend, moment, handlers, monkeypatch):
    for which in WHICH:
        kind = SIGNALS[which]
        action = raiser(kind)
        number = handlers(which, action)
        opt, params, state = start(name, backend)
        with monkeypatch.context() as context:
            disturbed(context, backend, [number], moment)
            with pytest.raises(kind) as stop:
                opt.step(params, tree(10), state)
        assert signal.getsignal(number) is action
        assert stop.value.amos_state.count == 1
        assert all_bits((params, stop.value.amos_state[1:])) == after(1, name)
        with pytest.raises(errors.StateError, match="amos_state"):
            opt.step(params, tree(11), state)
        later = opt.step(params, tree(11), stop.value.amos_state)
        assert all_bits((params, later[1:])) == after(2, name)


@cases
def test_without_the_guard_half_a_step_would_be_left_behind(name, backend, handlers, monkeypatch):
    class Nothing:
        __enter__ = __exit__ = lambda self, *args: None

    wanted = after(0, name), after(1, name)
    monkeypatch.setattr(base, "InterruptGuard", Nothing)
    disturbed(monkeypatch, backend, [handlers("SIGALRM", raiser(TimeoutError))])
    opt, params, state = start(name, backend)
    with pytest.raises(TimeoutError):
        opt.step(params, tree(10), state)
    assert all_bits((params, state[1:])) not in wanted


def signal_beside_the_call(monkeypatch, number, moment):
    """Let a signal arrive just before or just behind the first of the calls that step small tables.

    The very first finds that kernels have to be compiled, and does nothing ("behind nothing").
    """
    make_part, left = cpu.make_part, [moment]

    def meet(now):
        if now in left:
            left.remove(now)
            signal.raise_signal(number)

    def changed(*args):
        part = make_part(*args)
        right = part.call

        def call(*args):
            meet("before")
            bad = right(*args)
            meet("behind nothing" if bad == small_tables.OTHERS else "behind")
            return bad

        part.call = call
        return part

    monkeypatch.setattr(cpu, "make_part", changed)


@pytest.mark.parametrize("bound", [False, True], ids=["step", "bound"])
@pytest.mark.parametrize("moment", ["before", "behind nothing", "behind"])
@pytest.mark.parametrize("name", [name for name, backend in CASES if backend == "cpu"])
def test_a_step_in_one_call_needs_no_guard(name, moment, bound, handlers, monkeypatch):
    """A signal comes before it, and nothing has happened, or behind it, and all has."""
    number = handlers("SIGALRM", raiser(TimeoutError))
    opt, params, state = start(name, "cpu", "k")
    with monkeypatch.context() as context:
        context.setattr(base, "InterruptGuard", lambda: pytest.fail("it is guarded"))
        signal_beside_the_call(context, number, moment)
        grads = tree(10, "k")
        step = opt.bind(params, grads, state) if bound else None
        with pytest.raises(TimeoutError) as stop:
            opt.step(params, grads, state) if step is None else step()
    happened = int(moment == "behind")
    new = getattr(stop.value, "amos_state", state)
    assert new.count == happened
    assert step is None or step.state is new
    assert all_bits((params, new[1:])) == after(happened, name, "k")
    if happened:
        with pytest.raises(errors.StateError, match="was stepped in place"):
            opt.step(params, tree(11, "k"), state)
    new = opt.step(params, tree(10 + happened, "k"), new)
    assert all_bits((params, new[1:])) == after(happened + 1, name, "k")


def test_a_work_that_does_not_know_whether_its_call_has_happened_is_caught(handlers, monkeypatch):
    number = handlers("SIGALRM", raiser(TimeoutError))
    opt, params, state = start("Amos", "cpu", "k")
    signal_beside_the_call(monkeypatch, number, "behind")
    monkeypatch.setattr(cpu.Work, "done", False)
    with pytest.raises(TimeoutError) as stop:
        opt.step(params, tree(10, "k"), state)
    assert not hasattr(stop.value, "amos_state")
    assert all_bits((params, state[1:])) == after(1, "Amos", "k")  # stepped, under the old count


@cases
def test_a_signal_that_meets_an_error_carries_no_state(name, backend, monkeypatch):
    def failing(leaves, run):
        signal.raise_signal(signal.SIGINT)
        raise MemoryError

    opt, params, state = start(name, backend)
    with monkeypatch.context() as context:
        wrap_run(context, BACKENDS[backend].Work, failing)
        with pytest.raises(KeyboardInterrupt) as stop:
            opt.step(params, tree(10), state)
    assert not hasattr(stop.value, "amos_state")
    assert isinstance(stop.value.__context__, MemoryError)
    assert all_bits((params, state[1:])) == after(0, name)
    state = opt.step(params, tree(10), state)  # it was not stepped, so it still can be
    assert all_bits((params, state[1:])) == after(1, name)


def test_all_handlers_act_in_the_order_in_which_signals_came(handlers, monkeypatch):
    acted = []
    numbers = [handlers(which, lambda number, frame: acted.append(number)) for which in WHICH]
    numbers.append(handlers("SIGTERM", raiser(SystemExit)))
    numbers.append(handlers("SIGHUP", raiser(TimeoutError)))
    disturbed(monkeypatch, "cpu", numbers, "behind")
    opt, params, state = start("Amos", "cpu")
    with pytest.raises(TimeoutError) as stop:
        opt.step(params, tree(10), state)
    assert acted == [number for number in numbers[:-2] if number != signal.SIGTERM]
    assert isinstance(stop.value.__context__, SystemExit)
    assert stop.value.amos_state.count == 1


def test_what_is_no_handler_of_pythons_is_left_alone(handlers, monkeypatch):
    ignored, untouched = handlers("SIGUSR1", signal.SIG_IGN), handlers("SIGUSR2", signal.SIG_DFL)
    looked = []
    disturbed(monkeypatch, "cpu", [ignored])
    monkeypatch.setattr(small_tables, "is_small", lambda table: False)
    monkeypatch.setattr(
        cpu, "first_bad", lambda found: looked.append([signal.getsignal(n) for n in (ignored, untouched)]) or -1
    )
    opt, params, state = start("Amos", "cpu")
    opt.step(params, tree(10), state)
    assert looked[0] == [signal.SIG_IGN, signal.SIG_DFL]


def test_a_handler_may_step_save_and_set_handlers(handlers, monkeypatch):
    opt, params, state = start("Amos", "cpu")
    other, own = tree(2), opt.init(tree(2))
    seen = []

    def act(number, frame):
        signal.signal(number, signal.SIG_IGN)
        seen.append(all_bits(params))  # as a handler sees it that saves a checkpoint
        seen.append(opt.step(other, tree(10), own).count)
        with pytest.raises(errors.StateError, match="stepped in place"):
            opt.step(params, tree(11), state)

    number = handlers("SIGUSR1", act)
    with monkeypatch.context() as context:
        disturbed(context, "cpu", [number], "behind")
        new = opt.step(params, tree(10), state)
    assert seen == [all_bits(params), 1]
    assert signal.getsignal(number) == signal.SIG_IGN
    assert all_bits((params, new[1:])) == after(1, "Amos")


def test_a_wakeup_descriptor_is_woken_once(handlers, monkeypatch):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            disturbed(monkeypatch, "cpu", [handlers("SIGUSR1", lambda number, frame: None)], "behind")
            opt, params, state = start("Amos", "cpu")
            opt.step(params, tree(10), state)
        finally:
            signal.set_wakeup_fd(before)
        assert ours.recv(8) == bytes([signal.SIGUSR1])


def test_a_handler_that_raises_while_handlers_are_held_or_put_back_leaves_all_as_they_were(handlers, monkeypatch):
    """At each call that sets a handler another signal arrives first."""
    for at in range(1, 9):
        actions = {which: raiser(SIGNALS[which]) for which in WHICH}
        numbers = [handlers(which, action) for which, action in actions.items()]
        calls = []

        def signal_first(number, action, at=at, calls=calls, numbers=numbers, right=interrupt.signal):
            calls.append(number)
            if len(calls) == at:
                signal.raise_signal(numbers[-1])
            right(number, action)

        opt, params, state = start("Amos", "cpu")
        with monkeypatch.context() as context:
            context.setattr(interrupt, "signal", signal_first)
            with pytest.raises(SIGNALS[WHICH[-1]]) as stop:
                opt.step(params, tree(10), state)
        assert [signal.getsignal(number) for number in numbers] == list(actions.values())
        new = getattr(stop.value, "amos_state", None)
        assert all_bits((params, state[1:])) == after(0 if new is None else 1, "Amos")
        opt.step(params, tree(11), state if new is None else new)


def test_other_threads_leave_handlers_alone(monkeypatch):
    calls = []
    monkeypatch.setattr(interrupt, "signal", lambda *args: calls.append(args))
    opt, params, state = start("Amos", "cpu")
    thread = threading.Thread(target=opt.step, args=(params, tree(10), state))
    thread.start()
    thread.join()
    assert calls == []
    assert all_bits((params, state[1:])) == after(1, "Amos")


# exceptions from outside that are no signals: they come at any line


def interrupt_at(number, call, *args):
    """Call with an exception raised at the line of this number that the package runs in this thread.

    PyThreadState_SetAsyncExc does that between any two instructions. Return what was raised, or None.
    """
    lines = itertools.count(1)

    def look(frame, event, arg):
        if "amos_ref/" not in frame.f_code.co_filename:
            return None
        if event == "line" and next(lines) == number:
            raise Told
        return look

    before = sys.gettrace()
    sys.settrace(look)
    try:
        call(*args)
    except Told as error:
        return error
    finally:
        sys.settrace(before)
    return None


@pytest.mark.parametrize("name", ["Amos that averages and clips", "ClosedFormAmos by Adam"])
@pytest.mark.parametrize(("backend", "names"), [(backend, "kv") for backend in BACKENDS] + [("cpu", "k")])
def test_an_exception_at_any_line_leaves_nothing_torn_that_is_not_refused(name, backend, names):
    """Nothing happened, and the state can be stepped; or all did, and the exception has the new state; or the state is
    refused, wherever its arrays are not those of its count."""
    none, whole = after(0, name, names), after(1, name, names)
    counted = collections.Counter()
    opt, params, state = start(name, backend, names)
    opt.step(params, tree(10, names), state)
    for number in itertools.count(1, 7):
        opt, params, state = start(name, backend, names)
        error = interrupt_at(number, opt.step, params, tree(10, names), state)
        bits = all_bits((params, state[1:]))
        new = getattr(error, "amos_state", None)
        if error is None:
            break
        if new is not None:
            counted["whole"] += 1
            assert bits == whole
            assert new.count == 1
            opt.step(params, tree(11, names), new)
            assert all_bits((params, new[1:])) == after(2, name, names)
            continue
        try:
            again = opt.step(params, tree(10, names), state)
            counted["nothing"] += 1
            assert bits == none
            assert all_bits((params, again[1:])) == whole
        except errors.StateError:
            counted["refused"] += 1
    assert counted["nothing"] > 5
    assert counted["whole"] + counted["refused"] > 1


def left_behind():
    """After an exception at each line of a guard: how many of the handlers that are there swallow a signal."""
    caught, swallowed = [], 0
    for number in range(1, 100):
        own = signal.signal(signal.SIGINT, lambda number, frame: caught.append(number))
        guard = interrupt.InterruptGuard()

        def enter(guard=guard):
            with guard:
                pass

        error = interrupt_at(number, enter)
        caught.clear()
        signal.raise_signal(signal.SIGINT)
        swallowed += caught != [signal.SIGINT]
        signal.signal(signal.SIGINT, own)
        if error is None:
            return number, swallowed
    return None


def test_a_guard_that_is_broken_off_swallows_no_signal(monkeypatch):
    lines, swallowed = left_behind()
    assert (lines > 15, swallowed) == (True, 0)
    monkeypatch.setattr(interrupt.InterruptGuard, "_note", lambda self, *came: self.came.append(came))
    assert left_behind()[1] > 3


# what the caller's own code raises

SCHEDULED = {"Amos": "learning_rate", "Amos that averages and clips": "learning_rate", "AdamW": "learning_rate"}


@pytest.mark.parametrize("error", [ZeroDivisionError("at 2"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize(("name", "backend"), [case for case in CASES if case[0] in SCHEDULED])
def test_what_a_schedule_raises_leaves_everything_as_it_was(name, backend, error):
    def schedule(t):
        if t == 2:
            raise error
        return 0.25

    opt, params, state = start(name, backend, learning_rate=schedule)
    state = opt.step(params, tree(10), state)
    wanted = after(1, name, learning_rate=0.25)
    for call in (opt.step, lambda p, g, s: opt.update(g, s, p), lambda p, g, s: opt.trace(g, s, p)):
        with pytest.raises(errors.ScheduleError if isinstance(error, Exception) else type(error)):
            call(params, tree(11), state)
        assert all_bits((params, state[1:])) == wanted
    assert state.count == 1


@pytest.mark.parametrize("error", [ZeroDivisionError("at v"), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_direction_raises_leaves_everything_as_it_was(backend, error):
    def direction(name, g, t):
        if (name, t) == ("v", 1):
            raise error
        return g

    name = "ClosedFormAmos by a callable"
    opt, params, state = start(name, backend, direction=direction)
    state = opt.step(params, tree(10), state)
    for call in (opt.step, lambda p, g, s: opt.update(g, s, p), lambda p, g, s: opt.trace(g, s, p)):
        with pytest.raises(errors.DirectionError if isinstance(error, Exception) else type(error)):
            call(params, tree(11), state)
        assert all_bits((params, state[1:])) == after(1, "ClosedFormAmos by gradient")
    assert state.count == 1


def test_what_a_rule_raises_leaves_everything_as_it_was():
    def rule(name, shape):
        if name == "v":
            raise KeyError(name)
        return 0.5

    params = tree()
    for opt in (make("Amos", eta=rule), make("ClosedFormAmos by gradient", sigma=rule)):
        with pytest.raises(errors.RuleError, match="the callable failed for leaf 'v': KeyError"):
            opt.init(params)
        assert all_bits(params) == all_bits(tree())


# memory that runs out at each call that allocates before a step writes

#: Backend, method, and what fails: a function of a module, or the optimizer's own page. Launches of the kernels only
#: read at first, at least four times with the tree above.
ALLOCATIONS = {
    "results": ("numpy", "step", page, "round_like"),
    "reductions": ("cpu", "step", cpu.Part, "reduce"),
    "looks": ("cpu", "step", cpu.SmallPart, "reduce"),
    "launches": ("cpu", "step", cpu, "launch"),
    "checks": ("numpy", "step", base, "check_written"),
    "the page": ("numpy", "step", None, "page"),
    "the page of update": ("numpy", "update", None, "page"),
    "the page of trace": ("numpy", "trace", None, "page"),
}
MEMORY_CASES = [(name, where) for name in MEMBERS for where, (b, *_) in ALLOCATIONS.items() if (name, b) in CASES]


def fail_at(monkeypatch, opt, target, call, number):
    """Let the call of this number raise MemoryError."""
    right, calls = getattr(target or type(opt).method, call), []

    def failing(*args):
        calls.append(args)
        if len(calls) == number:
            raise MemoryError
        return right(*args)

    if target is None:
        monkeypatch.setattr(type(opt), "method", type(opt).method._replace(page=failing))
    else:
        for place in (cpu, way) if target is cpu else (target,):
            monkeypatch.setattr(place, call, failing)


@pytest.mark.parametrize(("name", "where"), MEMORY_CASES, ids=[", ".join(case) for case in MEMORY_CASES])
def test_an_allocation_that_fails_leaves_everything_as_it_was(name, where, monkeypatch):
    backend, method, target, call = ALLOCATIONS[where]
    _, params, state = start(name, backend)
    failed = 0
    for number in range(1, 5 if where == "launches" else 20):
        opt = make(name, backend)
        with monkeypatch.context() as context:
            if where in ("reductions", "launches"):
                context.setattr(small_tables, "is_small", lambda table: False)
            fail_at(context, opt, target, call, number)
            try:
                if method == "step":
                    opt.step(params, tree(10), state)
                else:
                    getattr(opt, method)(tree(10), state, params)
                break  # there was memory enough
            except MemoryError:
                failed += 1
        assert all_bits((params, state[1:])) == after(0, name)
    assert failed >= (1 if where in ("checks", "launches") else 2)
    if method == "step":
        if where == "launches":
            opt.step(params, tree(10), state)
        assert all_bits((params, state[1:])) == after(1, name)
