"""The life of an optimizer of the closed form: what differs from paper Amos's (conformance/life.py).

Its schedule is its own, a function of t: a learning rate that something outside changes is none of it. It has no
momentum that could be switched on.
"""

from amos_ref.conformance.life import Lives

_BY_ADAM = {"direction": "adam", "beta1": 0.5, "beta2": 0.75, "adam_epsilon": 2.0**-6}

LIVES = Lives(
    kept=(("sigma", "a sigma that was measured", {"sigma": "init"}), ("adam", "Adam's moments", _BY_ADAM)),
    paths=("adam", _BY_ADAM),
    groups=(
        ("groups", "an alpha_0 for each group", "alpha_0", 0.125, 0.5),
        ("groups-half_life", "a half-life for each group", "half_life", 2.0, 8.0),
        ("groups-q", "a q for each group", "q", 0.5, 2.0),
    ),
    switched={},
    rates=(),
    modulus={"u2": lambda s, page: 2.0 * page(s)},
)
