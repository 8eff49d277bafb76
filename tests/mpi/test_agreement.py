"""An error of one rank is the same named error on every rank, before anything is written; then ranks go on."""

import itertools
import time

import numpy as np
import pytest
from helpers import ranks
from helpers import strategies as own
from helpers.layouts import KINDS, slot_of, tree_of

import amos_ref
from amos_ref import errors
from amos_ref.mpi import Layout, Sharded, load, windows

CUTS = {
    **dict.fromkeys(KINDS, 1),
    "vector": (0, (0, 8192, 8192, 20001)),
    "columns": (1, (0, 1, 2, 3)),
    "element": (0, (0, 2, 5, 7)),
    "mixed": (0, (0, 1, 3, 4)),
}
LAYOUT = Layout({name: shape for name, (shape, _) in KINDS.items()}, CUTS)
RNG = np.random.default_rng(0)
PARAMS, GRADS = tree_of(RNG, KINDS, "float64"), tree_of(RNG, KINDS, "float64")


def make(kind="amos", **options):
    if kind == "amos":
        return amos_ref.Amos(**{"learning_rate": 0.1, "eta": 0.5, "slot_shape": slot_of, **options})
    return amos_ref.ClosedFormAmos(0.1, half_life=5, sigma=0.5, slot_shape=slot_of, direction=kind, **options)


def bits(tree):
    return {name: None if a is None else own.bits(a) for name, a in tree.items()}


def fail(break_it, call="step", make=make):
    """What each rank raises if ``break_it(rank, params, grads, state, comm)`` changes what one of them is given.

    Nothing is written, and a right step comes out right after it.
    """

    def work(comm):
        opt = make()
        sharded = Sharded(opt, LAYOUT, comm)
        params, grads = LAYOUT.pieces(PARAMS, comm.rank), LAYOUT.pieces(GRADS, comm.rank)
        state = sharded.init(params)
        params2, grads2, state2 = break_it(comm.rank, dict(params), dict(grads), state, comm) or (params, grads, state)
        before = bits(params), [bits(part) for part in state[1:] if part is not None]
        error = None
        try:
            if call == "step":
                sharded.step(params2, grads2, state2)
            else:
                getattr(sharded, call)(grads2, state2, params2)
        except BaseException as raised:
            error = raised
        assert (bits(params), [bits(part) for part in state[1:] if part is not None]) == before
        opt.set_learning_rate(0.1) if isinstance(opt, amos_ref.Amos) else None
        sharded.step(params, grads, state)
        return error, params

    found = ranks.results(3, work)
    opt = make()
    if isinstance(opt, amos_ref.Amos):
        opt.set_learning_rate(0.1)
    whole = {name: a.copy() for name, a in PARAMS.items()}
    opt.step(whole, GRADS, opt.init(whole))
    joined = LAYOUT.join([params for _, params in found])
    assert bits(joined) == bits(whole)
    return [error for error, _ in found]


def same(found, kind, *words):
    assert [type(error) for error in found] == [kind] * 3
    assert len({str(error) for error in found}) == 1
    for word in words:
        assert word in str(found[0])


def one_process(kind, name, index, value, **options):
    """The message of one process whose gradients have this value."""
    opt = make(kind, **options)
    grads = {n: a.copy() for n, a in GRADS.items()}
    grads[name][index] = value
    whole = {n: a.copy() for n, a in PARAMS.items()}
    with pytest.raises(errors.NonFiniteError) as error:
        opt.step(whole, grads, opt.init(whole))
    return str(error.value)


#: A leaf, an index in the whole, the rank that has it, and its place there.
PLACES = [
    ("vector", (20000,), 2, (11808,)),
    ("columns", (8000, 1), 1, (8000, 0)),
    ("element", (6, 3), 2, (1, 3)),
    ("mixed", (2, 1, 150, 1), 1, (1, 1, 150, 1)),
    ("scalar", (), 1, ()),
]


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("kind", ["amos", "adam", "sign"])
@pytest.mark.parametrize("place", PLACES, ids=[name for name, *_ in PLACES])
def test_a_gradient_that_is_not_finite(place, kind, backend):
    name, index, owner, here = place

    def break_it(rank, params, grads, state, comm):
        if rank == owner:
            grads[name] = grads[name].copy()
            grads[name][here] = np.nan
        return params, grads, state

    found = fail(break_it, make=lambda: make(kind, backend=backend))
    same(found, errors.NonFiniteError, f"gradient of leaf {name!r}[{', '.join(map(str, index))}] is nan")
    assert str(found[0]) == one_process(kind, name, index, np.nan)


def test_the_first_of_several_is_named_and_a_sum_that_overflows():
    def two(rank, params, grads, state, comm):
        if rank > 0:
            grads["element"] = np.full_like(grads["element"], np.inf)
            grads["mixed"] = grads["mixed"] * np.nan
        return params, grads, state

    same(fail(two), errors.NonFiniteError, "'element'[2, 0]")

    def large(rank, params, grads, state, comm):
        grads["vector"] = np.full_like(grads["vector"], 1.2e154 if rank == 0 else 1.1e154)
        return params, grads, state

    same(fail(large), errors.NonFiniteError, "gradient of leaf 'vector': the sum of its squares", "1.2e+154")
    same(fail(large, "update"), errors.NonFiniteError, "gradient of leaf 'vector'")


def test_a_direction_of_a_callable_that_is_not_finite():
    def direction(name, g, t):
        return np.where(g > 3.0, np.inf, g) if name == "columns" else g

    opt = make(direction)
    whole = {n: a.copy() for n, a in PARAMS.items()}
    with pytest.raises(errors.NonFiniteError) as error:
        opt.step(whole, GRADS, opt.init(whole))

    def work(comm):
        sharded, params = Sharded(make(direction), LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        sharded.step(params, LAYOUT.pieces(GRADS, comm.rank), sharded.init(params))

    same(ranks.run(3, work), errors.NonFiniteError, "direction of leaf 'columns'")
    assert str(ranks.run(3, work)[0]) == str(error.value)


def wrong_shape(params, grads, state):
    grads["vector"] = grads["vector"][1:] if grads["vector"].size else np.zeros(3)


def wrong_dtype(params, grads, state):
    grads["vector"] = grads["vector"].astype(int)


def lacking(params, grads, state):
    del params["vector"], grads["vector"]


def read_only(params, grads, state):
    params["vector"] = params["vector"].view()
    params["vector"].flags.writeable = False


def another_shape(params, grads, state):
    params["vector"] = grads["vector"] = np.zeros(5)


WRONG = {
    "shape of a gradient": (wrong_shape, errors.ShapeError),
    "dtype": (wrong_dtype, errors.DtypeError),
    "a leaf is missing": (lacking, errors.TreeError),
    "read-only": (read_only, errors.ReadOnlyError),
    "shape of a parameter": (another_shape, errors.ShapeError),
}


@pytest.mark.parametrize("owner", [0, 1, 2])
@pytest.mark.parametrize("name", WRONG)
def test_what_one_rank_is_given_wrong(name, owner):
    change, kind = WRONG[name]

    def break_it(rank, params, grads, state, comm):
        if rank == owner:
            change(params, grads, state)
        return params, grads, state

    same(fail(break_it), kind, f"rank {owner}", "vector")


@pytest.mark.parametrize("call", ["step", "update", "trace"])
def test_a_schedule_that_raises_on_one_rank(call):
    ready = []

    def schedule(t):
        if len(ready) == 2:
            ready.append(None)
            raise OSError("gone")
        ready.append(None)
        return 0.1

    same(fail(lambda *given: None, call, lambda: make(learning_rate=schedule)), errors.ScheduleError, "gone")


def test_what_is_no_error_of_the_package_stays_on_its_rank():
    def schedule_of(rank):
        def schedule(t):
            if rank == 1:
                raise KeyboardInterrupt
            return 0.1

        return schedule

    def work(comm):
        sharded = Sharded(make(learning_rate=schedule_of(comm.rank)), LAYOUT, comm)
        params = LAYOUT.pieces(PARAMS, comm.rank)
        sharded.step(params, LAYOUT.pieces(GRADS, comm.rank), sharded.init(params))

    found = ranks.run(3, work)
    assert [type(error) for error in found] == [errors.RankError, KeyboardInterrupt, errors.RankError]
    assert "rank 1: KeyboardInterrupt" in str(found[0])


def test_ranks_that_are_not_about_to_do_the_same():
    def skip(rank, params, grads, state, comm):
        if rank == 2:
            grads["mixed"] = None
        return params, grads, state

    same(fail(skip), errors.RankError, "stepped leaves", "rank 2")

    def later(rank, params, grads, state, comm):
        return params, grads, state._replace(count=3) if rank == 1 else state

    same(fail(later), errors.RankError, "count 0 and 3")

    def work(comm):
        opt = make()
        sharded, params = Sharded(opt, LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        if comm.rank == 1:
            opt.set_learning_rate(0.2)
        sharded.step(params, grads, state)

    same(ranks.run(3, work), errors.RankError, "rates", "rank 1")

    def methods(comm):
        sharded, params = Sharded(make(), LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        if comm.rank == 0:
            sharded.update(grads, state, params)
        else:
            sharded.step(params, grads, state)

    same(ranks.run(3, methods), errors.RankError, "method update and step")


def test_a_leaf_that_one_rank_alone_has_may_be_skipped_there():
    def skip(rank, params, grads, state, comm):
        grads["scalar"] = None
        return params, grads, state

    assert fail_free(skip)


def fail_free(change):
    def work(comm):
        sharded, params = Sharded(make(), LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state = sharded.init(params)
        _, grads, _ = change(comm.rank, params, LAYOUT.pieces(GRADS, comm.rank), state, comm)
        return sharded.step(params, grads, state).count

    return ranks.results(3, work) == [1, 1, 1]


def test_parameters_that_are_not_finite_at_init():
    def work(comm):
        params = LAYOUT.pieces(PARAMS, comm.rank)
        if comm.rank == 2:
            params["vector"][11808] = np.inf
        Sharded(make(), LAYOUT, comm).init(params)

    same(ranks.run(3, work), errors.NonFiniteError, "params leaf 'vector'[20000] is inf")


@pytest.mark.parametrize("call", ["init", "step", "save"])
def test_a_dtype_that_one_rank_alone_has(call, tmp_path):
    """A leaf that is cut has one dtype; of one that is whole somewhere the others know nothing."""

    def narrow(tree):
        return {name: None if a is None else a.astype("float32") for name, a in tree.items()}

    def work(comm):
        sharded, params = Sharded(make(), LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        given = {**params, "vector": narrow(params)["vector"]} if comm.rank == 2 else params
        try:
            if call == "init":
                sharded.init(given)
            elif call == "step":
                sharded.step(given, grads, state)
            else:
                sharded.save(tmp_path / "run", given, state)
        except errors.RankError as error:
            assert sharded.step(params, grads, state).count == 1
            return error
        return None

    same(ranks.run(3, work), errors.RankError, "'vector' float64 and float32", "rank 2")
    assert not list(tmp_path.iterdir())


def test_an_option_that_is_set_on_one_rank_alone():
    def work(comm):
        opt = make()
        sharded, params = Sharded(opt, LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        if comm.rank == 1:
            opt.set_params(eta=0.75)
        sharded.step(params, grads, state)

    same(ranks.run(3, work), errors.RankError, "options: 'eta' 0.5 and 0.75", "rank 1")


def test_an_option_that_makes_a_cut_illegal():
    def work(comm):
        opt = make()
        sharded, params = Sharded(opt, LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        opt.set_params(slot_shape="tensor")
        sharded.step(params, grads, state)

    same(ranks.run(3, work), errors.LayoutError, "leaf 'columns'")


OTHER = Layout(LAYOUT.shapes, {**LAYOUT.cuts, "vector": (0, (0, 8192, 16384, 20001))})
#: What one rank alone makes wrong: arguments of Sharded.
WRONG_ARGUMENTS = {
    "another layout": ({"layout": OTHER}, errors.LayoutError, "differ"),
    "another number of ranks": ({"layout": Layout({"w": (3,)}, {"w": 0})}, errors.LayoutError, "is for 1 ranks"),
    "an illegal cut": (
        {"layout": Layout(LAYOUT.shapes, {**LAYOUT.cuts, "vector": (0, (0, 5, 6, 20001))})},
        errors.LayoutError,
        "nearest legal edges",
    ),
    "no layout": ({"layout": "even"}, errors.LayoutError, "must be a Layout"),
    "timeout": ({"timeout": -1}, errors.HyperParameterError, "timeout is -1"),
    "an optimizer that is none": ({"opt": 3}, errors.HyperParameterError, "opt is 3"),
    "another member": ({"opt": amos_ref.ClosedFormAmos(0.1, half_life=5)}, errors.RankError, "ClosedFormAmos"),
}


@pytest.mark.parametrize("owner", [0, 2])
@pytest.mark.parametrize("name", WRONG_ARGUMENTS)
def test_what_one_rank_alone_is_made_with(name, owner):
    change, kind, words = WRONG_ARGUMENTS[name]
    if name == "another member":
        change = {"opt": make("gradient")}

    def work(comm):
        given = {"opt": make(), "layout": LAYOUT, "comm": comm} | (change if comm.rank == owner else {})
        with pytest.raises(errors.AmosError) as error:
            Sharded(**given)
        sharded, params = Sharded(make(), LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        assert sharded.step(params, LAYOUT.pieces(GRADS, comm.rank), sharded.init(params)).count == 1
        return error.value

    same(ranks.run(3, work), kind, words)


def test_a_file_that_one_rank_alone_wants_otherwise(tmp_path):
    path, opt = tmp_path / "run", make(slot_shape={name: slot for name, (_, slot) in KINDS.items()})
    amos_ref.save(path, PARAMS, opt.init(PARAMS), opt)
    wrong = {
        "layout": ({"layout": OTHER}, errors.LayoutError, "differ"),
        "like": ({"like": {"w": None}}, errors.TreeError, "'w'"),
        "option": ({"beta": 0.5}, errors.RankError, "options: 'beta'"),
        "no option": ({"gamma": 0.5}, errors.AmosError, "gamma"),
        "state": ({"momentum": 0.5}, errors.AmosError, "momentum"),
    }
    for change, kind, words in wrong.values():

        def work(comm, change=change):
            given = {"layout": LAYOUT, "comm": comm} | (change if comm.rank == 1 else {})
            with pytest.raises(errors.AmosError) as error:
                load(path, **given)
            assert load(path, LAYOUT, comm).state.count == 0
            return error.value

        found = ranks.run(3, work)
        assert len({(type(error), str(error)) for error in found}) == 1
        assert isinstance(found[0], kind)
        assert words in str(found[0])


@pytest.mark.parametrize("absent", [0, 2])
@pytest.mark.parametrize("call", ["Sharded", "init", "step", "update", "trace", "save", "load"])
def test_a_rank_that_does_not_come(call, absent, tmp_path):
    """The others wait for as long as they are told to, whatever they do; then everything else fails at once."""
    opt = make(slot_shape={name: slot for name, (_, slot) in KINDS.items()})
    path = tmp_path / "run"
    amos_ref.save(path, PARAMS, opt.init(PARAMS), opt)
    before = path.read_bytes()

    def begin(comm):
        """The call that is to be waited for, which the absent rank does not make."""
        if call == "load":
            return lambda: load(path, LAYOUT, comm, timeout=0.05)
        if call == "Sharded":
            return lambda: Sharded(opt, LAYOUT, comm, timeout=0.05)
        sharded = Sharded(opt, LAYOUT, comm, timeout=20.0)
        params, grads = LAYOUT.pieces(PARAMS, comm.rank), LAYOUT.pieces(GRADS, comm.rank)
        state = sharded.init(params)
        comm.allgather(None)

        def late():
            sharded._ranks._limit = 0.05
            try:
                if call == "init":
                    sharded.init(params)
                elif call == "step":
                    sharded.step(params, grads, state)
                elif call == "save":
                    sharded.save(path, params, state)
                else:
                    getattr(sharded, call)(grads, state, params)
            finally:
                sharded._ranks._limit, begun = 60.0, time.monotonic()
                with pytest.raises(errors.RankError, match="has waited"):
                    sharded.init(params)
                assert time.monotonic() - begun < 30.0

        return late

    def work(comm):
        late = begin(comm)
        return None if comm.rank == absent else late()

    for rank, error in enumerate(ranks.run(3, work)):
        if rank != absent:
            assert f"rank {rank} has waited 0.05 s" in str(error)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_rank_that_goes_away_while_all_save(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW", 8192)
    opt = make(slot_shape={name: slot for name, (_, slot) in KINDS.items()})
    path = tmp_path / "run"
    path.write_bytes(b"old")
    right = windows._go_on

    def go_on(ranks, counted=[0]):  # noqa: B006
        right(ranks)
        if ranks.rank == 1:
            counted[0] += 1
            if counted[0] == 4:
                raise SystemExit

    monkeypatch.setattr(windows, "_go_on", go_on)

    def work(comm):
        sharded, params = Sharded(opt, LAYOUT, comm, timeout=5.0), LAYOUT.pieces(PARAMS, comm.rank)
        state = sharded.init(params)
        sharded._ranks._limit = 0.2
        sharded.save(path, params, state)

    found = ranks.run(3, work)
    assert [type(error) for error in found] == [errors.RankError, SystemExit, errors.RankError]
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]


def test_a_time_limit_that_is_kept_changes_nothing():
    def work(comm):
        # One rank alone has a limit: calls match all the same.
        sharded = Sharded(make(), LAYOUT, comm, timeout=60 if comm.rank else None)
        params = LAYOUT.pieces(PARAMS, comm.rank)
        sharded.step(params, LAYOUT.pieces(GRADS, comm.rank), sharded.init(params))
        return params

    whole, opt = {name: a.copy() for name, a in PARAMS.items()}, make()
    opt.step(whole, GRADS, opt.init(whole))
    assert bits(LAYOUT.join(ranks.results(3, work))) == bits(whole)


def test_ranks_that_call_different_things(tmp_path):
    opt = make(slot_shape={name: slot for name, (_, slot) in KINDS.items()})
    path = tmp_path / "run"
    amos_ref.save(path, PARAMS, opt.init(PARAMS), opt)

    def work(comm):
        sharded, params = Sharded(opt, LAYOUT, comm), LAYOUT.pieces(PARAMS, comm.rank)
        state, grads = sharded.init(params), LAYOUT.pieces(GRADS, comm.rank)
        calls = [
            lambda: load(path, LAYOUT, comm),
            lambda: Sharded(opt, LAYOUT, comm),
            lambda: sharded.init(params),
            lambda: sharded.save(path, params, state),
            lambda: sharded.trace(grads, state, params),
        ]
        found = []
        for first, second in itertools.combinations(calls, 2):
            with pytest.raises(errors.RankError) as error:
                (second if comm.rank == 1 else first)()
            found.append(str(error.value))
        return found

    for message in ranks.results(3, work)[0]:
        assert "rank 0 and rank 1 are not about to do the same: method" in message
