"""A run over ranks in one file: other numbers of ranks, one process, and what fails on the way."""

import errno
import os

import numpy as np
import pytest
from helpers import ranks
from helpers.layouts import KINDS, alone, differing, layout_of, slot_of, tree_of

import amos_ref
from amos_ref import errors
from amos_ref.mpi import Layout, Sharded, load, windows
from amos_ref.storage import files

OPTIONS = dict(slot_shape={name: slot for name, (_, slot) in KINDS.items()} | {"element": "element"})
MAKE = {
    "Amos": lambda: amos_ref.Amos(
        0.1, eta={"vector": 0.5, ".*": "init"}, momentum=0.75, state_dtype="param", beta=0.75, **OPTIONS
    ),
    "ClosedFormAmos": lambda: amos_ref.ClosedFormAmos(0.1, half_life=4, direction="adam", **OPTIONS),
}


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    """Several windows for all but the smallest arrays."""
    monkeypatch.setattr(windows, "WINDOW", 8192)


def steps_and_params(count=5, dtype="float32"):
    rng = np.random.default_rng(7)
    return tree_of(rng, KINDS, dtype), [tree_of(rng, KINDS, dtype) for _ in range(count)], rng


def go_on(comm, path, layout, steps, first):
    """Load unless this is the first, step, save."""
    if first is None:
        params, state, opt = load(path, layout, comm)
        sharded = Sharded(opt, layout, comm)
    else:
        opt, full = first
        sharded, params = Sharded(opt, layout, comm), layout.pieces(full, comm.rank)
        state = sharded.init(params)
    for grads in steps:
        state = sharded.step(params, layout.pieces(grads, comm.rank), state)
    sharded.save(path if comm.rank == 0 else "/nowhere", params, state)
    return params, state


@pytest.mark.parametrize("name", MAKE)
def test_other_numbers_of_ranks_go_on_as_if_never_stopped(name, tmp_path):
    params, steps, rng = steps_and_params()
    path, opt = tmp_path / "run", MAKE[name]()
    wanted = alone(opt, params, steps)
    first = opt, params
    for size, part in ((2, steps[:2]), (3, steps[2:3]), (1, steps[3:4]), (4, steps[4:])):
        layout = layout_of(rng, size)
        given = path, layout, part, first
        found = ranks.results(size, lambda comm, given=given: go_on(comm, *given))
        first = None
    assert differing(layout, found, *wanted) == []
    # The file is that of one process, to the byte; and one process reads it.
    amos_ref.save(tmp_path / "alone", *wanted, opt)
    assert path.read_bytes() == (tmp_path / "alone").read_bytes()
    again, state, _ = amos_ref.load(path, like=params)
    for leaf in KINDS:
        assert again[leaf].tobytes() == wanted[0][leaf].tobytes()
    assert state.count == 5


def test_a_file_of_one_process_is_loaded_over_ranks_into_any_tree(tmp_path):
    params, steps, rng = steps_and_params(1)
    opt = MAKE["Amos"]()
    wanted = alone(opt, params, steps)
    amos_ref.save(tmp_path / "alone", *wanted, opt)
    layout = layout_of(rng, 3)
    like = dict.fromkeys(sorted(KINDS))
    found = ranks.results(3, lambda comm: load(tmp_path / "alone", layout, comm, like=like)[:2])
    assert list(found[0][0]) == sorted(KINDS)
    assert differing(layout, found, *wanted) == []


def test_a_callable_is_given_again(tmp_path):
    layout = Layout({"rows": (5, 17000)}, {"rows": (0, (0, 2, 5))})
    params = {"rows": np.ones((5, 17000))}
    opt = amos_ref.Amos(lambda t: 0.1, eta=0.5, slot_shape=slot_of)

    def write(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        sharded.save(tmp_path / "run", mine, sharded.init(mine))

    ranks.results(2, write)
    found = ranks.run(2, lambda comm: load(tmp_path / "run", layout, comm))
    assert [type(error) for error in found] == [errors.HyperParameterError] * 2
    given = dict(learning_rate=lambda t: 0.1, slot_shape=slot_of)
    found = ranks.results(2, lambda comm: load(tmp_path / "run", layout, comm, **given))
    assert found[1].params["rows"].shape == (3, 17000)


class Disk:
    """A disk on which the nth write fails."""

    def __init__(self, monkeypatch, n):
        self.left, self.write = n, files.write
        monkeypatch.setattr(files, "write", self)

    def __call__(self, file, data):
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.write(file, data)


def test_a_full_disk_is_an_error_on_every_rank_and_the_old_file_stays(tmp_path, monkeypatch):
    params, _, rng = steps_and_params(0)
    layout, opt, path = layout_of(rng, 3), MAKE["Amos"](), tmp_path / "run"
    path.write_bytes(b"old")

    def work(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        state = sharded.init(mine)
        try:
            sharded.save(path, mine, state)
        except errors.StorageError as error:
            sharded.step(mine, layout.pieces(params, comm.rank), state)  # the communicator is in order
            return str(error)
        return None

    failed, n = 0, 0
    while True:
        n += 1
        with monkeypatch.context() as patch:
            disk = Disk(patch, n)
            found = ranks.results(3, work)
        if disk.left > 0:
            break
        failed += 1
        assert "No space left" in found[0]
        assert len(set(found)) == 1
        assert [name.name for name in tmp_path.iterdir()] == ["run"]
        assert path.read_bytes() == b"old"
    assert found == [None] * 3
    assert failed >= 3
    assert amos_ref.load(path, like=params).state.count == 0


def test_what_cannot_be_loaded_or_saved(tmp_path):
    params, _, rng = steps_and_params(0)
    layout, opt, path = layout_of(rng, 2), MAKE["Amos"](), tmp_path / "run"
    state = opt.init(params)
    amos_ref.save(path, params, state, opt)

    def errors_of(place, layout=layout, **options):
        found = ranks.run(2, lambda comm: load(place, layout, comm, **options))
        assert len({(type(error), str(error)) for error in found}) == 1
        return found[0]

    assert isinstance(errors_of(tmp_path / "none"), errors.StorageError)
    damaged = tmp_path / "damaged"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    damaged.write_bytes(data)
    assert "damaged" in str(errors_of(damaged))
    amos_ref.save_state(tmp_path / "state", state)
    assert "without parameters" in str(errors_of(tmp_path / "state"))
    assert isinstance(errors_of(path, Layout({"x": (4,)}, {"x": (0, (0, 2, 4))})), errors.StateError)
    assert isinstance(errors_of(path, slot_shape="tensor"), errors.AmosError)

    def wrong(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        begun = sharded.init(mine)
        sharded.save(path, mine, begun if comm.rank == 0 else "state")

    found = ranks.run(2, wrong)
    assert [type(error) for error in found] == [errors.StateError] * 2

    def nowhere(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        sharded.save(tmp_path / "no" / "run", mine, sharded.init(mine))

    found = ranks.run(2, nowhere)
    assert [type(error) for error in found] == [errors.StorageError] * 2
