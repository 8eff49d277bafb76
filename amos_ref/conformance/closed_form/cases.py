"""The table of cases on which a port of the closed form runs beside the page."""

import functools

from amos_ref.conformance import life, ways
from amos_ref.conformance.cases import Case, draw, freeze, round_case
from amos_ref.conformance.closed_form.life import LIVES

_GIVEN = {"alpha_0": 0.25, "half_life": 4.0}
_case = functools.partial(draw, base=_GIVEN, algorithm="closed-form")


def table() -> list[Case]:
    """Return all cases; the arrays are read-only."""
    return list(_table())


@functools.cache
def _table() -> tuple[Case, ...]:
    cases = [
        _case("plain", "the update itself, long enough for exp(-2 S) to matter"),
        _case("sigma-init", "sigma measured from the initial entries", sigma="init"),
        _case("adam", "Adam's direction", direction="adam", beta1=0.5, beta2=0.75),
    ]
    found = (
        *(round_case(case, dtype) for case in cases for dtype in ("float64", "float32", "bfloat16", "float16")),
        *life.cases(_case, LIVES),
        *ways.cases(_case, LIVES),
    )
    for case in found:
        freeze(case)
    return found
