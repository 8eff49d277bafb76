"""A step in place takes the arrays of a state over: the old state cannot be stepped again by mistake."""

import contextlib
from typing import Any, ClassVar, Self

from amos_ref.errors import StateError

#: What takes a turn, for one step: a list of the step's t, so that it is no other claim.
Claim = list[int]


class Turn(dict[str, Any]):
    """Whether arrays are still what the states say that share them: one for all of these.

    A step in place takes the turn, and gives it back if it has written nothing. It is a dict for the sake of
    `setdefault`, which nothing comes between: the claim that took the turn, and whether its step has happened.
    """

    __slots__ = ()

    def take(self, claim: Claim) -> None:
        """Take the turn, or raise StateError: of two threads one gets it.

        Whatever exception arrives from outside, `give_back` knows afterwards whether it was taken.
        """
        if self.setdefault("claim", claim) is not claim:
            self._refuse()

    def give_back(self, claim: Claim) -> None:
        """Let others step the arrays, which are as they were; nothing if the turn was not taken with this claim."""
        if self.get("claim") is claim:
            del self["claim"]

    def check(self) -> None:
        """Raise StateError if a step has taken the turn."""
        if self:
            self._refuse()

    def _refuse(self) -> None:
        (t,) = self.get("claim", [0])
        if "stepped" in self:
            raise StateError(
                f"this state was stepped in place at step {t}: its arrays belong to the state that step returned; "
                "use that one (after an interrupt, the exception's amos_state), or a copy made before the step"
            )
        raise StateError(
            f"step {t} of this state began to write and did not end: another thread is at it, or an exception "
            "broke it off, and parameters and state may be half stepped; use copies made before the step"
        )


class Steppable:
    """What a kind of state is beside its fields: something whose arrays a step in place takes over.

    A state shares its turn with those that share its arrays: made by ``_replace``, unless that replaces all arrays that
    steps write, and by ``copy.copy``. One that is built from arrays, loaded, unpickled or made by ``copy.deepcopy`` is
    fresh: whoever makes it says what its arrays are.
    """

    _fields: ClassVar[tuple[str, ...]]
    _constants: ClassVar[tuple[str, ...]] = ()  # parts that no step writes

    def _replace(self, **changes: Any) -> Self:
        new = super()._replace(**changes)  # pyright: ignore[reportAttributeAccessIssue]
        parts = [part for part in self._fields[1:] if getattr(self, part) is not None]
        written = [part for part in parts if part not in self._constants] or parts
        return share(new, self) if any(getattr(new, part) is getattr(self, part) for part in written) else new

    def __copy__(self) -> Self:
        return self._replace()

    def __getstate__(self) -> None:
        return None  # a pickle and a deep copy have nothing beside the fields


def turn_of(state: Any) -> Turn:
    """Return whose turn the arrays of a state are."""
    turn = state.__dict__.get("_turn")
    return state.__dict__.setdefault("_turn", Turn()) if turn is None else turn


def share(new: Any, state: Any) -> Any:
    """Return `new`, which has arrays of `state`."""
    new.__dict__["_turn"] = turn_of(state)
    return new


def check_unused(state: Any) -> None:
    """Raise StateError if a step in place took the arrays of this state over."""
    if isinstance(state, Steppable) and "_turn" in state.__dict__:
        turn_of(state).check()


class Taking:
    """A step in place of a state, from before it begins until the caller has the new state.

    Attributes
    ----------
    t : int
        The step.
    new : NamedTuple
        The state after it.
    done : bool
        Whether it has happened.
    """

    state: Any
    new: Any
    turn: Turn
    done: bool
    t: int
    claim: Claim

    __slots__ = ("claim", "done", "new", "state", "t", "turn")

    def __init__(self, state: Any, first_step: int) -> None:
        count = int(state.count)
        self.state, self.turn, self.done = state, turn_of(state), False
        self.t = count + first_step
        self.claim = [self.t]
        self.new = tuple.__new__(type(state), (count + 1, *state[1:]))  # as _make does, which takes twice as long

    def run(self, work: Any, rates: Any, **launch: Any) -> int:
        """Run the work as the one step that is taken of this state; see :class:`amos_ref.kernels.Work`."""
        work.start()
        try:
            self.turn.take(self.claim)
            bad = work.run(rates, **launch)
            if bad < 0 and work.advanced:
                self._keep()
            else:
                self.turn.give_back(self.claim)
        except BaseException:
            if work.done:  # what arrives came just behind the call that did all
                self._keep()
            elif not work.begun:
                self.turn.give_back(self.claim)
            raise
        if self.done and work.late is not None:
            raise work.late
        return bad

    def _keep(self) -> None:
        self.turn["stepped"] = self.done = True

    def finish(self) -> Any:
        """Return the new state, as somebody else takes the step: a replay of a recorded one."""
        self.turn.take(self.claim)
        self._keep()
        return self.new

    def hand_over(self, error: BaseException) -> None:
        """Let an exception have the new state, which the caller will not get otherwise."""
        if self.done:
            with contextlib.suppress(Exception):
                error.amos_state = self.new  # pyright: ignore[reportAttributeAccessIssue]
