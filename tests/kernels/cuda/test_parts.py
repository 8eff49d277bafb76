"""Parts of arrays on a GPU, over ranks: reduced and applied there, summed on the host, with the bits of one process."""

import threading

import numpy as np
import pytest
from helpers import layouts, ranks
from helpers import strategies as own
from helpers.placed import to_device

import amos_ref
from amos_ref.errors import BackendError, NonFiniteError, RankError
from amos_ref.kernels.cuda import driver as cuda_driver
from amos_ref.kernels.cuda.arrays import device_array, download
from amos_ref.kernels.cuda.sums import HostSums
from amos_ref.mpi import Layout, Sharded, load

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

#: Shape and slot of every way in which sums leave, small: each thread of the simulator is one of Python's.
KINDS = {
    "vector": ((8200,), ()),
    "columns": ((130, 2), (1, 2)),
    "outer": ((70, 2, 2), (1, 2, 1)),
    "between": ((3, 2, 2, 2, 2), (1, 2, 1, 2, 1)),
    "mixed": ((3, 2, 66, 2), (1, 2, 1, 2)),
    "rows": ((4, 3), (4, 1)),
    "element": ((5, 3), (5, 3)),
    "scalar": ((), ()),
}
#: Among them a group that one part has whole (the first 64 of "outer"), empty parts, and parts of one entry.
CUTS = {
    2: {
        "vector": (0, (0, 8192, 8200)),
        "columns": (0, (0, 64, 130)),
        "outer": (0, (0, 3, 70)),
        "between": (0, (0, 1, 3)),
        "mixed": (2, (0, 64, 66)),
        "rows": (0, (0, 4, 4)),
        "element": (1, (0, 1, 3)),
        "scalar": 0,
    },
    3: {
        "vector": 2,
        "columns": (1, (0, 1, 1, 2)),
        "outer": (0, (0, 66, 66, 70)),
        "between": (2, (0, 1, 2, 2)),
        "mixed": (0, (0, 0, 1, 3)),
        "rows": 2,
        "element": (0, (0, 2, 2, 5)),
        "scalar": 1,
    },
}
SMALL = ("outer", "rows", "element")
OPTIONS = dict(eta={"columns": "init", ".*": 0.6}, beta=0.75, momentum=0.5, clip_value=2.5, extra_l2=0.05)


@pytest.fixture(autouse=True)
def one_kernel_at_a_time(small, monkeypatch):
    """Ranks are threads here; the simulator runs the kernels of one at a time."""
    lock, launcher = threading.Lock(), cuda_driver.launcher

    def locked(*args):
        kernel = launcher(*args)

        def call(*arguments):
            with lock:
                kernel(*arguments)

        return call

    monkeypatch.setattr(layouts, "KINDS", KINDS)
    if cuda_driver.simulated():
        monkeypatch.setattr(cuda_driver, "most_blocks", lambda: 1)
    monkeypatch.setattr(cuda_driver, "launcher", locked)


def optimizers(**changes):
    options = dict(slot_shape=layouts.slot_of, **OPTIONS) | changes
    return [amos_ref.Amos(lambda t: 0.3 / t, **options, backend=backend) for backend in ("numpy", "cuda")]


def closed_form(**changes):
    options = dict(half_life=3, sigma="init", slot_shape=layouts.slot_of) | changes
    return [amos_ref.ClosedFormAmos(0.2, **options, backend=backend) for backend in ("numpy", "cuda")]


def layout_of(size, names=tuple(KINDS)):
    return Layout({n: KINDS[n][0] for n in names}, {n: CUTS[size][n] for n in names}, size)


def moved(tree):
    return {name: None if a is None else to_device(a) for name, a in tree.items()}


def fetched(tree, dtype):
    return {name: None if a is None else download(device_array(a, name)).view(dtype) for name, a in tree.items()}


def on_host(state):
    parts = {part: arrays for part, arrays in zip(state._fields, state, strict=True) if isinstance(arrays, dict)}
    return state._replace(**{part: fetched(a, next(iter(a.values())).dtype) if a else a for part, a in parts.items()})


def together(opt, layout, params, steps):
    """Parameters and states of all ranks after these steps, back in NumPy."""
    dtype = next(iter(params.values())).dtype

    def work(comm):
        sharded, mine = Sharded(opt, layout, comm), moved(layout.pieces(params, comm.rank))
        state = sharded.init(mine)
        for grads in steps:
            state = sharded.step(mine, moved(layout.pieces(grads, comm.rank)), state)
        return fetched(mine, dtype), on_host(state)

    return ranks.results(layout.ranks, work)


def numbers(seed, dtype="float32", names=tuple(KINDS)):
    return layouts.tree_of(np.random.default_rng(seed), names, dtype)


@pytest.mark.parametrize("size", CUTS)
def test_the_bits_are_those_of_one_process(size):
    ours, theirs = optimizers()
    params, steps = numbers(1), [numbers(2)]
    wanted = layouts.alone(ours, params, steps)
    assert layouts.differing(layout_of(size), together(theirs, layout_of(size), params, steps), *wanted) == []


@pytest.mark.parametrize("direction", ["adam", "sign"])
def test_the_closed_form_has_them_too(direction):
    names = SMALL
    ours, theirs = closed_form(direction=direction)
    params, steps = numbers(4, "float64", names), [numbers(5, "float64", names)]
    layout, wanted = layout_of(2, names), layouts.alone(ours, params, steps)
    assert layouts.differing(layout, together(theirs, layout, params, steps), *wanted) == []


def drop_a_sum(self, stream):
    right_fetch(self, stream)
    for sums, _ in self.scratch:
        sums[0] = 0.0


right_fetch = HostSums.fetch
WRONG = {"put": lambda self, stream: None, "fetch": drop_a_sum}


@pytest.mark.parametrize("name", WRONG)
def test_a_copy_that_is_wrong_is_caught(name, monkeypatch):
    ours, theirs = optimizers(eta=0.6)
    params, steps, layout = numbers(6, names=SMALL), [numbers(7, names=SMALL)], layout_of(2, SMALL)
    wanted = layouts.alone(ours, params, steps)
    monkeypatch.setattr(HostSums, name, WRONG[name])
    assert "outer" in layouts.differing(layout, together(theirs, layout, params, steps), *wanted)


def test_arrays_that_stay_are_laid_out_once():
    """Over several steps, of which the second skips a leaf."""
    ours, theirs = optimizers()
    layout, params, grads = layout_of(2, SMALL), numbers(8, names=SMALL), numbers(9, names=SMALL)
    wanted = layouts.alone(ours, params, [grads, grads, grads | {"outer": None}])

    def work(comm):
        sharded = Sharded(theirs, layout, comm)
        mine, g = (moved(layout.pieces(tree, comm.rank)) for tree in (params, grads))
        state = sharded.step(mine, g, sharded.init(mine))
        kept = sharded._view._last.peek()
        state = sharded.step(mine, g, state)
        assert kept is not None
        assert kept is sharded._view._last.peek()
        state = sharded.step(mine, g | {"outer": None}, state)
        return fetched(mine, np.float32), on_host(state)

    assert layouts.differing(layout, ranks.results(2, work), *wanted) == []


@pytest.mark.parametrize(("name", "place"), [("outer", 279), ("element", 14)])
def test_an_error_of_one_rank_is_raised_on_all_and_nothing_is_written(name, place):
    names = SMALL
    ours, theirs = optimizers(eta=0.6)
    layout, params, grads = layout_of(2, names), numbers(10, names=names), numbers(11, names=names)
    broken = {leaf: a.copy() for leaf, a in grads.items()}
    broken[name].reshape(-1)[place] = np.nan
    with pytest.raises(NonFiniteError) as alone:
        layouts.alone(ours, params, [broken])

    def work(comm):
        sharded, mine = Sharded(theirs, layout, comm), moved(layout.pieces(params, comm.rank))
        state = sharded.init(mine)
        with pytest.raises(NonFiniteError) as error:
            sharded.step(mine, moved(layout.pieces(broken, comm.rank)), state)
        before = fetched(mine, np.float32)
        if comm.rank == 1:
            bad = {leaf: None if a is None else np.ones(a.shape) for leaf, a in mine.items()}
        with pytest.raises(BackendError, match="not on a GPU but a NumPy array"):
            sharded.step(mine, bad if comm.rank == 1 else moved(layout.pieces(grads, comm.rank)), state)
        for call in (sharded.update, sharded.trace):
            with pytest.raises(BackendError, match="computes in NumPy"):
                call(mine, state, mine)
        state = sharded.step(mine, moved(layout.pieces(grads, comm.rank)), state)
        return str(error.value), before, fetched(mine, np.float32), on_host(state)

    found = ranks.results(2, work)
    assert {message for message, *_ in found} == {str(alone.value)}
    for rank, (_, before, *_) in enumerate(found):
        for leaf, a in layout.pieces(params, rank).items():
            assert own.bits(a) == own.bits(before[leaf])
    wanted = layouts.alone(ours, params, [grads])
    assert layouts.differing(layout, [each[2:] for each in found], *wanted) == []


def test_a_device_that_fails_while_it_reduces_is_an_error_on_every_rank(monkeypatch):
    _, opt = optimizers(eta=0.6)
    layout, params = layout_of(2, ("outer",)), numbers(12, names=("outer",))
    failing = []

    def fails(self, stream):
        if threading.current_thread() in failing:
            raise BackendError("a step failed on the device: it is gone")
        right_fetch(self, stream)

    monkeypatch.setattr(HostSums, "fetch", fails)

    def work(comm):
        sharded, mine = Sharded(opt, layout, comm), moved(layout.pieces(params, comm.rank))
        state, before = sharded.init(mine), fetched(mine, np.float32)
        failing.extend([threading.current_thread()] * (comm.rank == 1))
        with pytest.raises(BackendError) as error:
            sharded.step(mine, moved(layout.pieces(params, comm.rank)), state)
        assert own.bits(fetched(mine, np.float32)["outer"]) == own.bits(before["outer"])
        return str(error.value)

    assert ranks.results(2, work) == ["rank 1: a step failed on the device: it is gone"] * 2


def test_another_backend_on_one_rank_is_named():
    host, device = optimizers(eta=0.6)
    layout = layout_of(2, SMALL)
    found = ranks.run(2, lambda comm: Sharded([host, device][comm.rank], layout, comm))
    assert {type(error) for error in found} == {RankError}
    assert "backend" in str(found[0])


def test_a_run_is_saved_loaded_and_goes_on(tmp_path):
    names = (*SMALL, "scalar")
    rules = {name: "element" if name == "element" else KINDS[name][1] for name in names}
    options = dict(eta={"outer": "init", ".*": 0.6}, momentum=0.5, slot_shape=rules)
    ours, theirs = (amos_ref.Amos(0.1, **options, backend=backend) for backend in ("numpy", "cuda"))
    layout, params, grads = layout_of(3, names), numbers(13, names=names), numbers(14, names=names)
    path = tmp_path / "run"

    def work(comm):
        sharded, mine = Sharded(theirs, layout, comm), moved(layout.pieces(params, comm.rank))
        here = moved(layout.pieces(grads, comm.rank))
        sharded.save(path, mine, sharded.step(mine, here, sharded.init(mine)))
        loaded, state, opt = load(path, layout, comm)
        assert opt.options["backend"] == "cuda"
        mine = moved(loaded)
        parts = {part: moved(a) for part, a in zip(state._fields, state, strict=True) if isinstance(a, dict)}
        state = Sharded(opt, layout, comm).step(mine, here, state._replace(**parts))
        return fetched(mine, np.float32), on_host(state)

    found = ranks.results(3, work)
    wanted = layouts.alone(ours, params, [grads, grads])
    assert layouts.differing(layout, found, *wanted) == []
    whole = amos_ref.load(path, like=params, backend="numpy")
    once = layouts.alone(ours, params, [grads])[0]
    assert all(own.bits(whole.params[name]) == own.bits(a) for name, a in once.items())
