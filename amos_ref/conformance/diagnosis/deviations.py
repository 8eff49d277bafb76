"""The catalogue: ways to read the algorithm wrong or differently, each a stage of the page overridden.

Every entry says what is done instead of what, and what comes of it in training. Entries combine: an override is given
the stage that it overrides, which may be overridden already.
"""

import math
from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.diagnosis import extremes, life, storage, ways
from amos_ref.conformance.diagnosis.deviation import (
    Catalogue,
    at_first_axis,
    bessel,
    chi,
    heeds_epsilon,
    largest,
    mean_of_slot,
    norm,
    other_axes,
    over_all_leaves,
    own_count,
    shrunk,
    stored,
)

CATALOGUE = Catalogue()
_add = CATALOGUE.add


def _average(s: Any, name: str, new: Any) -> Any:
    """Exponential average of `new` with decay momentum, remembered under `name`."""
    mu = s.momentum or 0.0
    s.memory[name] = mu * s.memory.get(name, 0.0) + (1.0 - mu) * new
    return s.memory[name]


# A table: an entry reads best in two or three lines.
# fmt: off
# gradient
_add("gradient", "maximize", "negates the gradient", "climbs instead of descending",
     grad=lambda s, page: None if page(s) is None else -page(s))
_add("gradient", "none-is-zero", "takes a missing gradient for zeros; the page skips the leaf",
     "v decays and weights shrink although nothing was learnt about them",
     grad=lambda s, page: np.zeros(s.old_theta.shape) if page(s) is None else page(s))
_add("gradient", "clip-ignored", "does not clip", "one large gradient spoils v for 1/(1-beta) steps",
     clip_value=lambda s, page: None)
_add("gradient", "clip-after-mean", "takes the mean square of the unclipped gradient; the page clips first",
     "clipping makes steps small where it should only tame outliers", g2=lambda s, page: page(s.but(g=s.grad)))
_add("gradient", "clip-by-norm", "scales the array's gradient to the norm clip_value; the page clips each entry",
     "clip_value means something else, which depends on the array's size",
     g=lambda s, page: shrunk(s, norm(s.grad)))
_add("gradient", "clip-by-largest",
     "scales the array's gradient so that no entry is larger than clip_value; the page clips each entry",
     "one outlier shrinks the steps of all",
     g=lambda s, page: shrunk(s, np.max(np.abs(s.grad), initial=0.0)))
_add("gradient", "clip-by-global-norm",
     "scales all gradients to the joint norm clip_value; the page clips each entry",
     "clip_value means something else, which depends on the whole model",
     g=lambda s, page: shrunk(s, norm(*(g for g in s.grads.values() if g is not None))))
_add("gradient", "clip-the-change", "clips the change of theta; the page clips the gradient",
     "outliers enter v unclipped", g=lambda s, page: s.grad, delta=lambda s, page: spec.clip(page(s), chi(s)))
_add("gradient", "l2-in-gradient", "adds extra_l2 * theta to the gradient; the page adds it to the decay",
     "the extra decay is divided by the gradient's size, as in Adam before AdamW",
     grad=lambda s, page: None if page(s) is None else page(s) + s.options["extra_l2"] * s.old_theta,
     extra_l2=lambda s, page: 0.0)

# reduce
_add("reduce", "sum-for-mean", "sums the squares; the page takes their mean",
     "steps shrink with the square root of the array's size",
     g2=lambda s, page: page(s) * max(s.g.size // max(s.old_v.size, 1), 1))
_add("reduce", "root-mean-square", "takes the root of the mean square; the page takes the mean square",
     "steps depend on the scale of the loss", g2=lambda s, page: np.sqrt(page(s)))
_add("reduce", "variance", "subtracts the gradient's mean before squaring; the page does not",
     "steps grow where gradients agree",
     g2=lambda s, page: page(s.but(g=s.g - np.add.reduce(s.g, None) / max(s.g.size, 1))))
_add("reduce", "variance-per-slot", "subtracts the gradient's mean over the slot before squaring; the page does not",
     "steps grow where gradients agree, without limit in slots of one entry",
     g2=lambda s, page: page(s.but(g=s.g - mean_of_slot(s.g, s.old_v.shape))))
_add("reduce", "mean-over-n-1", "divides the sum of squares by n - 1; the page by n", "small arrays step too little",
     g2=lambda s, page: page(s) * bessel(s.g.size // max(s.old_v.size, 1)))
_add("reduce", "mean-absolute", "squares the mean of |g|; the page takes the mean of g^2",
     "sparse gradients get larger steps", g2=lambda s, page: _squared_mean_absolute(s))
_add("reduce", "global-mean", "takes one mean square for all leaves; the page one for each slot",
     "leaves with small gradients hardly move", g2=over_all_leaves)
_add("reduce", "other-axes", "averages over the axes that the slot keeps, and keeps the others",
     "each row steps by the columns' gradients", slot=lambda s, page: other_axes(s.shapes[s.name], page(s)))
_add("reduce", "slots-tensor", "keeps one slot for each array, whatever slot_shape says",
     "rows with small gradients, as rare words have, hardly learn", slot=lambda s, page: ())
_add("reduce", "slots-at-first-axis",
     "aligns slots of fewer axes than the leaf at the first axis; the page at the last, as NumPy broadcasts",
     "other rows and columns share a slot than were asked for",
     slot=lambda s, page: at_first_axis(s.shapes[s.name], page(s)))
_add("reduce", "slots-element", "keeps one slot for each entry, whatever slot_shape says",
     "v and b cost two more arrays, and the decay is another for each entry", slot=lambda s, page: s.shapes[s.name])
_add("reduce", "slots-rows", "keeps one slot for each index of the first axis, whatever slot_shape says",
     "the decay is another for each row",
     slot=lambda s, page: tuple(n if i == 0 else 1 for i, n in enumerate(s.shapes[s.name])))
_add("reduce", "slots-columns", "keeps one slot for each index of the last axis, whatever slot_shape says",
     "the decay is another for each column",
     slot=lambda s, page: tuple(n if i == len(s.shapes[s.name]) - 1 else 1 for i, n in enumerate(s.shapes[s.name])))

# second moment
_add("second moment", "beta-swapped", "v = (1-beta) v + beta g2; the page has them the other way round",
     "v forgets at once: noisy steps", v=lambda s, page: spec.second_moment(s.old_v, s.g2, 1.0 - s.beta))
_add("second moment", "v-undamped", "v = beta v + g2, without (1-beta)", "steps are sqrt(1-beta) too small",
     v=lambda s, page: s.beta * s.old_v + s.g2)
_add("second moment", "v-summed", "v = v + g2, as in Adagrad", "steps vanish like 1/sqrt(t) on top of Amos's decay",
     v=lambda s, page: s.old_v + s.g2)
_add("second moment", "v-largest", "divides by the largest v so far, as in AMSGrad",
     "one outlier shrinks all later steps", r=lambda s, page: page(s.but(v=largest(s, s.v))))
_add("second moment", "v-starts-full", "starts v at the first mean square instead of at 0",
     "the bias correction then makes the first steps too large",
     v=lambda s, page: page(s if s.memory.setdefault("full", s.count) != s.count else s.but(old_v=s.g2)))

# bias correction
_add("bias correction", "bias-absent", "does not correct v's bias",
     "the first steps are up to 1/sqrt(1-beta) times too large", q=lambda s, page: 1.0)
_add("bias correction", "bias-one-ahead", "corrects with 1 - beta^(t+1); the page with 1 - beta^t",
     "the first step is sqrt(1 + beta) times too large", q=lambda s, page: page(s.but(t=s.t + 1)))
_add("bias correction", "bias-one-behind", "corrects with 1 - beta^(t-1); the page with 1 - beta^t",
     "the first step moves nothing, the next are too small", q=lambda s, page: page(s.but(t=max(s.t - 1, 0))))
_add("bias correction", "bias-twice", "corrects v's bias twice", "the first steps are far too small",
     q=lambda s, page: page(s) * page(s))
_add("bias correction", "bias-rooted", "corrects with sqrt(1 - beta^t) where the page has 1 - beta^t",
     "the first steps are too large", q=lambda s, page: np.sqrt(page(s)))
_add("bias correction", "bias-constant", "corrects with 1 - beta at every step", "later steps are far too small",
     q=lambda s, page: 1.0 - s.beta)
_add("bias correction", "bias-not-in-gamma", "corrects v's bias in the step, but not in gamma",
     "early decay is up to 1/(1-beta) times too strong", gamma=lambda s, page: page(s.but(r=s.r / s.q)))
_add("bias correction", "bias-not-in-step", "corrects v's bias in gamma, but not in the step",
     "the first steps are up to 1/sqrt(1-beta) times too large", alpha=lambda s, page: page(s.but(r=s.r / s.q)))

# epsilon
_add("epsilon", "epsilon-added", "divides by v + epsilon; the page by max(v, epsilon)",
     "steps shrink where gradients are small", r=lambda s, page: s.q / (s.v + s.epsilon))
_add("epsilon", "epsilon-on-root", "divides by sqrt(v) + epsilon, as Adam; the page by sqrt(max(v, epsilon))",
     "steps shrink where gradients are small", r=lambda s, page: s.q / np.square(np.sqrt(s.v) + s.epsilon))
_add("epsilon", "epsilon-on-corrected", "divides by max(v / (1-beta^t), epsilon); the page corrects after the max",
     "early steps are larger where gradients are small", r=lambda s, page: 1.0 / np.maximum(s.v / s.q, s.epsilon))
_add("epsilon", "epsilon-added-to-corrected", "divides by v / (1-beta^t) + epsilon; the page by max(v, epsilon)",
     "steps shrink where gradients are small", r=lambda s, page: 1.0 / (s.v / s.q + s.epsilon))
_add("epsilon", "epsilon-absent", "has no epsilon: divides by v, where the page has max(v, epsilon)",
     "a slot whose gradients were all 0 becomes NaN", epsilon=lambda s, page: 0.0)
_add("epsilon", "epsilon-underflows", "rounds epsilon to float16, which makes 0 of 2^-125; the page keeps it",
     "a slot whose gradients were all 0 becomes NaN", only=lambda case: case.dtype == "float16",
     epsilon=lambda s, page: float(np.float16(page(s))))
_add("epsilon", "epsilon-ignored",
     "does not heed epsilon: has 2^-125 or less whatever is asked for, or only a guard against division by 0",
     "epsilon cannot be set",
     epsilon=lambda s, page: 2.0**-125)
for _value in (1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 1e-15, 1e-16, 1e-18, 1e-20, 1e-30):
    _add("epsilon", f"epsilon-default-{_value:.0e}", f"has {_value:.0e} as default of epsilon; the page 2^-125",
         f"gradients much below {math.sqrt(_value):.0e} move nothing",
         epsilon=lambda s, page, value=_value: page(s) if "epsilon" in s.asked and heeds_epsilon(s, page) else value)

# c
_add("c", "c-absent", "leaves c out of gamma", "the decay falls too slowly", c=lambda s, page: page(s) * 0.0 + 1.0)
_add("c", "c-with-xi", "has xi in c where the page has sqrt(xi)", "c hardly falls",
     c=lambda s, page: page(s.but(xi=s.xi * s.xi)))
_add("c", "c-with-eta", "has sqrt(xi eta) in c where the page has sqrt(xi)", "the decay falls too slowly",
     c=lambda s, page: page(s.but(xi=s.xi * s.eta)))
_add("c", "c-without-root", "c = 1/(1 + c_coef sqrt(xi) b), without the root", "the decay falls too fast",
     c=lambda s, page: page(s) * page(s))
_add("c", "c-and-d-swapped", "decays the step by c and gamma by d", "steps fall too slowly, the decay too fast",
     c=lambda s, page: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.d_coef),
     d=lambda s, page: spec.decay_factor_c(s.old_b, s.xi, s.c_coef))
_add("c", "coefficients-swapped", "has c_coef in d and d_coef in c", "the two decays exchange their speed",
     c=lambda s, page: page(s.but(c_coef=s.d_coef)), d=lambda s, page: page(s.but(d_coef=s.c_coef)))
_add("c", "coefficients-ignored", "takes 1/4 for c_coef and d_coef, whatever is asked for", "they cannot be set",
     c_coef=lambda s, page: 0.25, d_coef=lambda s, page: 0.25)

# gamma
_add("gamma", "gamma-xi-once", "has xi in gamma where the page has xi^2", "decay and clock are 1/xi times too fast",
     gamma=lambda s, page: page(s) / s.xi if s.xi else page(s))
_add("gamma", "gamma-with-eta", "has (xi eta)^2 in gamma where the page has xi^2", "decay and clock are too slow",
     gamma=lambda s, page: page(s) * (s.eta * s.eta))
_add("gamma", "gamma-constant", "gamma = c xi^2, without g2/v", "the clock runs where gradients vanish",
     gamma=lambda s, page: s.c * (s.xi * s.xi) + 0.0 * s.g2)
_add("gamma", "gamma-rooted", "has sqrt(r g2) in gamma where the page has r g2",
     "the clock heeds outliers too little", gamma=lambda s, page: s.c * (s.xi * s.xi) * np.sqrt(s.r * s.g2))

# d
_add("d", "d-absent", "leaves d out: steps do not fall with b", "no convergence under gradient noise",
     d=lambda s, page: page(s) * 0.0 + 1.0)
_add("d", "d-without-eta", "has sqrt(xi) in d where the page has sqrt(xi eta)", "steps fall too fast where eta < 1",
     d=lambda s, page: page(s.but(eta=1.0)))
_add("d", "d-without-root", "has xi eta in d where the page has its root", "steps hardly fall",
     d=lambda s, page: page(s.but(xi=s.xi * s.xi, eta=s.eta * s.eta)))
_add("d", "d-rooted", "d = 1/sqrt(1 + ...); the page has no root", "steps fall too slowly",
     d=lambda s, page: np.sqrt(page(s)))
_add("d", "d-not-on-decay", "applies d to the gradient's term only", "weights decay too much late in training",
     rho=lambda s, page: page(s.but(d=1.0)))
_add("d", "d-not-on-step", "applies d to the decay only", "steps do not fall",
     alpha=lambda s, page: page(s.but(d=1.0)))
_add("d", "new-b-in-d", "uses b after its growth in d; the page before", "steps fall one step early",
     d=lambda s, page: page(s.but(old_b=spec.grown(s.old_b, s.gamma))))
_add("d", "new-b-in-c-and-d", "grows b first and uses it in c and d; the page uses the b before",
     "steps and decay fall one step early", d=lambda s, page: page(s.but(old_b=spec.grown(s.old_b, s.gamma))),
     rho=lambda s, page: page(s.but(gamma=_gamma_of_new_b(s))))

# eta
_add("eta", "eta-not-in-step", "leaves eta out of the step", "all arrays step alike, whatever their scale",
     alpha=lambda s, page: page(s.but(eta=1.0)))
_add("eta", "eta-twice", "has eta^2 in the step where the page has eta", "arrays of small scale hardly move",
     alpha=lambda s, page: page(s.but(eta=s.eta * s.eta)))
_add("eta", "xi-and-eta-swapped", "exchanges xi and eta", "decay and clock run at eta^2",
     xi=lambda s, page: s.etas[s.name], eta=lambda s, page: s.rates[s.count - 1])
_add("eta", "eta-ignored", "takes 1 for eta, whatever is asked for", "all arrays are trained towards one scale",
     eta=lambda s, page: 1.0)
_add("eta", "eta-first", "takes the first leaf's eta for all", "the other arrays are trained towards a wrong scale",
     eta=lambda s, page: next(iter(s.etas.values())))
_add("eta", "eta-fan-out", "takes sqrt(1 / size of the last axis) for eta, whatever is asked for",
     "(in, out) kernels are trained towards the scale of their transpose",
     eta=lambda s, page: math.sqrt(1.0 / (s.shapes[s.name] or (1,))[-1]))
_add("eta", "eta-fan-in", "takes sqrt(1 / size of the first axis) for eta, whatever is asked for",
     "eta cannot be set", eta=lambda s, page: math.sqrt(1.0 / (s.shapes[s.name] or (1,))[0]))
_add("eta", "eta-by-dimensions",
     "takes eta from the number of axes (0.5; sqrt(2/n) for two, else sqrt(1/n), n the size of axis 1)",
     "eta cannot be set, and (in, out) kernels get the scale of their transpose",
     eta=lambda s, page: _eta_by_dimensions(s.shapes[s.name]))

# step size, weight decay
_add("step size", "step-with-v", "divides by v where the page divides by its root",
     "steps depend on the loss's scale", alpha=lambda s, page: page(s.but(r=s.r * s.r)))
_add("weight decay", "extra_l2-sign", "subtracts extra_l2 where the page adds it",
     "weights are pushed away from zero", extra_l2=lambda s, page: -page(s))
_add("weight decay", "extra_l2-halved", "halves extra_l2", "half the extra decay",
     extra_l2=lambda s, page: page(s) / 2.0)
_add("weight decay", "extra_l2-doubled", "doubles extra_l2", "twice the extra decay",
     extra_l2=lambda s, page: page(s) * 2.0)
_add("weight decay", "extra_l2-ignored", "ignores extra_l2", "no extra decay", extra_l2=lambda s, page: 0.0)
_add("weight decay", "extra_l2-outside-d", "does not let extra_l2 fall with d", "the extra decay outlives the steps",
     rho=lambda s, page: page(s.but(extra_l2=s.extra_l2 / s.d)))
_add("weight decay", "extra_l2-times-xi", "multiplies extra_l2 by the learning rate, as AdamW does",
     "the extra decay is 1/xi times too weak", extra_l2=lambda s, page: page(s) * s.xi)
_add("weight decay", "extra_l2-decoupled",
     "takes xi extra_l2 theta away beside the change, as AdamW does: without d, and averaged by no momentum",
     "the extra decay is 1/xi times too weak, and outlives the steps", rho=lambda s, page: page(s.but(extra_l2=0.0)),
     theta=lambda s, page: page(s) - s.xi * s.extra_l2 * s.old_theta)
_add("weight decay", "extra_l2-times-xi-eta", "multiplies extra_l2 by xi eta", "the extra decay is far too weak",
     extra_l2=lambda s, page: page(s) * (s.xi * s.eta))
_add("weight decay", "gamma-whole", "decays by gamma where the page has gamma/2", "twice the weight decay",
     rho=lambda s, page: page(s.but(gamma=2.0 * s.gamma)))
_add("weight decay", "gamma-sign", "has -gamma/2 in the decay where the page has +gamma/2",
     "weights grow without end", rho=lambda s, page: page(s.but(gamma=-s.gamma)))
_add("weight decay", "gamma-not-in-decay", "does not decay by gamma/2", "no weight decay: Amos without its point",
     rho=lambda s, page: page(s.but(gamma=0.0 * s.gamma)))
_add("weight decay", "decay-times-xi", "multiplies the whole decay by the learning rate once more",
     "the decay is 1/xi times too weak", rho=lambda s, page: page(s) * s.xi)

# change
_add("change", "decay-after-step", "decays theta after the gradient's step; the page decays the theta before it",
     "the step itself is decayed too: off by rho times the step",
     delta=lambda s, page: page(s) + s.rho * (s.alpha * s.g))
_add("change", "sign-of-gradient", "steps by the sign of the gradient", "every entry moves alike, as in Lion",
     delta=lambda s, page: page(s.but(g=np.sign(s.g))))

# clock
_add("clock", "b-without-compounding", "b = b + gamma; the page has b + gamma (1 + b)", "late steps fall too slowly",
     b=lambda s, page: s.old_b + s.gamma)
_add("clock", "b-without-gamma", "b = b (1 + gamma), which stays 0", "neither steps nor decay ever fall",
     b=lambda s, page: s.old_b * (1.0 + s.gamma))
_add("clock", "b-with-half-gamma", "grows b by gamma/2 (1 + b)", "the clock runs at half its speed",
     b=lambda s, page: page(s.but(gamma=s.gamma / 2.0)))
_add("clock", "b-without-c", "grows b by a gamma without c", "the clock runs too fast",
     b=lambda s, page: page(s.but(gamma=s.gamma / s.c)))

# momentum
_add("momentum", "momentum-debiased", "divides the averaged change by 1 - mu^t", "the first steps are too large",
     theta=lambda s, page: page(s if s.m is None else s.but(m=s.m / (1.0 - s.momentum**s.t))))
_add("momentum", "momentum-undamped", "m = mu m + delta, without (1 - mu)", "steps are 1/(1-mu) times too large",
     m=lambda s, page: s.momentum * s.old_m + s.delta if s.momentum else None)
_add("momentum", "momentum-swapped", "m = (1-mu) m + mu delta", "hardly any averaging",
     m=lambda s, page: spec.average(s.old_m, s.delta, 1.0 - s.momentum) if s.momentum else None)
_add("momentum", "momentum-ignored", "ignores momentum", "no averaging", momentum=lambda s, page: None)
_add("momentum", "momentum-nesterov", "looks ahead: moves by mu m + (1-mu) delta with the new m",
     "averages less than asked for",
     theta=lambda s, page: page(s if s.m is None else s.but(m=spec.average(s.m, s.delta, s.momentum))))
_add("momentum", "momentum-without-decay", "averages the gradient's term only, and decays at once",
     "the decay is not smoothed", m=lambda s, page: _average_of_step(s) if s.momentum else None,
     theta=lambda s, page: page(s) - s.rho * s.old_theta if s.momentum else page(s))
_add("momentum", "momentum-without-extra_l2", "leaves extra_l2 out of the average, and applies it at once",
     "the extra decay is not smoothed", m=lambda s, page: _without_extra(s) if s.momentum else None,
     theta=lambda s, page: page(s) - s.d * s.extra_l2 * s.old_theta if s.momentum else page(s))
_add("momentum", "momentum-on-gradient", "averages the gradient and steps with that; the page averages the change",
     "the decay is not smoothed, and old gradients get the present step size",
     delta=lambda s, page: page(s.but(g=_average(s, "gradient", s.g))) if s.momentum else page(s),
     m=lambda s, page: None)
_add("momentum", "momentum-before-mean", "averages the gradient before everything else; the page averages the change",
     "v sees averaged gradients, so steps are too large",
     g=lambda s, page: _average(s, "gradient", page(s)) if s.momentum else page(s), m=lambda s, page: None)
_add("momentum", "momentum-held-back", "moves by the average before this step's change is in it",
     "every step comes one step late", theta=lambda s, page: page(s if s.m is None else s.but(m=s.old_m)))

# schedule, count
_add("schedule", "schedule-from-0", "reads the schedule from 0; the page calls schedule(1) first",
     "a warm-up moves less: its first rate is used twice", xi=lambda s, page: s.rates[max(s.count - 2, 0)])
_add("schedule", "schedule-one-ahead", "reads the schedule one step ahead", "a warm-up moves more",
     xi=lambda s, page: s.rates[min(s.count, len(s.rates) - 1)])
_add("schedule", "schedule-frozen", "keeps the first learning rate that is not 0", "no schedule",
     xi=lambda s, page: page(s) if "lr-tensor" in s.events.values() else next((x for x in s.rates if x), s.rates[0]))
_add("count", "count-per-leaf",
     "counts each leaf's own steps in the bias correction; the page has one count for the tree",
     "a leaf whose first gradient comes late starts with small steps", t=lambda s, page: own_count(s))

# storage
for _name in ("float32", "float16", "bfloat16"):
    _add("storage", f"state-{_name}", f"stores v, b and m as {_name}", "small growth of b and v is lost",
         **{what: lambda s, page, name=_name: stored(page(s), name) for what in ("v", "b", "m")})
storage.add_all(_add)
extremes.add_all(_add)
life.add_all(_add)
ways.add_all(_add)
# fmt: on


def _squared_mean_absolute(s: Any) -> Any:
    return np.square(spec.mean_square(np.sqrt(np.abs(s.g)), s.old_v.shape))


def _gamma_of_new_b(s: Any) -> Any:
    return s.gamma / s.c * spec.decay_factor_c(spec.grown(s.old_b, s.gamma), s.xi, s.c_coef)


def _eta_by_dimensions(shape: tuple[int, ...]) -> float:
    if len(shape) <= 1:
        return 0.5
    return math.sqrt((2.0 if len(shape) == 2 else 1.0) / shape[1])


def _average_of_step(s: Any) -> Any:
    return spec.average(s.old_m, -(s.alpha * s.g), s.momentum)


def _without_extra(s: Any) -> Any:
    rho = spec.weight_decay(s.d, s.gamma, 0.0)
    return spec.average(s.old_m, spec.change(s.alpha, s.g, rho, s.old_theta), s.momentum)
