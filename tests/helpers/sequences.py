"""The life of one optimizer, move after move, beside a new one on the page that has seen nothing before.

Each move is a legal thing to do between two steps, or a mistake. After it the optimizer steps, and so does a fresh one
with backend "numpy" on copies of all that the step was given: the same bits, or the same error with nothing changed.
"""

import copy
import math
import pathlib
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

import amos_ref
from amos_ref.errors import AmosError, OverlapError
from helpers import strategies as own

# Rows (twice: only leaves of one shape can be taken for each other), one number, elements, columns, and reduced axes
# before the innermost ones, of which one leaf is empty.
SHAPES = {"a": (3, 4), "b/c": (), "b/d": (130,), "b/e": (0, 3, 3), "f": (5, 2), "g": (2, 3, 2), "h": (3, 4)}
SLOTS = {"a": (3, 1), "b/c": (), "b/e": (1, 3, 1), "f": (1, 2), "g": (1, 3, 1), "h": (3, 1)}
FOUR = ("a", "b/d", "b/e", "h")


def slot_of(name, shape):
    """The slot of a leaf, as a rule: a fresh optimizer asks it at each move, and regular expressions take longer."""
    return SLOTS.get(name, shape)


MEMBERS: dict[str, Callable[..., Any]] = {
    "amos": lambda backend: amos_ref.Amos(
        lambda t: 0.5 / (t % 7 + 1), eta=0.3, slot_shape=slot_of, beta=0.75, extra_l2=0.05, backend=backend
    ),
    "amos with momentum": lambda backend: amos_ref.Amos(
        0.1, eta=0.3, slot_shape=slot_of, beta=0.75, momentum=0.9, clip_value=1.5, state_dtype="param", backend=backend
    ),
    "closed form": lambda backend: amos_ref.ClosedFormAmos(
        0.25, half_life=3, q=1.5, sigma={"a": 0.7, ".*": "init"}, slot_shape=slot_of, backend=backend
    ),
    "closed form, sign": lambda backend: amos_ref.ClosedFormAmos(
        0.25, half_life=3, q=1.5, direction="sign", sigma=0.7, slot_shape=slot_of, backend=backend
    ),
    "closed form, adam": lambda backend: amos_ref.ClosedFormAmos(
        0.25, half_life=3, q=1.5, direction="adam", sigma=0.7, slot_shape=slot_of, clip_value=1.5, backend=backend
    ),
}


def parts(state):
    """The arrays of a state by part and leaf."""
    named = {part: getattr(state, part) for part in state._fields[1:]}
    return {f"{part} of {name}": a for part, arrays in named.items() for name, a in (arrays or {}).items()}


class Life:
    """An optimizer with parameters and a state, and the moves between its steps.

    Parameters
    ----------
    member : str
        Of MEMBERS.
    backend : str
    names : tuple of str
        The leaves of its tree.
    place, back, fill : callable
        How an array comes to where the backend wants it, a copy of it back to NumPy, and other numbers into it.
    """

    def __init__(self, member, backend, names=tuple(SHAPES), place=lambda a: a, back=np.copy, fill=np.copyto):
        self.make, self.backend, self.names = MEMBERS[member], backend, names
        self.place, self.back, self.fill = place, back, fill
        self.opt, self.moves = self.make(backend), 0
        self.rng = np.random.default_rng(1)
        self.start(dict.fromkeys(names, "f4"), {name: SHAPES[name] for name in names})

    def start(self, dtypes, shapes):
        """Begin anew with parameters of these dtypes and shapes."""
        drawn = {name: self.rng.standard_normal(shapes[name]).astype(dtypes[name]) for name in self.names}
        self.params = {name: self.place(np.asarray(a)) for name, a in drawn.items()}
        self.shapes, self.dtypes = dict(shapes), dict(dtypes)
        self.state = self.opt.init(self.tree(self.params))
        self.grads: dict[str, Any] = dict.fromkeys(self.names)
        self.used = None  # the state that the last step was taken of

    def tree(self, leaves):
        """A nested tree of named leaves."""
        found: dict[str, Any] = {}
        for name, leaf in leaves.items():
            *path, last = name.split("/")
            place = found
            for key in path:
                place = place.setdefault(key, {})
            place[last] = leaf
        return found

    def host(self):
        """Copies of parameters, gradients and state in NumPy."""
        copied: list[Any] = [{k: self.back(a) for k, a in self.params.items()}]
        copied.append({k: None if g is None else self.back(g) for k, g in self.grads.items()})
        state = self.state
        found = {}
        for part in state._fields[1:]:
            arrays = getattr(state, part)
            found[part] = None if arrays is None else {k: self.back(a) for k, a in arrays.items()}
        return (*copied, state._replace(**found))

    def compare(self, bound=None):
        """Step, perhaps by a bound step, and hold the answer against the page's."""
        self.moves += 1
        params, grads, state = self.host()
        before = [own.bits(a) for a in (*params.values(), *parts(state).values())]
        wanted = outcome(self.make("numpy"), self.tree(params), self.tree(grads), state)
        if bound is None:
            got = outcome(self.opt, self.tree(self.params), self.tree(self.grads), self.state)
        else:
            got = outcome(bound, state=self.state)
        assert got[1] == wanted[1], f"{got[1]} but should be {wanted[1]}"
        if got[1] is None:
            self.used = self.state
            self.state, state = got[0], wanted[0]
        after, _, now = self.host()
        assert now.count == state.count
        for what, a in (params | parts(state)).items():
            found = (after | parts(now))[what]
            assert own.bits(found) == own.bits(a), f"{what} is {found}, but should be {a}"
        if got[1] is not None:
            assert [own.bits(a) for a in (*after.values(), *parts(now).values())] == before

    def pick(self, choices):
        return choices[int(self.rng.integers(len(choices)))]

    # gradients

    def numbers(self, name):
        g = self.rng.standard_normal(self.shapes[name]) * math.ldexp(1.0, int(self.rng.integers(-3, 4)))
        return np.asarray(g).astype(self.dtypes[name])

    def drawn(self, name):
        return self.place(self.numbers(name))

    def gradients(self, skipped=(), how="new"):
        """Draw gradients for all leaves but the skipped: in new arrays, or where the old ones were freed."""
        if how == "freed":
            old = [name for name in self.names if self.grads[name] is not None]
            self.grads = dict.fromkeys(self.names)
            order = self.rng.permutation(old).tolist() + [name for name in self.names if name not in old]
        else:
            order = list(self.names)
        new = {name: None if name in skipped else self.drawn(name) for name in order}
        self.grads = {name: new[name] for name in self.names}
        self.compare()

    def same_gradients(self):
        self.compare()

    def skip_at_random(self):
        how = self.pick(["new", "freed"])
        self.gradients({name for name in self.names if self.rng.random() < 0.4}, how)

    def one_more_or_less(self):
        """Give one leaf a gradient, or take it; the other arrays stay."""
        name = self.pick(self.names)
        self.grads[name] = self.drawn(name) if self.grads[name] is None else None
        self.compare()

    def numbers_for_arrays(self):
        """NumPy's numbers as gradients of leaves without axes."""
        for name in self.names:
            if self.shapes[name] == ():
                self.grads[name] = self.place(np.asarray(self.drawn(name)))[()]
        self.compare()

    def bound(self):
        """Some steps that are bound to the arrays, with other gradients where the last ones lie."""
        with self.opt.bind(self.tree(self.params), self.tree(self.grads), self.state) as step:
            for wrong in (None, None, self.pick([None, np.nan, np.inf]), None):
                for name, g in self.grads.items():
                    if g is not None and not isinstance(g, np.floating):
                        numbers = self.numbers(name)
                        if wrong is not None:
                            numbers.reshape(-1)[-1:] = wrong
                        self.fill(g, numbers)
                self.compare(step)

    # parameters and state

    def copies(self):
        self.params = {name: self.place(self.back(a)) for name, a in self.params.items()}
        self.compare()

    def copied_state(self):
        self.state = copy.deepcopy(self.state) if self.rng.random() < 0.5 else pickle.loads(pickle.dumps(self.state))
        self.compare()

    def other_state(self):
        """Another state at the same count: of the same parameters, stepped elsewhere."""
        params, _, state = self.host()
        other = self.make("numpy")
        for _ in range(2):
            state = other.step(self.tree(params), self.tree({k: np.ones_like(a) for k, a in params.items()}), state)
        for part in state._fields[1:]:
            for name, a in (getattr(state, part) or {}).items():
                np.copyto(getattr(self.state, part)[name], a)
        self.compare()

    def later(self):
        self.state = self.state._replace(count=int(self.rng.integers(0, 2**40)))
        self.compare()

    def saved_and_loaded(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "state.safetensors")
            amos_ref.save_state(path, self.state)
            self.state = amos_ref.load_state(path, like=self.tree(self.params))
        self.compare()

    def laid_out(self):
        name = self.pick(self.names)
        self.params[name] = own.laid_out(self.params[name], self.pick(own.LAYOUTS))
        if self.grads[name] is not None:
            self.grads[name] = own.laid_out(np.asarray(self.grads[name]), self.pick(own.LAYOUTS))
        self.compare()

    def other_dtype(self):
        self.start({name: self.pick(["f4", "f8"]) for name in self.names}, self.shapes)
        self.gradients()

    def resized(self):
        self.start(self.dtypes, {**self.shapes, "b/d": (int(self.rng.integers(0, 200)),)})
        self.gradients()

    # the optimizer

    def other_tree(self):
        """The same optimizer steps other parameters in between."""
        one, state = {"a": np.ones((3, 4), "f4")}, None
        state = self.opt.init(one)
        self.opt.step(one, {"a": np.ones((3, 4), "f4")}, state)
        self.compare()

    def copied_optimizer(self):
        self.opt = copy.copy(self.opt)
        self.compare()

    def threads(self):
        numba.set_num_threads(int(self.rng.integers(1, 5)))
        self.compare()

    # mistakes

    def forgotten_state(self):
        """Step with the state before the last step, or with one that shares its arrays."""
        if self.used is None:
            return
        used = self.pick([self.used, copy.copy(self.used), self.used._replace(count=3)])
        before = [[own.bits(self.back(a)) for a in (*self.params.values(), *parts(self.state).values())]]
        got = outcome(self.opt, self.tree(self.params), self.tree(self.grads), used)[1]
        before.append([own.bits(self.back(a)) for a in (*self.params.values(), *parts(self.state).values())])
        assert str(got).startswith("StateError: this state was stepped in place at step "), got
        assert before[0] == before[1]
        self.compare()

    def wrong_gradient(self, change):
        """Step with one gradient that is refused, then with the right one."""
        there = [name for name in self.names if self.grads[name] is not None and math.prod(self.shapes[name])]
        if not there:
            return
        name = self.pick(there)
        right, self.grads[name] = self.grads[name], change(name, self.grads[name])
        self.compare()
        self.grads[name] = right
        self.compare()

    def not_finite(self):
        def change(name, g):
            wrong = np.array(g)
            wrong.reshape(-1)[-1] = self.pick([np.nan, np.inf])
            return wrong

        # Infinity is no mistake where gradients are clipped.
        self.wrong_gradient(change)

    def wrong_shape(self):
        self.wrong_gradient(lambda name, g: np.zeros((*self.shapes[name], 2), "f4"))

    def wrong_dtype(self):
        self.wrong_gradient(lambda name, g: np.zeros(self.shapes[name], np.int32))

    def read_only(self):
        name = self.pick(self.names)
        a = self.params[name]
        a.flags.writeable = False
        got = outcome(self.opt, self.tree(self.params), self.tree(self.grads), self.state)
        if self.grads[name] is None:
            assert got[1] is None
            self.state = got[0]
        else:
            words = f"ReadOnlyError: parameter of leaf {name!r} is read-only, and a step writes to it"
            assert got[1].startswith(words)
        a.flags.writeable = True
        self.compare()

    def overlap(self):
        def change(name, g):
            return self.params[name]

        there = [name for name in self.names if self.grads[name] is not None and math.prod(self.shapes[name])]
        if not there:
            return
        name = self.pick(there)
        right, self.grads[name] = self.grads[name], change(name, None)
        before = [own.bits(a) for a in self.params.values()]
        assert outcome(self.opt, self.tree(self.params), self.tree(self.grads), self.state)[1] is OverlapError
        assert [own.bits(a) for a in self.params.values()] == before
        self.grads[name] = right
        self.compare()


def outcome(step, *args, state=None):
    """``(new state, None)``, or the old one and what was raised; of several overlaps any may be named."""
    if args:
        state, step = args[-1], step.step
    try:
        return step(*args), None
    except OverlapError:
        return state, OverlapError
    except AmosError as error:
        return state, f"{type(error).__name__}: {error}"


#: Moves on any device; and those for which arrays must lie in NumPy's memory.
ANYWHERE = (
    *("skip_at_random", "one_more_or_less", "same_gradients", "gradients", "later", "copies", "bound"),
    "forgotten_state",
)
ONLY_HERE = (
    "numbers_for_arrays copied_state other_state saved_and_loaded laid_out other_dtype resized other_tree "
    "copied_optimizer threads not_finite wrong_shape wrong_dtype read_only overlap"
).split()


def burst(life, seed, count, moves):
    """Make so many moves, drawn with this seed; steps with other gradients are half of them."""
    life.rng = np.random.default_rng(seed)
    for _ in range(count):
        getattr(life, "skip_at_random" if life.rng.random() < 0.5 else life.pick(moves))()


def transitions(life):
    """Every pattern of gradients that are missing after every other one."""
    names = life.names
    patterns = [{name for k, name in enumerate(names) if bits >> k & 1} for bits in range(2 ** len(names))]
    for first in patterns:
        for second in patterns:
            life.gradients(first)
            life.gradients(second, "freed")
