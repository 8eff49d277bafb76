"""A step bound to arrays that stay where they are: what was checked and laid out once is not looked at again."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, NoReturn, Self

from amos_ref.errors import HyperParameterError, NonFiniteError, StateError
from amos_ref.foreign import mark_written, tensors_of
from amos_ref.kernels import BEGINNING, At
from amos_ref.optimizers.turn import Taking


class BoundStep:
    """What :meth:`amos_ref.Amos.bind` returns. Each call takes one step of the same arrays, and returns the new state.

    With backend="numpy", with ``validate``, and for arrays that are not contiguous, the backend cannot remember how the
    arrays lie. A call is then an ordinary step. A bound step keeps the arrays alive until it is closed, and can be
    neither copied nor pickled.
    """

    def __init__(self, optimizer: Any, params: Any, grads: Any, state: Any, stream: Any, sync: bool) -> None:
        self._optimizer: Any = optimizer
        self._rules: Any = optimizer._rules
        self._state: Any = state
        self._turn = threading.Lock()
        self._held: Any = (params, grads)
        self._launch = {"stream": stream, "sync": sync}
        optimizer._backend.check_launch(stream, sync)
        work, layout, ready = optimizer._lay_out(None, params, grads, state, None, stream)
        given = None if layout is None else layout.match(params, grads, state)
        self._work: Any = None
        self._tensors = [] if layout is None else [a.detach() for a in tensors_of(params, layout.stepping)]
        if layout is not None and given is not None:
            self._work = work
            # torch lets go of memory when a tensor gets other data; what is detached shares the memory and keeps it.
            self._held = [a.detach() if hasattr(a, "detach") else a for a in given[0]]
            self._gradients: Any = given[0][layout.fixed :]
            self._names = layout.stepping
            self._addresses = given[1]
            self._named = ready.gradients if optimizer._directs_by_callable else None

    @property
    def state(self) -> Any:
        """The state after the last step, or None once it is closed."""
        return self._state

    def __call__(self) -> Any:
        """Take one step with the gradients that now lie in the bound arrays, and overwrite parameters and state.

        Returns
        -------
        NamedTuple
            The state after the step, which is also :attr:`state`. A step that raises leaves that as it was.

        Raises
        ------
        StateError
            If it is closed, if the optimizer's ``set_params`` was called since, or if another thread or its own
            schedule is stepping it already.
        NonFiniteError, ScheduleError, BackendError
            As for :meth:`amos_ref.Amos.step`.
        """
        if not self._turn.acquire(blocking=False):
            self._refuse()
        try:
            work = self._work
            return self._step_anew() if work is None else self._step_on(work)
        finally:
            self._turn.release()

    def _step_anew(self) -> Any:
        self._check_open()
        params, grads = self._held
        try:
            self._state = self._optimizer.step(params, grads, self._state, **self._launch)
        except BaseException as error:  # of a step that has happened
            self._state = getattr(error, "amos_state", self._state)
            raise
        return self._state

    def _step_on(self, work: Any) -> Any:
        opt, state = self._optimizer, self._state
        if opt._rules is not self._rules:
            raise StateError("set_params has set the options since this step was bound: bind again")
        rates, directions = opt._rates_of(state), self._gradients
        if self._named is not None:
            directions = list(opt._directions(self._named, state).values())
            work.take(directions, None)
        elif not work.at_once:
            work.take(directions, self._addresses)
        try:
            bad, taken = opt._take(work, self._names, rates, state, self._launch)
            self._state = taken
        except BaseException as error:  # of a step that has happened
            self._state = getattr(error, "amos_state", state)
            raise
        if bad >= 0:
            opt._refuse(self._names[bad], directions[bad], state, rates)
        if self._tensors:
            mark_written(self._tensors)
        return taken

    def synchronize(self) -> None:
        """Wait for the steps that a backend on a GPU runs; errors as for :meth:`amos_ref.Amos.synchronize`.

        After a gradient that was not finite, :attr:`state` counts the steps before it: no other has written anything.
        """
        with self._alone():
            if self._work is None:
                self._optimizer.synchronize(stream=self._launch["stream"])
                return
            try:
                self._optimizer._backend.synchronize(self._work, self._launch["stream"])
            except NonFiniteError as error:
                if error.count is not None:
                    self._state = self._state._replace(count=error.count)
                raise

    def close(self) -> None:
        """Wait for the steps that are under way, and let go of all arrays. It may be called twice."""
        if self._optimizer is None:
            return
        with self._alone():
            try:
                self._optimizer._backend.release(self._work, self._launch["stream"])
            finally:
                self._optimizer = self._state = self._work = self._held = self._gradients = self._named = None
                self._tensors = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            self._refuse()
        try:
            self._check_open()
            yield
        finally:
            self._turn.release()

    def _refuse(self) -> NoReturn:
        raise StateError("this bound step is being taken: by another thread, or by the schedule that it calls")

    def _check_open(self) -> None:
        if self._optimizer is None:
            raise StateError("this bound step is closed")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a bound step is of arrays where they lie: it can be neither copied nor pickled; bind again")


class Bindable:
    """What an optimizer offers for steps that are not looked at one by one: bound, recorded, or not waited for."""

    _backend: Any
    _last: Any
    _rates: Any
    _rates_of: Any
    state_type: Any
    first_step: int

    def _at(self, state: Any) -> At:
        """Return where in the run the step of this state is."""
        return At(int(state.count))

    def bind(self, params: Any, grads: Any, state: Any, *, stream: Any = None, sync: bool = True) -> BoundStep:
        """Return a step that is bound to these arrays. Each call of it takes one step, and checks no array again.

        You promise to leave all arrays where they are, and to write the gradients of each step into the same arrays. A
        leaf whose gradient is None here is skipped at every step. On a GPU the step is recorded once and replayed.

        Parameters
        ----------
        params, grads, state, stream, sync
            As for :meth:`step`, which says what is refused and what is overwritten.

        Returns
        -------
        BoundStep
            ``state = bound()`` takes a step, ``bound.synchronize()`` waits for it on a GPU, and ``bound.close()`` lets
            go of the arrays.

        Examples
        --------
        >>> import numpy as np, amos_ref
        >>> params, grads = {"w": np.array([1.0, -2.0])}, {"w": np.zeros(2)}
        >>> opt = amos_ref.Amos(learning_rate=0.1, eta=0.5)
        >>> bound = opt.bind(params, grads, opt.init(params))
        >>> for _ in range(3):
        ...     grads["w"][:] = params["w"]  # new gradients, where the old ones were
        ...     state = bound()
        >>> state.count
        3
        """
        return BoundStep(self, params, grads, state, stream, sync)

    def advance(self, state: Any, *, stream: Any = None, steps: int = 1) -> Any:
        """Prepare replays of a recorded step, by putting the numbers that change from step to step on the GPU.

        If the learning rate is constant, replays compute these numbers themselves. You need not call this then, except
        to say after which step the replays go on.

        Parameters
        ----------
        state : NamedTuple
        stream : CUDA stream, optional
            The stream in which the graph is replayed next.
        steps : int
            How many replays come before the next call. A schedule is called for all of them now. A replay beyond them
            writes nothing, and :meth:`synchronize` then raises.

        Returns
        -------
        NamedTuple
            The state after the replays.

        Raises
        ------
        BackendError
            If there is no recorded step.
        ScheduleError
            As in :meth:`update`.
        """
        if type(steps) is not int or steps < 1:
            raise HyperParameterError(f"steps is {steps!r:.60}; it must be a whole number of at least 1")
        layout, rates = self._last.peek(), self._rates_of(state)
        if layout is not None and (rates is None or not isinstance(state, self.state_type)):
            raise StateError(f"state is of type {type(state).__name__}; init(params) makes one")
        work, at = (None, BEGINNING) if layout is None else (layout.work, self._at(state))
        more = [] if work is None or at.steady else [self._rates(at.count + k) for k in range(1, steps)]
        self._backend.advance(work, [rates, *more], at, stream)
        return Taking(state, self.first_step).finish()._replace(count=at.count + steps)

    def synchronize(self, *, stream: Any = None) -> None:
        """Wait until the steps that a backend on a GPU runs in a stream are complete.

        Raises
        ------
        NonFiniteError
            If a gradient was not finite since the host last waited. That step and all steps after it wrote nothing.
        """
        layout = self._last.peek()
        self._backend.synchronize(None if layout is None else layout.work, stream)
