"""What ports call things: our options and parts of the state, and the names that ports give them, by algorithm."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Names(NamedTuple):
    """The names of one algorithm.

    Attributes
    ----------
    options : dict of str to tuple of str
        Our option -> the names that ports give it: the first found in a signature wins. ``"betas[0]"`` is an entry of a
        tuple.
    guesses : dict of str to str
        What may be ours under a name that often means something else: it is asked about, and not taken.
    off : dict of str to object
        What switches an option off, whatever its default.
    beside : dict of str to str
        Option -> the option without which it is something else under the same name.
    implied : dict of str to tuple
        Option -> another one, and the word that a port is taken to hard-code which has that one and not this one.
    state : dict of str to tuple of str
        Our part of the state -> the names that ports give it.
    """

    options: Mapping[str, tuple[str, ...]]
    guesses: Mapping[str, str]
    off: Mapping[str, Any]
    beside: Mapping[str, str]
    implied: Mapping[str, tuple[str, str]]
    state: Mapping[str, tuple[str, ...]]


_SLOTS = ("slot_shape", "shape_fn", "slot_shape_fn", "slot_fn")
_CLIP = ("clip_value", "clip", "grad_clip", "gradient_clip", "clip_grad", "chi")
_SQUARES = ("v", "exp_avg_sq", "second_moment", "nu")
_AVERAGES = ("m", "exp_avg", "ema", "momentum_buffer", "trace", "mu")

#: By an algorithm's name.
NAMES: Mapping[str, Names] = {
    "paper": Names(
        options={
            "learning_rate": ("learning_rate", "lr", "xi", "step_size"),
            "eta": ("eta", "eta_fn", "get_eta", "scale_fn", "scale", "eta_value"),
            "slot_shape": _SLOTS,
            "beta": ("beta", "beta2", "b2", "beta_2"),
            "momentum": ("momentum", "mu", "beta1", "b1", "beta_1"),
            "clip_value": _CLIP,
            "extra_l2": ("extra_l2", "extra_weight_decay", "l2"),
            "c_coef": ("c_coef", "c_coeff", "coef_c"),
            "d_coef": ("d_coef", "d_coeff", "coef_d"),
            "epsilon": ("epsilon", "eps"),
        },
        guesses={
            "weight_decay": "extra_l2",
            "wd": "extra_l2",
            "c": "c_coef",
            "d": "d_coef",
            "clipvalue": "clip_value",
        },
        off={"momentum": 0.0, "clip_value": math.inf, "extra_l2": 0.0},
        beside={},
        implied={},
        state={"v": _SQUARES, "b": ("b", "decay", "decays"), "m": _AVERAGES},
    ),
    "closed-form": Names(
        options={
            "alpha_0": ("alpha_0", "alpha0", "learning_rate", "lr", "alpha", "a0", "step_size"),
            "half_life": ("half_life", "halflife", "half_time", "T"),
            "p_0": ("p_0", "p0", "p"),
            "decay": ("decay", "schedule", "mode", "kind"),
            "p_t": ("p_t",),
            "q": ("q",),
            "sigma": ("sigma", "sigma_fn", "get_sigma", "scale", "scale_fn", "init_std", "std"),
            "slot_shape": _SLOTS,
            "direction": ("direction",),
            "beta1": ("beta1", "b1", "beta_1", "betas[0]"),
            "beta2": ("beta2", "b2", "beta_2", "betas[1]"),
            "adam_epsilon": ("adam_epsilon", "adam_eps", "eps"),
            "epsilon": ("epsilon", "eps"),
            "clip_value": _CLIP,
        },
        guesses={"clipvalue": "clip_value"},
        off={"clip_value": math.inf, "half_life": None, "p_0": None, "p_t": None},
        beside={"adam_epsilon": "beta2"},
        implied={"direction": ("beta2", "adam")},
        state={"m": _AVERAGES, "v": _SQUARES},
    ),
}
