"""Deviations that round what is given, or what is kept: a gradient, theta as it is read, theta as it is stored."""

from collections.abc import Callable

from amos_ref.conformance.diagnosis.deviation import stored


def add_all(add: Callable[..., None]) -> None:
    """Add the entries of both algorithms; ``add(stage, name, does, effect, **overrides)`` takes one."""
    # fmt: off
    for dtype in ("float32", "float16", "bfloat16"):
        add("storage", f"gradient-in-{dtype}", f"rounds the gradient to {dtype}", "gradients lose digits",
            grad=lambda s, page, dtype=dtype: stored(page(s), dtype))
        add("storage", f"theta-read-in-{dtype}", f"rounds theta to {dtype} before the step, and the new theta not",
            "the parameters' last digits are lost",
            **{name: lambda s, page, dtype=dtype: page(s.but(old_theta=stored(s.old_theta, dtype)))
               for name in ("delta", "theta")})
        add("storage", f"theta-in-{dtype}", f"stores theta as {dtype}", "small changes are lost",
            theta=lambda s, page, dtype=dtype: stored(page(s), dtype))
    # fmt: on
