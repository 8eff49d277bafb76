"""Directions that are made of gradients: clipped before, refused where they would hide what is not finite."""

import itertools
import json

import numpy as np
import pytest
from helpers import strategies as own
from helpers.optimizers import BACKENDS

import amos_ref
from amos_ref import ClosedFormAmos, errors
from amos_ref.optimizers.directions import Adam, Sign

backends = pytest.mark.parametrize("backend", BACKENDS)


def test_signs_are_numpys():
    g = np.array([0.0, -0.0, 5e-324, -5e-324, 3.0, -1e300])
    (u,) = Sign.direct(g)
    assert u.tobytes() == np.sign(g).tobytes()
    assert [Sign.direct(x)[0] for x in g.tolist()] == u.tolist()


def test_of_zeros_every_direction_is_0():
    for aims in (Sign(), Adam.after(3, 0.7, 0.8, 0.125)):
        assert aims.direct(0.0, *[0.0] * aims.moments, *aims)[0] == 0.0


@pytest.mark.parametrize("q1", [1.0, 1.0 - 2.0**-53, 0.1, 2.0**-53])
def test_adams_direction_for_loops_has_the_bits_of_the_page(q1):
    def divide_carelessly(g, m, v, *numbers):
        return Adam.direct_in_loops(g, m, v, *numbers[:3], 1.0 if q1 > 0.9 else q1, numbers[4])

    cases = np.random.default_rng(3).standard_normal((200, 3)) ** [[1, 1, 2]]
    cases = [tuple(case) for case in [*cases, (0.0, -0.0, 0.0), (0.0, 5e-324, 5e-324), (-1e-300, 0.0, 0.0)]]
    numbers = 0.7, 0.999, 1e-8, q1, 0.4
    ref = own.bits(np.array([Adam.direct(*case, *numbers) for case in cases]))
    assert own.bits(np.array([Adam.direct_in_loops(*case, *numbers) for case in cases])) == ref
    careless = own.bits(np.array([divide_carelessly(*case, *numbers) for case in cases]))
    assert (careless != ref) == (0.9 < q1 < 1.0)


def squares_are_finite(g, m, v, aims):
    """By the page, without a look ahead."""
    with np.errstate(all="ignore"):
        u = aims.direct(*np.float64((g, m, v)), *aims)[0]
        return bool(np.isfinite(u * u) & np.isfinite(np.float64(g) * g))


HUGE = [0.0, 1e-300, 0.3, -2.0, 1e100, 2.0**499, 1e153, -1e154, 1.4e154, 1e200, 1.7e308, np.inf, np.nan]


@pytest.mark.parametrize("epsilon", [1e-8, 0.125, 0.0, 1e-200, 1e100])
def test_no_square_overflows_where_it_is_seen_at_once_that_none_can(epsilon):
    seen = set()
    for n in (1, 3, 10**6):
        aims = Adam.after(n, 0.7, 0.999, epsilon)
        for case in itertools.product(HUGE, HUGE, [*HUGE, 1.7e308, -1e-300]):
            with np.errstate(all="ignore"):
                bounded = bool(Adam.is_bounded(*case, *aims))
            seen.add((bounded, squares_are_finite(*case, aims)))
    assert (True, False) not in seen
    assert seen >= {(False, False), (False, True)}  # what is not seen at once is computed
    assert ((True, True) in seen) == (epsilon > 0)
    assert Adam.is_bounded(0.3, -2.0, 0.5, *Adam.after(3, 0.9, 0.999, 1e-8))


@pytest.mark.parametrize("n", [12, 8192 + 5])
@pytest.mark.parametrize(
    ("g", "m", "v", "epsilon"),
    [
        (0.5, 1e150, 0.2, 1e-8),
        (0.5, 1e160, 0.2, 1e-8),
        (0.5, 1e-3, 0.0, 1e-300),
        (1e154, 0.5, 0.2, 1e-8),
        (0.5, 1e140, 1e-300, 1e-8),
    ],
)
def test_entries_that_are_computed_in_the_first_pass_are_stepped_like_others(n, g, m, v, epsilon):
    made = []
    for backend in ("numpy", "cpu"):
        opt = ClosedFormAmos(
            0.3, half_life=7, sigma=0.7, slot_shape="element", direction="adam", adam_epsilon=epsilon, backend=backend
        )
        params = {"w": np.linspace(-1.0, 1.0, n)}
        state = opt.init(params)
        state.m["w"][-2], state.v["w"][-2] = m, v
        grads = {"w": np.linspace(0.5, 1.0, n)}
        grads["w"][-2] = g
        try:
            state = opt.step(params, grads, state)
            made.append([own.bits(a) for a in (params["w"], state.m["w"], state.v["w"])])
        except errors.NonFiniteError as error:
            made.append([str(error), own.bits(params["w"]), own.bits(state.m["w"]), own.bits(state.v["w"])])
    assert made[0] == made[1]


# clipping


def clipped(backend, direction, clip_value, seed=0):
    """Parameters and moments after three steps with gradients beyond 1 and, in one entry, infinite."""
    rng, params = np.random.default_rng(seed), {"a": np.ones((4, 3), np.float32), "b": np.full(5, 2.0)}
    options = dict(half_life=7, sigma=0.7, slot_shape={"a": (1, 3), "b": "element"}, direction=direction)
    opt = ClosedFormAmos(0.3, **options, clip_value=clip_value, backend=backend)
    state = opt.init(params)
    for _ in range(3):
        grads = {name: 3 * rng.standard_normal(a.shape).astype(a.dtype) for name, a in params.items()}
        grads["a"][1, 2] = np.inf if clip_value else 3.0
        state = opt.step(params, grads, state)
    return [own.bits(a) for part in (params, state.m, state.v) if part for a in part.values()]


@pytest.mark.parametrize("direction", ["gradient", "sign", "adam", lambda name, g, t: g - 0.25])
def test_gradients_are_clipped_before_directions_are_made_of_them(direction, monkeypatch):
    first = clipped("numpy", direction, 0.75)
    assert clipped("cpu", direction, 0.75) == first
    assert clipped("numpy", direction, None) == clipped("cpu", direction, None)
    if direction != "sign":  # signs do not know how large an entry was
        assert first != clipped("numpy", direction, None)
    # To clip the direction instead would be seen: of a gradient alone they are the same.
    if direction == "adam":
        right = ClosedFormAmos._rates
        monkeypatch.setattr(ClosedFormAmos, "_rates", lambda opt, count: right(opt, count)._replace(clip_value=None))
        with pytest.raises(errors.NonFiniteError):
            clipped("numpy", direction, 0.75)


def test_a_trace_shows_the_clipped_gradient():
    params, g = np.array([1.0, -2.0]), np.array([5.0, 0.25])
    for direction in ("gradient", "adam", lambda name, g, t: -g):
        opt = ClosedFormAmos(half_life=5, direction=direction, clip_value=0.5)
        trace = opt.trace(g, opt.init(params), params)
        assert trace[""]["g"].tolist() == [0.5, 0.25]
        assert "g = clip(gradient, -chi, chi)" in str(trace)
        assert "clip_value=0.5" in str(trace) or callable(direction)


def test_files_written_before_there_was_clipping_load(tmp_path, monkeypatch):
    from amos_ref.storage import container

    right = container.write

    def without(path, arrays, texts):
        options = json.loads(texts["options"])
        assert options.pop("clip_value") == 0.5
        right(path, arrays, texts | {"options": json.dumps(options)})

    opt, params = ClosedFormAmos(half_life=9, clip_value=0.5), {"a": np.array([1.0, -2.0])}
    amos_ref.save(tmp_path / "new", params, opt.init(params), opt)
    assert amos_ref.load(tmp_path / "new", like={"a": np.array([1.0, -2.0])})[-1].clip_value == 0.5
    monkeypatch.setattr(container, "write", without)
    amos_ref.save(tmp_path / "old", params, opt.init(params), opt)
    assert amos_ref.load(tmp_path / "old", like={"a": np.array([1.0, -2.0])})[-1].clip_value is None


# gradients that are not finite, whose directions may not show it


@backends
@pytest.mark.parametrize("slot", ["tensor", "element", "(1, SHAPE[1])", "(SHAPE[0], 1)"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("direction", ["gradient", "sign", "adam"])
def test_the_last_entry_of_the_last_leaf_leaves_everything_as_it_was(direction, value, slot, backend):
    rng = np.random.default_rng(3)
    params = {name: rng.standard_normal((3, 4)) for name in "ab"}
    opt = ClosedFormAmos(0.3, half_life=7, slot_shape=slot, direction=direction, backend=backend)
    state = opt.step(params, {name: rng.standard_normal((3, 4)) for name in "ab"}, opt.init(params))
    before = [own.bits(a) for part in (params, state.m, state.v) if part for a in part.values()]
    grads = {name: rng.standard_normal((3, 4)) for name in "ab"}
    grads["b"][2, 3] = value
    for _ in range(2):  # laid out, and from the layout that was kept
        with pytest.raises(errors.NonFiniteError, match=r"gradient of leaf 'b'\[2, 3\] is"):
            opt.step(params, grads, state)
        assert [own.bits(a) for part in (params, state.m, state.v) if part for a in part.values()] == before
    grads["b"][2, 3] = 1.0
    opt.step(params, grads, state)
    assert own.bits(params["a"]) != before[0]


@backends
def test_a_direction_that_is_not_finite_though_its_gradient_is(backend):
    params = {"a": np.ones(3), "b": np.ones(3)}
    opt = ClosedFormAmos(0.3, half_life=7, direction="adam", backend=backend)
    state = opt.init(params)
    state.m["b"][1] = np.nan
    with pytest.raises(errors.NonFiniteError, match=r"^direction of leaf 'b'\[1\] is nan"):
        opt.step(params, {"a": np.ones(3), "b": np.ones(3)}, state)
    state.m["b"][1] = 1e160
    with pytest.raises(
        errors.NonFiniteError, match=r"^direction of leaf 'b'\[1\] is 9.0*2e\+168, whose square overflows"
    ):
        opt.step(params, {"a": np.ones(3), "b": np.zeros(3)}, state)
    assert params["a"].tolist() == [1.0, 1.0, 1.0]
