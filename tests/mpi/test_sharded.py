"""Steps over ranks have the bits of one process: random trees, layouts, options, and ways to get it wrong."""

import numpy as np
import pytest
from helpers import layouts, ranks
from helpers.layouts import KINDS, alone, differing, layout_of, slot_of, together, tree_of

import amos_ref
from amos_ref import spec
from amos_ref.adamw import AdamW
from amos_ref.errors import AmosError, HyperParameterError, LayoutError, MissingDependencyError, RankError
from amos_ref.kernels import shared, way
from amos_ref.kernels.table import INNER, SUMS, N
from amos_ref.mpi import Layout, Sharded
from amos_ref.mpi import ranks as real

AMOS = dict(
    learning_rate=lambda t: 0.2 / t,
    eta={"vector": 0.5, "columns": "init", ".*": 0.7},
    slot_shape=slot_of,
    beta=0.75,
    extra_l2=0.01,
    c_coef=0.3,
    d_coef=0.4,
)
CLOSED = dict(
    alpha_0=0.2, half_life=3.0, q=0.75, sigma="init", slot_shape=slot_of, beta1=0.7, beta2=0.8, adam_epsilon=0.125
)


def half_of(name, g, t):
    """A direction of the caller's own, entry by entry."""
    return 0.5 * g + t


#: Options, and the dtypes of parameters and gradients.
RUNS = {
    "float64": (amos_ref.Amos, AMOS, "float64", "float64"),
    "float32, averaged and clipped": (
        amos_ref.Amos,
        {**AMOS, "momentum": 0.6, "clip_value": 2.5},
        "float32",
        "float32",
    ),
    "float16, state like parameters, groups": (
        amos_ref.Amos,
        {
            **AMOS,
            "momentum": 0.9,
            "state_dtype": "param",
            "extra_l2": {"rows": 0.05, ".*": 0.01},
            "lr_factor": {"mixed": 0.5},
            "frozen": {"outer": True},
        },
        "float16",
        "float16",
    ),
    "bfloat16": (amos_ref.Amos, {**AMOS, "state_dtype": "param"}, "bfloat16", "bfloat16"),
    "closed form": (amos_ref.ClosedFormAmos, CLOSED, "float64", "float64"),
    "closed form, adam": (
        amos_ref.ClosedFormAmos,
        {**CLOSED, "direction": "adam", "clip_value": 2.0},
        "float32",
        "float64",
    ),
    "closed form, sign": (amos_ref.ClosedFormAmos, {**CLOSED, "direction": "sign"}, "float32", "float32"),
    "closed form, a callable": (
        amos_ref.ClosedFormAmos,
        {**CLOSED, "direction": half_of, "lr_factor": {"mixed": 0.5}},
        "float64",
        "float64",
    ),
}


def make(run, backend):
    kind, options, *dtypes = RUNS[run]
    return kind(**options, backend=backend), dtypes


def steps_of(rng, dtype, count=3):
    """Gradients, of which some are None."""
    steps = [tree_of(rng, KINDS, dtype) for _ in range(count)]
    for grads in steps[1:]:
        grads[list(KINDS)[rng.integers(len(KINDS))]] = None
    return steps


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("run", RUNS)
def test_the_bits_are_those_of_one_process(run, backend):
    opt, (dtype, of_gradients) = make(run, backend)
    rng = np.random.default_rng([*map(ord, run)])
    params, steps = tree_of(rng, KINDS, dtype), steps_of(rng, of_gradients)
    wanted = alone(opt, params, steps)
    for size in range(1, 7):
        layout = layout_of(rng, size)
        found = together(opt, layout, params, steps)
        assert differing(layout, found, *wanted) == [], layout.to_json()


def random_run(rng, names):
    """An optimizer with random options, and dtypes of parameters and gradients."""

    def pick(*values):
        return values[rng.integers(len(values))]

    def rules(one, other):
        return pick(one, {names[0]: one, ".*": other})

    groups = dict(lr_factor=rules(1.0, 0.5), frozen=pick(False, {names[0]: True, ".*": False}))
    groups |= dict(slot_shape=slot_of, clip_value=pick(None, 2.5), backend=pick(*["numpy"] * 5, "cpu"))
    dtype = pick("float16", "bfloat16", "float32", "float64")
    dtypes = dtype, pick(dtype, "float16", "bfloat16", "float32", "float64")
    if rng.random() < 0.5:
        eta = pick(0.5, "init", {names[0]: "init", ".*": 0.7}, lambda name, shape: 0.3)
        own = dict(momentum=pick(None, 0.6), extra_l2=rules(0.01, 0.05), state_dtype=pick("float64", "param"))
        rate = pick(0.1, lambda t: 0.2 / t)
        return amos_ref.Amos(rate, eta=eta, beta=pick(0.75, 0.999), **own, **groups), dtypes
    decay, direction = pick("inverse-time", "inverse-square", "recurrence"), pick("gradient", "adam", "sign", half_of)
    sigma = pick("init", 0.4, {names[0]: "init", ".*": 0.7})
    return amos_ref.ClosedFormAmos(0.2, half_life=3, decay=decay, direction=direction, sigma=sigma, **groups), dtypes


@pytest.mark.filterwarnings("ignore::amos_ref.optimizers.state.SigmaWarning")
@pytest.mark.parametrize("seed", range(24))
def test_random_trees_and_options_over_one_to_six_ranks(seed, monkeypatch):
    """Also where one process raises, which every rank does with the same words."""
    rng = np.random.default_rng(seed)
    names = [f"leaf {k}" for k in range(rng.integers(1, 6))]
    monkeypatch.setattr(layouts, "KINDS", layouts.random_kinds(rng, len(names)))
    opt, (dtype, of_gradients) = random_run(rng, names)
    params, steps = tree_of(rng, names, dtype), [tree_of(rng, names, of_gradients) for _ in range(3)]
    for grads in steps[1:]:
        grads |= {name: None for name in names if rng.random() < 0.15}
    size, shapes = 1 + seed % 6, {name: shape for name, (shape, _) in layouts.KINDS.items()}
    layout = Layout.even(shapes, size, opt, "each") if seed % 3 else layout_of(rng, size, names)
    (wanted,) = ranks.run(1, lambda comm: alone(opt, params, steps))
    if isinstance(wanted, AmosError):
        found = ranks.run(size, lambda comm: stepped(opt, layout, params, steps, comm))
        assert {(type(each), str(each)) for each in found} == {(type(wanted), str(wanted))}
    else:
        found = together(opt, layout, params, steps, update=bool(rng.random() < 0.3))
        assert differing(layout, found, *wanted) == [], layout.to_json()


def stepped(opt, layout, params, steps, comm):
    sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
    state = sharded.init(mine)
    for grads in steps:
        state = sharded.step(mine, layout.pieces(grads, comm.rank), state)


def test_ten_million_elements(monkeypatch):
    kinds = {"vector": ((10**7,), ()), "columns": ((10_000, 1000), (1, 1000))}
    monkeypatch.setattr(layouts, "KINDS", kinds)
    opt = amos_ref.Amos(0.1, eta=0.5, slot_shape=slot_of)
    rng = np.random.default_rng(0)
    params, grads = ({name: rng.standard_normal(s, np.float32) for name, (s, _) in kinds.items()} for _ in range(2))
    units = {"vector": (8192, 1221), "columns": (64, 157)}
    cuts = {
        name: (0, tuple(min(k * count // 4 * unit, kinds[name][0][0]) for k in range(4)) + kinds[name][0][:1])
        for name, (unit, count) in units.items()
    }
    layout = Layout({name: shape for name, (shape, _) in kinds.items()}, cuts)
    found, wanted = together(opt, layout, params, [grads, grads]), alone(opt, params, [grads, grads])
    assert differing(layout, found, *wanted) == []


@pytest.mark.parametrize("run", ["float32, averaged and clipped", "closed form, adam"])
def test_update_and_trace_have_them_too(run):
    opt, (dtype, of_gradients) = make(run, "cpu")
    rng = np.random.default_rng(5)
    params, steps = tree_of(rng, KINDS, dtype), steps_of(rng, of_gradients)
    layout, wanted = layout_of(rng, 3), alone(opt, params, steps)
    assert differing(layout, together(opt, layout, params, steps, update=True), *wanted) == []
    trace = opt.trace(steps[0], opt.init(params), params)

    def work(comm):
        sharded, mine = Sharded(opt, layout, comm), layout.pieces(params, comm.rank)
        return sharded.trace(layout.pieces(steps[0], comm.rank), sharded.init(mine), mine)

    traces = ranks.results(3, work)
    mean = "g2" if run.startswith("float32") else "u2"
    for name in KINDS:
        here = [each[name] for each in traces if name in each]
        assert sum(each["theta"].size for each in here) == trace[name]["theta"].size
        assert {float(each[mean].max(initial=0.0)) for each in here} <= set(
            map(float, trace[name][mean].reshape(-1))
        ) | {0.0}


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_one_rank_may_have_all_of_an_axis_that_cannot_be_cut(backend, monkeypatch):
    kinds = {"run": ((4, 3, 200, 2), (1, 1, 1, 2)), "row": ((3, 9000), ())}
    monkeypatch.setattr(layouts, "KINDS", kinds)
    opt = amos_ref.Amos(0.1, eta=0.5, slot_shape=slot_of, backend=backend)
    layout = Layout(
        {name: shape for name, (shape, _) in kinds.items()}, {"run": (2, (0, 0, 200)), "row": (1, (0, 9000, 9000))}
    )
    params = tree_of(np.random.default_rng(6), kinds, "float64")
    assert differing(layout, together(opt, layout, params, [params]), *alone(opt, params, [params])) == []


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_groups_of_several_levels(backend, monkeypatch):
    """300,000 indices are groups of 64, of 64^2 and of 64^3, which parts have whole, in part, or not at all."""
    kinds = {
        "outer": ((300_000, 2, 2), (1, 2, 1)),
        "columns": ((300_000, 2), (1, 2)),
        "many": ((80, 2, 700), (1, 2, 1)),
    }
    monkeypatch.setattr(layouts, "KINDS", kinds)
    opt = amos_ref.Amos(0.1, eta=0.5, slot_shape=slot_of, backend=backend)
    params = tree_of(np.random.default_rng(7), kinds, "float32")
    cuts = {"outer": (0, (0, 1, 4097, 270_000, 300_000)), "columns": (0, (0, 0, 64 * 4099, 299_968, 300_000))}
    cuts["many"] = 0, (0, 70, 70, 79, 80)
    layout = Layout({name: shape for name, (shape, _) in kinds.items()}, cuts)
    assert differing(layout, together(opt, layout, params, [params]), *alone(opt, params, [params])) == []


def leave_one_out(self):
    """Of each group without its last member."""
    self.rows[:, N] = np.maximum(self.rows[:, N] - spec.ROWS, spec.ROWS)


def shifted(self):
    """The members of a group one place further on, as if it began there."""
    self.rows[:, SUMS] += self.rows[:, INNER] * (self.rows[:, N] > spec.ROWS)


@pytest.mark.parametrize("wrong", [leave_one_out, shifted])
def test_groups_that_are_combined_wrongly_by_the_kernels_are_caught(wrong, monkeypatch):
    kinds = {"outer": ((130, 2, 3), (1, 2, 1)), "columns": ((9000, 3), (1, 3))}
    monkeypatch.setattr(layouts, "KINDS", kinds)
    opt = amos_ref.Amos(0.1, eta=0.5, slot_shape=slot_of, backend="cpu")
    params = tree_of(np.random.default_rng(8), kinds, "float64")
    cuts = {"outer": (0, (0, 65, 130)), "columns": (0, (0, 4160, 9000))}
    layout = Layout({name: shape for name, (shape, _) in kinds.items()}, cuts)
    right, wanted = way.ColumnSums.__init__, alone(opt, params, [params])
    assert differing(layout, together(opt, layout, params, [params]), *wanted) == []

    def begin(self, rows):
        right(self, rows)
        wrong(self)

    monkeypatch.setattr(way.ColumnSums, "__init__", begin)
    found = differing(layout, together(opt, layout, params, [params]), *wanted)
    assert {"outer", "columns"} <= set(found)


def test_layouts_are_of_all_kinds():
    """What is drawn: cuts of kept and of reduced axes, inside and outside of the innermost run, and empty parts."""
    rng, kinds, empty = np.random.default_rng(0), set(), 0
    for _ in range(20):
        layout = layout_of(rng, 3)
        for name in KINDS:
            piece = layout.piece(name, 0, slot_of(name, None))
            kinds.add(None if piece is None else (piece.shared, piece.run == piece.sums))
            empty += piece is not None and 0 in np.diff(piece.edges)
    assert kinds == {None, (False, False), (True, True), (True, False)}
    assert empty > 10


def one_process(backend="cpu", names=tuple(KINDS), seed=3):
    """What a wrong version is compared with."""
    opt, (dtype, of_gradients) = make("float64", backend)
    rng = np.random.default_rng(seed)
    params = tree_of(rng, names, dtype)
    steps = [tree_of(rng, names, of_gradients) for _ in range(2)]
    return opt, layout_of(rng, 3, names), params, steps, alone(opt, params, steps)


def test_sums_in_the_order_of_the_ranks_are_caught(monkeypatch):
    opt, _, params, steps, wanted = one_process("numpy", ("vector", "columns"))
    layout = Layout(
        {n: KINDS[n][0] for n in params}, {"vector": (0, (0, 8192, 16384, 20001)), "columns": (0, (0, 64, 4160, 9000))}
    )
    assert differing(layout, together(opt, layout, params, steps), *wanted) == []

    def by_rank(sums, piece):
        """Each rank's sums are added up first."""
        slots = sums.reshape(-1, piece.outer * piece.inner)
        parts = [slots[piece.sent(k)].sum(0) for k in range(3)]
        return (parts[0] + (parts[1] + parts[2])).reshape(piece.slot) / piece.share

    monkeypatch.setattr(shared, "mean_of_sums", by_rank)
    assert "columns" in differing(layout, together(opt, layout, params, steps), *wanted)


def test_the_order_of_a_piece_by_its_own_shape_is_caught(monkeypatch):
    """A part that is one column wide would be summed in lanes."""
    opt, _, params, steps, wanted = one_process("numpy", ("columns",))
    layout = Layout({"columns": (9000, 3)}, {"columns": (1, (0, 1, 2, 3))})
    assert differing(layout, together(opt, layout, params, steps), *wanted) == []
    monkeypatch.setattr(shared, "mean_here", lambda u, piece: spec.mean_square(u, piece.slot_here))
    assert "v of columns" in differing(layout, together(opt, layout, params, steps), *wanted)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_a_sum_that_gets_lost_on_the_way_is_caught(backend, monkeypatch):
    opt, _, params, steps, wanted = one_process(backend, ("vector", "mixed"))
    layout = Layout(
        {n: KINDS[n][0] for n in params}, {"vector": (0, (0, 8192, 16384, 20001)), "mixed": (0, (0, 1, 3, 4))}
    )
    assert differing(layout, together(opt, layout, params, steps), *wanted) == []
    gather = real.Ranks.gather

    def drop(self, sent, received, counts):
        gather(self, sent, received, counts)
        received[-1] = 0.0

    monkeypatch.setattr(real.Ranks, "gather", drop)
    assert differing(layout, together(opt, layout, params, steps), *wanted)


def test_what_is_sent():
    """Nothing for kept axes, whole leaves and elements; otherwise what `bytes` says; and one call of each kind."""
    opt, (dtype, of_gradients) = make("float64", "cpu")
    rng = np.random.default_rng(1)
    cuts = dict.fromkeys(KINDS, 1)
    quiet = {
        **cuts,
        "rows": (0, (0, 1, 5)),
        "columns": (1, (0, 2, 3)),
        "element": (1, (0, 4, 9)),
        "outer": (1, (0, 1, 4)),
    }
    params, steps = tree_of(rng, KINDS, dtype), [tree_of(rng, KINDS, of_gradients)]
    shapes = {name: shape for name, (shape, _) in KINDS.items()}
    for found, want in (
        (quiet, [0, 0]),
        (
            {**quiet, "vector": (0, (0, 8192, 20001)), "mixed": (2, (0, 64, 200))},
            [8 + 8 * 4 * 3 * 2, 16 + 8 * 4 * 3 * 2 * 3],
        ),
    ):
        layout = Layout(shapes, found)
        assert [share.payload for share in layout.bytes(opt, dtype)] == want
        comms = [comm for *_, comm in together(opt, layout, params, steps)]
        assert [comm.payload for comm in comms] == want
        for comm in comms:
            assert comm.calls[-2:].count("Iallgatherv") == bool(any(want))
            assert comm.calls[-1 - bool(any(want))] == "Iallreduce"


def test_bytes_are_those_of_the_arrays():
    for run in RUNS:
        opt, (dtype, of_gradients) = make(run, "cpu")
        rng = np.random.default_rng(2)
        layout, params = layout_of(rng, 3), tree_of(rng, KINDS, dtype)
        found = together(opt, layout, params, [tree_of(rng, KINDS, of_gradients)])
        for (mine, state, _), share in zip(found, layout.bytes(opt, dtype), strict=True):
            arrays = [a for part in state[1:] if part is not None for a in part.values()]
            assert share.parameters == sum(a.nbytes for a in mine.values() if a is not None)
            assert share.state == sum(a.nbytes for a in arrays)


def test_the_layout_of_a_step_is_kept_and_nothing_grows_with_parameters():
    import tracemalloc

    opt = amos_ref.Amos(slot_shape="tensor", backend="cpu")
    layout = Layout({"w": (2**19,)}, {"w": (0, (0, 2**18, 2**19))})
    params, grads = {"w": np.ones(2**19, "f4")}, {"w": np.full(2**19, 0.5, "f4")}

    def work(comm):
        sharded, mine, g = Sharded(opt, layout, comm), layout.pieces(params, comm.rank), layout.pieces(grads, comm.rank)
        state = sharded.step(mine, g, sharded.init(mine))
        kept = sharded._view._last.peek()
        comm.allgather(None)
        if comm.rank == 0:
            tracemalloc.start()
        for _ in range(3):
            state = sharded.step(mine, g, state)
        comm.allgather(None)
        peak = tracemalloc.get_traced_memory()[1] if comm.rank == 0 else 0
        tracemalloc.stop()
        assert sharded._view._last.peek() is kept
        assert kept is not None
        return peak

    assert ranks.results(2, work)[0] < 200_000  # a part has 1 MB


def test_options_can_be_set():
    opt, layout = (
        amos_ref.Amos(0.5, eta=0.5, slot_shape=slot_of),
        Layout({"rows": (5, 17000)}, {"rows": (0, (0, 2, 5))}),
    )
    rng = np.random.default_rng(4)
    params, grads = tree_of(rng, ["rows"], "float64"), tree_of(rng, ["rows"], "float64")

    def work(comm):
        mine_opt = amos_ref.Amos(0.5, eta=0.5, slot_shape=slot_of)
        sharded, mine = Sharded(mine_opt, layout, comm), layout.pieces(params, comm.rank)
        state = sharded.step(mine, layout.pieces(grads, comm.rank), sharded.init(mine))
        kept = sharded._view._last.peek()
        mine_opt.set_learning_rate(0.25)
        state = sharded.step(mine, layout.pieces(grads, comm.rank), state)
        assert sharded._view._last.peek() is kept  # as schedulers call it before every step
        assert kept is not None
        return mine, state

    found = ranks.results(2, work)
    state = opt.init(params)
    state = opt.step(params, grads, state)
    opt.set_learning_rate(0.25)
    assert differing(layout, found, params, opt.step(params, grads, state)) == []


def test_what_cannot_be_sharded():
    layout = Layout({"w": (128, 3)}, {"w": (0, (0, 64, 128))})
    slots = dict(slot_shape="(1, 3)")

    def errors(opt, layout=layout, size=2, **options):
        found = ranks.run(size, lambda comm: Sharded(opt, layout, comm, **options))
        assert len({(type(error), str(error)) for error in found}) == 1
        return found[0]

    assert isinstance(errors(amos_ref.Amos(**slots), size=3), LayoutError)
    assert isinstance(errors(amos_ref.Amos(slot_shape="tensor")), LayoutError)
    assert isinstance(errors(amos_ref.Amos(**slots), layout="w"), LayoutError)
    assert isinstance(errors(AdamW()), HyperParameterError)
    assert isinstance(errors(amos_ref.Amos(**slots), timeout=0), HyperParameterError)


def test_layouts_and_optimizers_must_be_the_same():
    one, other = (Layout({"w": (192, 3)}, {"w": (0, (0, edge, 192))}) for edge in (64, 128))
    opt = amos_ref.Amos(slot_shape="(1, 3)")
    found = ranks.run(2, lambda comm: Sharded(opt, (one, other)[comm.rank], comm))
    assert [type(error) for error in found] == [LayoutError] * 2
    found = ranks.run(2, lambda comm: Sharded(amos_ref.Amos(slot_shape="(1, 3)", beta=0.5 + comm.rank / 4), one, comm))
    assert [type(error) for error in found] == [RankError] * 2
    assert "0.5" in str(found[0])
    assert "0.75" in str(found[0])


def test_without_mpi4py(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingDependencyError, match="pip install mpi4py mpich"):
        Sharded(amos_ref.Amos(), Layout({"w": (3,)}, {"w": 0}))
