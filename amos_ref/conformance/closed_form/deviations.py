"""The catalogue of the closed form: ways to read it wrong or differently, each a stage of the page overridden.

As in diagnosis/deviations.py, entries combine: an override is given the stage that it overrides.
"""

import math
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.conformance.diagnosis.deviation import (
    Catalogue,
    at_first_axis,
    bessel,
    chi,
    largest,
    norm,
    other_axes,
    over_all_leaves,
    own_count,
    shrunk,
)
from amos_ref.conformance.judging.paper import over_slot

CATALOGUE = Catalogue()
_add = CATALOGUE.add


def _as_adam(s: Any, page: Any, **changed: Any) -> Any:
    """Adam's direction with some of what it is made of changed; any other direction as it is."""
    return page(s.but(**changed)) if s.direction == "adam" else page(s)


def _adam(way: Any) -> Any:
    """Override something of Adam's direction only."""
    return lambda s, page: way(s) if s.direction == "adam" else page(s)


def _m_hat(s: Any) -> Any:
    return s.m / spec.one_minus_power(s.beta1, s.n)


def _v_hat(s: Any) -> Any:
    return s.v / spec.one_minus_power(s.beta2, s.n)


def _count(s: Any) -> int:
    """How many entries a slot has."""
    return max(s.u.size // max(math.prod(s.slot), 1), 1)


def _over_slot(s: Any, x: Any, function: Any) -> Any:
    """Apply a function of NumPy's to an array, slot by slot."""
    return over_slot(x, s.slot, lambda a, axes: function(a, axis=axes, keepdims=True))


def along_all_leaves(s: Any, page: Any) -> Any:
    """Override the mean square of a direction along the gradient by that of all leaves."""
    return over_all_leaves(s, page) if s.direction == "gradient" else page(s)


# A table: an entry reads best in two or three lines.
# fmt: off
# gradient
_add("gradient", "maximize", "negates the gradient", "climbs instead of descending",
     grad=lambda s, page: None if page(s) is None else -page(s))
_add("gradient", "none-is-zero", "takes a missing gradient for zeros; the page skips the leaf",
     "weights shrink, and Adam's m and v, although nothing was learnt about them",
     grad=lambda s, page: np.zeros(s.old_theta.shape) if page(s) is None else page(s))
_add("gradient", "none-decays", "decays an array without a gradient; the page skips it",
     "weights shrink although nothing was learnt about them",
     grad=lambda s, page: _missing(s) if page(s) is None else page(s),
     m=lambda s, page: s.old_m if _is_missing(s) and s.direction == "adam" else page(s),
     v=lambda s, page: s.old_v if _is_missing(s) and s.direction == "adam" else page(s),
     u=lambda s, page: s.g if _is_missing(s) else page(s))
_add("gradient", "clip-ignored", "does not clip", "one large gradient turns the direction",
     clip_value=lambda s, page: None)
_add("gradient", "clip-after", "clips the direction, after its mean square was taken; the page clips the gradient",
     "clipping makes steps small where it should only tame outliers",
     g=lambda s, page: s.grad, delta=lambda s, page: page(s.but(u=spec.clip(s.u, chi(s)))))
_add("gradient", "clip-the-direction", "clips the direction; the page clips the gradient",
     "Adam's moments keep the outliers",
     g=lambda s, page: s.grad, u=lambda s, page: spec.clip(page(s), chi(s)))
_add("gradient", "clip-by-norm", "scales the array's gradient to the norm clip_value; the page clips each entry",
     "a step of one slot an array is what it was: nothing is clipped", g=lambda s, page: shrunk(s, norm(s.grad)))
_add("gradient", "clip-by-global-norm",
     "scales all gradients to the joint norm clip_value; the page clips each entry",
     "a step of one slot an array is what it was: nothing is clipped",
     g=lambda s, page: shrunk(s, norm(*(g for g in s.grads.values() if g is not None))))
_add("gradient", "clip-the-change", "clips the change of theta; the page clips the gradient",
     "outliers turn the direction", g=lambda s, page: s.grad, delta=lambda s, page: spec.clip(page(s), chi(s)))
_add("gradient", "decay-in-gradient", "adds rho * theta to the gradient; the page decays theta itself",
     "the decay is divided by the gradient's size, as in Adam before AdamW",
     grad=lambda s, page: None if page(s) is None else page(s) + _planned_rho(s) * s.old_theta,
     rho=lambda s, page: 0.0 * page(s))

# direction
_add("direction", "direction-gradient", "steps along the gradient, whatever direction says", "Adam's scaling is lost",
     direction=lambda s, page: "gradient")
_add("direction", "direction-sign", "steps along the gradient's sign, whatever direction says",
     "every entry moves alike, as in Lion", direction=lambda s, page: "sign")
_add("direction", "direction-adam", "steps along Adam's direction, whatever direction says",
     "two more arrays, and another path", direction=lambda s, page: "adam")
_add("direction", "sign-of-zero-is-one", "takes +1 for the sign of 0; the page 0", "dead entries move",
     u=lambda s, page: np.where(s.g < 0, -1.0, 1.0) if s.direction == "sign" else page(s))
_add("direction", "adam-count-from-0",
     "corrects Adam's moments with 1 - beta^t, t from 0 (1 at the first step); the page with t + 1",
     "the second step is far too large", n=lambda s, page: max(page(s) - 1, 1))
_add("direction", "adam-count-one-ahead", "corrects Adam's moments with 1 - beta^(t+2); the page with t + 1",
     "the first steps of m and v do not match", n=lambda s, page: page(s) + 1)
_add("direction", "adam-count-per-leaf",
     "corrects Adam's moments by each leaf's own steps; the page by the count of the tree",
     "a leaf whose first gradient comes late starts otherwise", n=lambda s, page: own_count(s))
_add("direction", "adam-not-debiased", "corrects neither of Adam's moments",
     "epsilon and the ratio of m to v count otherwise", u=_adam(lambda s: s.m / (np.sqrt(s.v) + s.adam_epsilon)))
_add("direction", "adam-m-not-debiased", "corrects v's bias, and not m's",
     "little, since the mean square divides it out again, but for epsilon",
     u=_adam(lambda s: s.m / (np.sqrt(_v_hat(s)) + s.adam_epsilon)))
_add("direction", "adam-v-not-debiased", "corrects m's bias, and not v's",
     "adam_epsilon is weighed against a v that is too small",
     u=_adam(lambda s: _m_hat(s) / (np.sqrt(s.v) + s.adam_epsilon)))
_add("direction", "adam-epsilon-in-root", "divides by sqrt(v + adam_epsilon); the page by sqrt(v) + adam_epsilon",
     "small gradients count less", u=_adam(lambda s: _m_hat(s) / np.sqrt(_v_hat(s) + s.adam_epsilon)))
_add("direction", "adam-epsilon-on-uncorrected",
     "adds adam_epsilon to the root of the uncorrected v; the page to that of v / (1 - beta2^n)",
     "small gradients count less at first",
     u=_adam(lambda s: _m_hat(s) * np.sqrt(spec.one_minus_power(s.beta2, s.n)) / (np.sqrt(s.v) + s.adam_epsilon)))
_add("direction", "adam-epsilon-as-maximum",
     "divides by max(sqrt(v), adam_epsilon); the page by sqrt(v) + adam_epsilon", "small gradients count more",
     u=_adam(lambda s: _m_hat(s) / np.maximum(np.sqrt(_v_hat(s)), s.adam_epsilon)))
_add("direction", "adam-epsilon-ignored", "takes 1e-8 for adam_epsilon, whatever is asked for", "it cannot be set",
     adam_epsilon=lambda s, page: 1e-8)
_add("direction", "adam-betas-swapped", "exchanges beta1 and beta2", "m is slow and v fast",
     beta1=lambda s, page: s.options["beta2"], beta2=lambda s, page: s.options["beta1"])
_add("direction", "adam-without-v", "steps along m, not divided by the root of v", "entries do not step alike",
     u=_adam(_m_hat))
_add("direction", "adam-without-m", "steps along the gradient over the root of v", "noise is not averaged",
     u=_adam(lambda s: s.g / (np.sqrt(_v_hat(s)) + s.adam_epsilon)))
_add("direction", "adam-v-without-root", "divides by v where the page divides by its root",
     "entries with small gradients move most", u=_adam(lambda s: _m_hat(s) / (_v_hat(s) + s.adam_epsilon)))
_add("direction", "adam-m-of-direction", "averages the gradient over the root of v; the page averages the gradient",
     "old gradients keep the scale that they had",
     m=_adam(lambda s: spec.average(s.old_m, _scaled_gradient(s), s.beta1)), u=_adam(_m_hat))
_add("direction", "adam-m-summed", "m = beta1 m + g, without (1 - beta1)",
     "only adam_epsilon and epsilon tell", m=_adam(lambda s: s.beta1 * s.old_m + s.g))
_add("direction", "adam-v-summed", "v = beta2 v + g^2, without (1 - beta2)",
     "adam_epsilon is weighed against a v that is too large", v=_adam(lambda s: s.beta2 * s.old_v + s.g * s.g))
_add("direction", "adam-v-of-slot", "averages the mean square of the slot; Adam the square of each entry",
     "entries of a slot do not step alike",
     v=_adam(lambda s: spec.second_moment(s.old_v, spec.mean_square(s.g, s.slot) + 0.0 * s.g, s.beta2)))
_add("direction", "adam-v-largest", "divides by the largest v so far, as AMSGrad", "one outlier shrinks later steps",
     u=lambda s, page: page(s.but(v=largest(s, s.v))) if s.direction == "adam" else page(s))
_add("direction", "adam-nesterov", "looks ahead: steps along beta1 m + (1 - beta1) g with the new m, as NAdam",
     "averages less than asked for",
     u=lambda s, page: _as_adam(s, page, **({"m": spec.average(s.m, s.g, s.beta1)} if s.direction == "adam" else {})))
_add("direction", "adam-m-after", "steps along m as it was before this gradient was averaged in",
     "every step comes one step late", u=lambda s, page: _as_adam(s, page, m=s.old_m))
_add("direction", "adam-v-rooted-in-place",
     "takes the root of v and adds adam_epsilon in v's own place, without its correction, and keeps that as v",
     "v forgets what it averages",
     v=lambda s, page: np.sqrt(page(s)) + s.adam_epsilon if s.direction == "adam" else page(s),
     u=_adam(lambda s: _m_hat(s) / s.v))
_add("direction", "adam-m-divided-in-place",
     "divides m by sqrt(v) + adam_epsilon in m's own place, without its correction, and keeps that as m",
     "old gradients are divided once for each step since",
     m=lambda s, page: page(s) / _rooted(s) if s.direction == "adam" else page(s), u=_adam(lambda s: s.m))

# reduce
_add("reduce", "sum-for-mean", "divides by the norm of u, |u|; with sigma above, the page has its root mean square",
     "steps shrink with the square root of the array's size", u2=lambda s, page: page(s) * _count(s))
_add("reduce", "error-for-sigma", "has |eps_0| = sqrt(k) sigma above the root mean square of u",
     "steps grow with the square root of the array's size",
     ratio=lambda s, page: page(s) * math.sqrt(_count(s)))
_add("reduce", "norm-for-mean", "takes the norm of u for its mean square", "steps depend on the loss's scale",
     u2=lambda s, page: np.sqrt(page(s) * _count(s)))
_add("reduce", "mean-absolute", "squares the mean of |u|; the page takes the mean of u^2",
     "sparse directions get larger steps",
     u2=lambda s, page: np.square(_over_slot(s, np.abs(s.u), np.add.reduce) / _count(s)))
_add("reduce", "largest", "divides by the largest |u| of the slot; the page by the root mean square",
     "steps are too small", u2=lambda s, page: np.square(_over_slot(s, np.abs(s.u), _maximum)))
_add("reduce", "variance", "subtracts the mean of u before squaring; the page does not",
     "steps grow where entries agree",
     u2=lambda s, page: page(s.but(u=s.u - np.add.reduce(s.u, None) / max(s.u.size, 1))))
_add("reduce", "mean-over-n-1", "divides the sum of squares by n - 1; the page by n", "small arrays step too little",
     u2=lambda s, page: page(s) * bessel(_count(s)))
_add("reduce", "mean-of-nonzero", "takes the mean over the entries that are not 0", "sparse directions step too little",
     u2=lambda s, page: page(s) * _count(s) / np.maximum(_over_slot(s, 1.0 * (s.u != 0), np.add.reduce), 1.0))
_add("reduce", "global-mean", "takes one mean square of the gradients for all leaves; the page one for each slot",
     "leaves with small gradients hardly move",
     u2=along_all_leaves)
_add("reduce", "mean-of-gradient", "divides by the root mean square of the gradient, whatever the direction",
     "steps depend on the loss's scale", u2=lambda s, page: page(s.but(u=s.g)))
_add("reduce", "mean-averaged", "averages u2 over time with 0.999, corrected as Adam's v; the page takes this step's",
     "steps have no set size", u2=lambda s, page: _averaged(s, page(s)))
_add("reduce", "mean-over-array", "takes the mean over the whole array for every slot", "slots do not differ",
     u2=lambda s, page: page(s) * 0.0 + np.add.reduce(s.u * s.u, None) / max(s.u.size, 1))
_add("reduce", "other-axes", "averages over the axes that the slot keeps, and keeps the others",
     "each row steps by the columns' directions", slot=lambda s, page: other_axes(s.shapes[s.name], page(s)))
_add("reduce", "slots-at-first-axis",
     "aligns slots of fewer axes than the leaf at the first axis; the page at the last, as NumPy broadcasts",
     "other rows and columns share a slot than were asked for",
     slot=lambda s, page: at_first_axis(s.shapes[s.name], page(s)))
_add("reduce", "slots-element", "keeps one slot for each entry, whatever slot_shape says",
     "every entry steps by the same: the direction is a sign", slot=lambda s, page: s.shapes[s.name])
_add("reduce", "slots-rows", "keeps one slot for each index of the first axis, whatever slot_shape says",
     "all rows step alike", slot=lambda s, page: tuple(n if i == 0 else 1 for i, n in enumerate(s.shapes[s.name])))
_add("reduce", "slots-columns", "keeps one slot for each index of the last axis, whatever slot_shape says",
     "all columns step alike",
     slot=lambda s, page: tuple(n if i == len(s.shapes[s.name]) - 1 else 1 for i, n in enumerate(s.shapes[s.name])))

# epsilon
_add("epsilon", "epsilon-added", "divides by sqrt(u2 + epsilon); the page by sqrt(max(u2, epsilon))",
     "steps shrink where directions are small", ratio=lambda s, page: s.sigma / np.sqrt(s.u2 + s.epsilon))
_add("epsilon", "epsilon-on-root", "divides by sqrt(u2) + epsilon; the page by sqrt(max(u2, epsilon))",
     "steps shrink where directions are small", ratio=lambda s, page: s.sigma / (np.sqrt(s.u2) + s.epsilon))
_add("epsilon", "epsilon-below-root", "divides by max(sqrt(u2), epsilon); the page by sqrt(max(u2, epsilon))",
     "small directions make larger steps", ratio=lambda s, page: s.sigma / np.maximum(np.sqrt(s.u2), s.epsilon))
_add("epsilon", "epsilon-absent", "has no epsilon: divides by sqrt(u2), where the page has sqrt(max(u2, epsilon))",
     "a slot whose direction is 0 becomes NaN", epsilon=lambda s, page: 0.0)
_add("epsilon", "epsilon-underflows", "rounds epsilon to float16, which makes 0 of 2^-125; the page keeps it",
     "a slot whose direction is 0 becomes NaN", only=lambda case: case.dtype == "float16",
     epsilon=lambda s, page: float(np.float16(page(s))))
_add("epsilon", "epsilon-ignored",
     "does not heed epsilon: has 2^-125 or less whatever is asked for, or only a guard against division by 0",
     "epsilon cannot be set",
     epsilon=lambda s, page: 2.0**-125)
for _value in (1e-6, 1e-8, 1e-10, 1e-12, 1e-15, 1e-16, 1e-18, 1e-20, 1e-30):
    _add("epsilon", f"epsilon-default-{_value:.0e}", f"has {_value:.0e} as default of epsilon; the page 2^-125",
         f"directions much below {math.sqrt(_value):.0e} move nothing",
         epsilon=lambda s, page, value=_value: page(s) if "epsilon" in s.asked else value)
_add("epsilon", "zero-direction-skipped", "leaves a slot whose direction is 0 as it is; the page decays it",
     "entries that nobody needs do not decay", delta=lambda s, page: page(s) * (s.u2 > 0))
_add("epsilon", "root-missing", "divides by u2; the page by its root", "steps depend on the loss's scale",
     ratio=lambda s, page: s.sigma / np.maximum(s.u2, s.epsilon))
# fmt: on


def _missing(s: Any) -> Any:
    s.memory["missing"] = s.count
    return np.zeros(s.old_theta.shape)


def _is_missing(s: Any) -> bool:
    return s.memory.get("missing") == s.count


def _planned_rho(s: Any) -> Any:
    """The decay before the gradient is known: nothing of it depends on the gradient."""
    o = s.options
    plan = {name: o[name] for name in ("alpha_0", "half_life", "p_0", "decay", "p_t", "q")}
    plain: Any = {k: float(x) if isinstance(x, np.ndarray) else x for k, x in plan.items()}
    return float(closed_form.Schedule(**plain).rho(s.count - 1 + s.ahead))


def _scaled_gradient(s: Any) -> Any:
    return s.g / _rooted(s)


def _rooted(s: Any) -> Any:
    v = spec.second_moment(s.old_v, s.g * s.g, s.beta2)
    return np.sqrt(v / spec.one_minus_power(s.beta2, s.n)) + s.adam_epsilon


def _maximum(a: Any, **axes: Any) -> Any:
    return np.max(a, initial=0.0, **axes)


def _averaged(s: Any, new: Any) -> Any:
    old, seen = s.memory.get("u2", (0.0, 0))
    s.memory["u2"] = 0.999 * old + (1.0 - 0.999) * new, seen + 1
    return s.memory["u2"][0] / (1.0 - 0.999 ** (seen + 1))
