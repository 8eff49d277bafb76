"""Cases of a life with optax, with plain functions and with commands (docs/life.md), beside those of life.py."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amos_ref.conformance.algorithms import PAPER_AMOS
from amos_ref.conformance.life import PAPER_LIVES, PREFIX, Lives

if TYPE_CHECKING:
    from amos_ref.conformance.cases import Case

_TWINS = {"kernel": (4, 3), "twin": (4, 3)}
_APART = {"kernel": (4, 3), "bias": (3,)}


def cases(make: Callable[..., "Case"], own: Lives = PAPER_LIVES) -> list["Case"]:
    """Return the cases of an algorithm in float64; `make` draws one."""

    def way(event: str, about: str, name: str = "", **rest: Any) -> "Case":
        return make(PREFIX + (name or event), about, **{"shapes": _TWINS, "steps": 5, "events": {0: event}} | rest)

    rates: dict[str, Any] = {PAPER_AMOS.rate: own.rates}
    injected = [way("inject_hyperparams", "the learning rate is changed in the state", **rates)]
    return [
        way("jit", "a step that is compiled"),
        *(
            way("jit", f"a step that is compiled, with {words}", f"jit-{name}", **kept)
            for name, words, kept in own.kept
        ),
        way("donate", "a compiled step that gives its state and parameters away"),
        way("masked", "each leaf in a transformation of its own, which sees the others masked"),
        *(injected if own.rates else []),
        way("multi-steps", "a step from the mean of two gradients"),
        *(
            one
            for end, words, rest in (("", "", {}), (f"-{own.paths[0]}", ", all options", own.paths[1]))
            for one in (
                way(
                    "two-at-once",
                    f"another optimizer takes a step before each, with gradients of zero{words}",
                    f"two-at-once{end}",
                    shapes=_APART,
                    **rest,
                ),
                _in_another_order(
                    way(
                        "",
                        f"from t = 3 on, gradients come in another order of leaves{words}",
                        f"other-order{end}",
                        events={},
                        **rest,
                    )
                ),
            )
        ),
    ]


def _in_another_order(case: "Case") -> "Case":
    return case._replace(grads=case.grads[:2] + [dict(reversed(grads.items())) for grads in case.grads[2:]])
