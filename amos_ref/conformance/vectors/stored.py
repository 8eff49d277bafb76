"""A stored case of either algorithm: its arrays, and the optimizer and states that compute it."""

import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from amos_ref.closed_form import Schedule
from amos_ref.conformance.vectors.bits import Json, decode, number
from amos_ref.conformance.vectors.schedules import PLAN, allowed_ulps
from amos_ref.optimizers.amos import Amos
from amos_ref.optimizers.closed_form import ClosedFormAmos
from amos_ref.optimizers.state import AmosState, ClosedFormState

STATE = ("theta", "v", "b", "m")
OPTION_WORDS = ("decay", "direction", "p_t", "sigma")  # options that are no numbers


class StoredCase:
    """A stored case with its arrays: what is common to checking and exporting it. This one is paper Amos's.

    Parameters
    ----------
    entry : dict
        The case, as the file has it.
    dtype : dtype
        Of its group: theta and gradients.
    """

    entry: Json
    id: str
    dtype: np.dtype
    shapes: dict[str, tuple[int, ...]]
    slots: dict[str, tuple[int, ...]]

    parts: ClassVar[tuple[str, ...]] = STATE
    # What has the leaf's shape; all else has the slot's.
    entries: ClassVar[tuple[str, ...]] = ("theta", "g", "delta", "m")
    scale: ClassVar[str] = "eta"  # the number of a leaf
    shared: ClassVar[str] = "learning_rate"  # the number of a step
    first: ClassVar[int] = 1  # the t of the first step

    def __init__(self, entry: Json, dtype: np.dtype) -> None:
        self.entry, self.id, self.dtype = entry, entry["id"], dtype
        self.shapes = {name: tuple(leaf["shape"]) for name, leaf in entry["leaves"].items()}
        self.slots = {name: tuple(leaf["slot_shape"]) for name, leaf in entry["leaves"].items()}

    def array(self, text: str, name: str, quantity: str, part: str = "") -> np.ndarray:
        """Return a quantity of the leaf `name`; `part` is where it stands: pre, real, post or tolerance."""
        narrow = quantity in ("theta", "g") and part not in ("real", "tolerance")
        shape = self.shapes[name] if quantity in self.entries else self.slots[name]
        return decode(text, self.dtype if narrow else np.dtype(np.float64), shape)

    def state(self, step: Json, part: str) -> dict[str, dict[str, np.ndarray]]:
        """Return ``{"theta": {leaf: array}, "v": ..., ...}``, as much as the case has, before or after a step."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, leaf in step["leaves"].items():
            for quantity, text in leaf[part].items():
                found.setdefault(quantity, {})[name] = self.array(text, name, quantity)
        return found

    def grads(self, texts: dict[str, str | None]) -> dict[str, np.ndarray | None]:
        """Return gradients from their bits."""
        return {name: None if text is None else self.array(text, name, "g") for name, text in texts.items()}

    def steps(self) -> Iterator[tuple[int, Json, float, dict[str, np.ndarray | None]]]:
        """Yield (t, what is stored of it or {}, learning rate, gradients) for all steps, stored or not."""
        stored, cycle = {step["t"]: step for step in self.entry["steps"]}, self.entry.get("cycle", ())
        for t in range(self.first, max(stored) + 1) if cycle else stored:
            step = stored.get(t, {})
            given = (
                {k: leaf["g"] for k, leaf in step["leaves"].items()} if step else cycle[(t - self.first) % len(cycle)]
            )
            yield t, step, self.rate(step or self.entry["steps"][0]), self.grads(given)

    def rate(self, step: Json) -> float:
        """Return the number that the leaves share at a step: xi, or exp(-2 S_t)."""
        return number(step[self.shared])

    def numbers(self) -> Json:
        """Return the options by name; what is no number is a text in the file as well."""
        return {name: text if name in OPTION_WORDS else number(text) for name, text in self.entry["options"].items()}

    def scale_of(self, name: str, shape: Any = None) -> Any:
        """Return eta of a leaf."""
        return number(self.entry["leaves"][name][self.scale])

    def slot_of(self, name: str, shape: Any = None) -> tuple[int, ...]:
        """Return the slot shape of a leaf."""
        return self.slots[name]

    def optimizer(self, backend: str) -> Any:
        """Return the optimizer of the case, its learning rates as a schedule."""
        rates = {t: rate for t, _, rate, _ in self.steps()}
        return Amos(
            learning_rate=lambda t: rates[t],
            eta=self.scale_of,
            slot_shape=self.slot_of,
            backend=backend,
            **self.numbers(),
        )

    def state_at(self, t: int, now: dict[str, Any], begun: Any) -> Any:
        """Return the optimizer's state before step t; `begun` is what init returned."""
        return AmosState(t - 1, now["v"], now["b"], now.get("m"))

    def begin(self, opt: Any, params: dict[str, np.ndarray]) -> Any:
        """Return the optimizer's own state at the start."""
        return opt.init(params)

    def verify_plan(self, opt: Any) -> str:
        """Return which number that the leaves share is another one than is stored; "" if none is."""
        return ""


class ClosedFormCase(StoredCase):
    """A stored case of the closed form."""

    parts: ClassVar[tuple[str, ...]] = ("theta", "m", "v")
    entries: ClassVar[tuple[str, ...]] = ("theta", "g", "u", "delta", "m", "v")
    scale: ClassVar[str] = "sigma"
    shared: ClassVar[str] = "shrink"
    first: ClassVar[int] = 0

    def optimizer(self, backend: str) -> Any:
        """Return the optimizer of the case."""
        options = {"sigma": self.scale_of, "slot_shape": self.slot_of, "backend": backend} | self.numbers()
        if options["decay"] != "recurrence":
            return ClosedFormAmos(**options)
        return _AsStored({step["t"]: self.rate(step) for step in self.entry["steps"]}, **options)

    def begin(self, opt: Any, params: dict[str, np.ndarray]) -> Any:
        """Return the optimizer's own state at the start, which has sigma; that a constant is a guess is known."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return opt.init(params)

    def state_at(self, t: int, now: dict[str, Any], begun: Any) -> Any:
        """Return the optimizer's state before step t, with the sigma of `begun`."""
        return ClosedFormState(t, begun.sigma, now.get("m"), now.get("v"))

    def verify_plan(self, opt: Any) -> str:
        """Compare exp(-2 S_t) of every stored step, to the bit, but for the recurrence's: its exp is the platform's."""
        options = {name: x for name, x in self.numbers().items() if name in PLAN}
        plan = Schedule(**options)
        for step in self.entry["steps"]:
            want, found = self.rate(step), float(plan.shrink(step["t"]))
            off = np.spacing(want) * allowed_ulps(plan.decay, number(step["real"]["S"]))["shrink"]
            if abs(found - want) > off * (plan.decay == "recurrence"):
                return f"shrink at step {step['t']}"
        return ""


class _AsStored(ClosedFormAmos):
    """Steps that take exp(-2 S_t) as it is stored: the recurrence's has other last bits on another platform."""

    def __init__(self, shrinks: dict[int, float], **options: Any) -> None:
        super().__init__(**options)
        self._shrinks = shrinks

    @property
    def schedule(self) -> Any:
        return self

    def shrink(self, t: int) -> float:
        """Return the stored number of step t."""
        return self._shrinks[t]


def stored_case(entry: Json, dtype: np.dtype) -> StoredCase:
    """Return a case of either algorithm: alpha_0 is the closed form's."""
    return (ClosedFormCase if "alpha_0" in entry.get("options", ()) else StoredCase)(entry, dtype)
