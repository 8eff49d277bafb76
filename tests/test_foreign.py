"""Arrays and containers that are not NumPy's own, as any library may offer them; tests/frameworks has the real ones."""

import collections
import collections.abc
import dataclasses
from typing import Any, NamedTuple

import numpy as np
import optree
import pytest
from helpers import strategies as own
from helpers.messages import one_line

import amos_ref
from amos_ref.errors import DtypeError, ReadOnlyError, TreeError
from amos_ref.foreign import as_array
from amos_ref.optimizers.base import Optimizer


class Shared:
    """An array that is known by DLPack alone."""

    def __init__(self, a):
        self.a = np.array(a)

    def __dlpack__(self, **how):
        return self.a.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


class Viewed:
    """An array that is known by ``__array__`` alone, and gives its own memory."""

    def __init__(self, a):
        self.a = np.array(a)

    def __array__(self, dtype=None, copy=None):
        return self.a


class Copied(Viewed):
    """The same, but each time in new memory."""

    def __array__(self, dtype=None, copy=None):
        return self.a.copy()


class Broken:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no\nnumbers")


class Elsewhere:
    def __dlpack__(self, **how):
        raise AssertionError

    def __dlpack_device__(self):
        return (8, 0)


KINDS = [Shared, Viewed]
SHAPES = {"a": (3, 4), "b": (5,), "c": ()}


def numbers(seed):
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape)).astype("f4") for name, shape in SHAPES.items()}


def optimizer(backend) -> Any:
    return amos_ref.Amos(0.2, slot_shape={"a": (3, 1), ".*": "tensor"}, beta=0.75, momentum=0.6, backend=backend)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", ["numpy", "cpu"])
def test_steps_in_place(kind, backend):
    """The memory of the other library is stepped, whatever comes between: cached layouts beside a fresh optimizer."""
    opt, ours = optimizer(backend), numbers(0)
    theirs = {name: kind(a) for name, a in ours.items()}
    state, other = opt.init(theirs), optimizer("numpy").init(ours)
    for t in range(12):
        given: dict[str, Any] = {name: (kind if t % 3 else np.asarray)(g) for name, g in numbers(t + 1).items()}
        plain: dict[str, Any] = numbers(t + 1)
        if t % 4 == 1:
            given["b"] = plain["b"] = None
        if t % 5 == 4:
            theirs = {name: kind(theirs[name].a) for name in theirs}
        state = opt.step(theirs, given, state)
        other = optimizer("numpy").step(ours, plain, other)
        for name, a in ours.items():
            assert own.bits(theirs[name].a) == own.bits(a)
    assert backend == "numpy" or opt._last.peek() is not None


def test_a_layout_that_looks_at_no_new_memory_is_caught(monkeypatch):
    """A layout that keeps the addresses of the first gradients steps by old numbers."""
    right = Optimizer._aim

    def careless(opt, layout, params, grads, state):
        given, aimed = right(opt, layout, params, grads, state)
        first = layout.__dict__.setdefault("first", given)
        return first, aimed

    monkeypatch.setattr(Optimizer, "_aim", careless)
    with pytest.raises(AssertionError):
        test_steps_in_place(Shared, "cpu")


def test_no_copy_is_stepped_in_place():
    params = {name: Copied(a) for name, a in numbers(0).items()}
    opt = optimizer("cpu")
    with pytest.raises(ReadOnlyError, match="parameter of leaf 'a' is read-only"):
        opt.step(params, numbers(1), opt.init(params))
    updates, _ = opt.update({name: Copied(a) for name, a in numbers(1).items()}, opt.init(params), params)
    new = amos_ref.apply_updates(params, updates)
    plain = amos_ref.apply_updates(numbers(0), opt.update(numbers(1), opt.init(params), numbers(0))[0])
    assert {name: own.bits(a) for name, a in new.items()} == {name: own.bits(a) for name, a in plain.items()}


def test_nothing_is_copied_that_can_be_shared():
    for kind in KINDS:
        a = kind(np.ones(3))
        assert np.shares_memory(as_array(a, ""), a.a)
    a = np.ones(3)
    assert as_array(a, "") is a
    assert as_array(None, "") is None


def test_what_cannot_be_read_is_refused():
    Tracer = type("Tracer", (), {"__module__": "jax._src.core"})
    for wrong, words in (
        (Broken(), "is a Broken that cannot be read as a NumPy array: RuntimeError: no numbers"),
        (Tracer(), "is a JAX tracer, which has no numbers: call the optimizer outside of jit and grad"),
        (type("Net", (), {"named_parameters": None})(), "give dict(module.named_parameters()) of it"),
        (iter([("w", A)]), "; give a dict of what it yields: dict(module.named_parameters())"),
        (Elsewhere(), "is not a NumPy array but Elsewhere"),
        (Shared(np.ones(2, int)), "has dtype int64; it must be one of float16"),
        ("text", "is not a NumPy array but str"),
        (0.5, "is not a NumPy array but float"),
    ):
        for params, where in (({"x": [wrong]}, "params leaf 'x/0'"), ({"x": [np.ones(2)]}, "gradient of leaf 'x/0'")):
            opt = optimizer("cpu")
            with pytest.raises(DtypeError) as caught:
                opt.update({"x": [wrong]}, opt.init(params), params)
            one_line(caught.value, [where, words])


class Pair(NamedTuple):
    w: Any
    b: Any


@dataclasses.dataclass(frozen=True)
class Layer:
    kernel: Any
    inner: Any
    size: int = dataclasses.field(default=3, metadata={"static": True})
    fn: Any = dataclasses.field(default=len, metadata={"pytree_node": False})


class Frozen(collections.abc.Mapping):
    """A mapping that optree does not know, as flax's FrozenDict."""

    def __init__(self, items):
        self._items = dict(items)

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


class Loose(Frozen, collections.abc.MutableMapping):
    """One that shares what it holds with its copies, as flax's State."""

    def __setitem__(self, key, value):
        self._items[key] = value

    def __delitem__(self, key):
        del self._items[key]


class Boxed:
    """A container that optree knows in a namespace only, with keys of its own."""

    def __init__(self, inner, kernel):
        self.inner, self.kernel = inner, kernel


class Keyless(Boxed):
    """One whose children have no names."""


class Twice(Boxed):
    """One that two namespaces know differently."""


for kind, keys, spaces in ((Boxed, (("kernel", "inner"),), "a"), (Keyless, (), "b"), (Twice, (), "ab")):
    for space in spaces:
        optree.register_pytree_node(
            kind,
            lambda box, keys=keys: ((box.kernel, box.inner), None, *keys),
            lambda _, children, kind=kind: kind(*reversed(children)),
            namespace=f"tests of foreign {space}",
        )


A, B, C = np.ones((2, 3)), np.zeros(4), np.array(2.0)
TREES = [
    (Pair(A, [B, None]), ["w", "b/0"]),
    (Layer(A, {"x": B}), ["kernel", "inner/x"]),
    (Frozen({"p": {"kernel": A}, "q": (B,)}), ["p/kernel", "q/0"]),
    (Loose({"p": Loose({"kernel": A}), "q": Pair(B, None)}), ["p/kernel", "q/w"]),
    (
        {"m": Frozen({"x": Layer(A, None)}), "n": [Pair(Layer(B, C), None)]},
        ["m/x/kernel", "n/0/w/kernel", "n/0/w/inner"],
    ),
    (collections.OrderedDict(z=A, a=B), ["z", "a"]),
    (Boxed({"x": Layer(B, None)}, A), ["kernel", "inner/x/kernel"]),
    ({"p": Keyless(None, A), "q": [Boxed(Pair(C, B), None)]}, ["p/0", "q/0/inner/w", "q/0/inner/b"]),
]


@pytest.mark.parametrize(("params", "names"), TREES)
def test_containers_of_other_libraries(params, names):
    opt = amos_ref.Amos(0.2)
    before = [own.bits(a) for a in amos_ref.tree.present(params).values()]
    state = opt.init(params)
    assert list(state.v) == names
    updates, _ = opt.update(params, state, params)
    new = amos_ref.apply_updates(params, updates)
    assert [own.bits(a) for a in amos_ref.tree.present(params).values()] == before
    assert type(new) is type(updates) is type(params)
    named, flat = amos_ref.tree.present(new), dict(amos_ref.tree.present(params))
    expected = amos_ref.apply_updates(flat, opt.update(flat, opt.init(flat), flat)[0])
    assert {name: own.bits(a) for name, a in named.items()} == {name: own.bits(a) for name, a in expected.items()}
    if isinstance(new, Layer):
        assert (new.size, new.fn) == (3, len)


def test_a_container_of_two_namespaces_is_not_guessed():
    with pytest.raises(DtypeError, match="params leaf 'x' is not a NumPy array but Twice"):
        amos_ref.Amos().init({"x": Twice(A, B)})


def test_named_tuples_keep_their_layout():
    params, opt = Pair(np.ones((2, 3)), [np.ones(3)]), amos_ref.Amos(0.2, eta={"w": 0.5, "b": 0.1})
    opt.step(params, Pair(np.ones((2, 3)), [np.ones(3)]), opt.init(params))
    assert opt._last.peek() is not None


def test_containers_within_themselves():
    inner: dict[str, Any] = {}
    inner["x"] = Frozen({"y": inner})
    with pytest.raises(TreeError, match="params: nested too deeply, or within itself"):
        amos_ref.Amos().init(inner)
