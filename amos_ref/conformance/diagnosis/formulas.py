"""The catalogue, continued: other aggregations, places and orders, as they were met in ports and in trials."""

from typing import Any

import numpy as np

from amos_ref import spec
from amos_ref.conformance.diagnosis.deviation import chi, count_of_leaves, global_mean_square, norm, stored
from amos_ref.conformance.diagnosis.deviations import _add


def _axes(s: Any) -> tuple[int, ...]:
    """The axes that the slot averages over."""
    aligned = (1,) * (s.g.ndim - s.old_v.ndim) + s.old_v.shape
    return tuple(i for i, n in enumerate(aligned) if n != s.g.shape[i])


def _over_slot(s: Any, function: Any) -> Any:
    """Apply a function of NumPy's to g, slot by slot."""
    return function(s.g, axis=_axes(s), keepdims=True).reshape(s.old_v.shape)


def _root_of_sum(s: Any) -> Any:
    """The norm of each slot's gradient, in a shape that broadcasts with it; 1 where it is 0."""
    norm = np.sqrt(np.add.reduce(s.grad * s.grad, axis=_axes(s.but(g=s.grad)), keepdims=True))
    return np.where(norm == 0, 1.0, norm)


def _mean_clipped(s: Any, most: float) -> Any:
    return _over_slot(s.but(g=np.minimum(s.g * s.g, most)), np.add.reduce) / _count(s)


def _count(s: Any) -> int:
    """How many entries a slot has."""
    return max(s.g.size // max(s.old_v.size, 1), 1)


def _rms(a: Any) -> Any:
    return np.sqrt(np.add.reduce(np.ravel(a * a)) / np.size(a)) if np.size(a) else 0.0


def _ratio(over: Any, under: Any) -> Any:
    """A trust ratio: 1 where either norm is 0."""
    over, under = norm(over), norm(under)
    return over / under if over > 0 and under > 0 else 1.0


def _kept(s: Any, name: str, new: Any, first: Any) -> Any:
    """Return what was kept under a name at the step before, and keep something new."""
    old = s.memory.get(name, first)
    s.memory[name] = new
    return old


def _first(s: Any, name: str, value: Any) -> Any:
    return s.memory.setdefault(name, value)


def _mean_of_leaf(s: Any) -> Any:
    return float(np.add.reduce(s.g * s.g, None)) / max(s.g.size, 1)


def _rank(s: Any) -> int:
    return len(s.shapes[s.name])


# fmt: off
# gradient
_add("gradient", "clip-by-rms",
     "scales the array's gradient to the root mean square clip_value; the page clips each entry",
     "clip_value means something else", g=lambda s, page: s.grad * min(1.0, chi(s) / (_rms(s.grad) or 1.0)))
_add("gradient", "clip-by-norm-of-slot",
     "scales each slot's gradient to the norm clip_value; the page clips each entry",
     "clip_value means something else, which depends on the slot's size",
     g=lambda s, page: s.grad * np.minimum(1.0, chi(s) / _root_of_sum(s)))
_add("gradient", "clip-to-zero", "takes 0 for entries beyond clip_value; the page takes clip_value",
     "outliers do not count at all", g=lambda s, page: np.where(np.abs(s.grad) > chi(s), 0.0, s.grad))
_add("gradient", "clip-of-squares", "clips g^2, in the mean square only, at clip_value; the page clips g",
     "outliers still move theta", g=lambda s, page: s.grad, g2=lambda s, page: _mean_clipped(s, chi(s)))
_add("gradient", "clip-not-in-gamma", "takes the unclipped gradient's mean square in gamma, and the clipped one's in v",
     "outliers speed up decay and clock",
     gamma=lambda s, page: page(s.but(g2=spec.mean_square(s.grad, s.old_v.shape))))
_add("gradient", "clip-in-mean-only", "clips what enters the mean square, and steps with the unclipped gradient",
     "outliers still move theta", delta=lambda s, page: page(s.but(g=s.grad)))
_add("gradient", "clip-from-above-only", "clips at +clip_value, and not at -clip_value", "half of the outliers stay",
     g=lambda s, page: np.minimum(s.grad, chi(s)))
_add("gradient", "clip-normalised", "clips the gradient divided by its root mean square; the page clips the gradient",
     "clip_value means something else",
     g=lambda s, page: s.grad,
     delta=lambda s, page: page(s.but(g=spec.clip(s.g * np.sqrt(s.r), chi(s)) / np.sqrt(s.r))))
_add("gradient", "gradient-centred", "subtracts the gradient's mean before everything else", "the mean does not move",
     g=lambda s, page: page(s) - np.add.reduce(page(s), None) / max(s.old_theta.size, 1))
_add("gradient", "gradient-normalised", "divides the array's gradient by its norm before everything else",
     "all steps count alike in v", g=lambda s, page: page(s) / (norm(page(s)) or 1.0))

# reduce
_add("reduce", "largest-square", "takes the largest g^2 of the slot; the page takes their mean", "steps are too small",
     g2=lambda s, page: _over_slot(s.but(g=s.g * s.g), lambda a, **k: np.max(a, initial=0.0, **k)))
_add("reduce", "norm-for-mean", "takes the norm of the gradient; the page takes its mean square",
     "steps depend on the loss's scale and on the array's size",
     g2=lambda s, page: np.sqrt(page(s) * _count(s)))
_add("reduce", "median-square", "takes the median of g^2; the page takes the mean", "outliers do not count",
     g2=lambda s, page: _over_slot(s.but(g=(s.g * s.g).view(np.ndarray)), np.median) if s.g.size else page(s))
_add("reduce", "square-of-mean", "squares the mean of g; the page takes the mean of g^2", "noise does not count",
     g2=lambda s, page: np.square(_over_slot(s, np.add.reduce) / _count(s)))
_add("reduce", "mean-over-array", "takes the mean over the whole array for every slot", "slots do not differ",
     g2=lambda s, page: page(s) * 0.0 + _mean_of_leaf(s))
_add("reduce", "mean-over-array-size", "sums over the slot and divides by the whole array's size",
     "steps grow with the root of the number of slots", g2=lambda s, page: page(s) / max(s.old_v.size, 1))
_add("reduce", "mean-over-slots-number", "sums over the slot and divides by the number of slots",
     "steps depend on the array's shape", g2=lambda s, page: page(s) * _count(s) / max(s.old_v.size, 1))
_add("reduce", "global-sum", "takes the sum of squares over all leaves; the page one mean for each slot",
     "all leaves step alike, and too little", g2=lambda s, page: page(s) * 0.0 + global_mean_square(s) * _entries(s))
_add("reduce", "global-largest", "takes the largest g^2 of all leaves; the page one mean for each slot",
     "all leaves step alike, and too little", g2=lambda s, page: page(s) * 0.0 + _global_largest(s))

_add("reduce", "smallest-square", "takes the smallest g^2 of the slot; the page takes their mean",
     "steps are too large",
     g2=lambda s, page: _over_slot(s.but(g=s.g * s.g), np.minimum.reduce) if s.g.size else page(s))
_add("reduce", "mean-over-n+1", "divides the sum of squares by n + 1; the page by n", "small arrays step too much",
     g2=lambda s, page: page(s) * (_count(s) / (_count(s) + 1.0)))
_add("reduce", "mean-of-nonzero", "takes the mean over the entries that are not 0", "sparse gradients step too little",
     g2=lambda s, page: page(s) * _count(s) / np.maximum(_over_slot(s.but(g=1.0 * (s.g != 0)), np.add.reduce), 1.0))
_add("reduce", "mean-over-first-axis", "divides the sum of squares by the size of the first axis",
     "steps shrink with the size of the other axes", g2=lambda s, page: page(s) * _count(s) / (s.g.shape or (1,))[0])

_add("reduce", "mean-square-of-g-theta", "takes the mean square of g theta; the page takes that of g",
     "steps depend on the weights, and those of zeros are huge",
     g2=lambda s, page: page(s.but(g=s.g * s.old_theta)))
_add("reduce", "mean-square-of-differences", "takes the mean square of g minus the g before; the page takes that of g",
     "steps are large where gradients agree", g2=lambda s, page: page(s.but(g=s.g - _kept(s, "g", s.g, 0.0 * s.g))))
_add("reduce", "mean-square-about-average",
     "takes the mean square of g minus its average with beta, as AdaBelief; the page takes that of g",
     "steps are large where gradients agree", g2=lambda s, page: page(s.but(g=s.g - _smoothed(s))))

# second moment
_add("second moment", "v-of-deviation", "averages (g2 - v)^2; the page averages g2", "v is of another order",
     v=lambda s, page: page(s.but(g2=np.square(s.g2 - s.old_v))))
_add("second moment", "v-never-falls", "keeps the larger of the old and the new v, as AMSGrad without its second state",
     "one outlier shrinks all later steps", v=lambda s, page: np.maximum(s.old_v, page(s)))
_add("second moment", "v-corrected-in-place", "stores v / (1 - beta^t), and averages that again",
     "the first mean squares count too much", v=lambda s, page: page(s) / spec.one_minus_power(s.beta, s.t),
     r=lambda s, page: 1.0 / np.maximum(s.v, s.epsilon))
_add("second moment", "beta-of-adafactor", "has 1 - t^-0.8 for beta, as Adafactor", "v never forgets",
     beta=lambda s, page: 1.0 - float(s.t) ** -0.8)
_add("second moment", "beta-of-adafactor-in-v", "has 1 - t^-0.8 for beta in v, and beta in the bias correction",
     "v never forgets, and the first steps are too large", v=lambda s, page: page(s.but(beta=1.0 - float(s.t) ** -0.8)))
_add("second moment", "v-stale", "divides by v before it is renewed", "the first step divides by epsilon",
     r=lambda s, page: page(s.but(v=s.old_v)))
_add("second moment", "v-stale-in-step", "divides by v before it is renewed in the step, and by the new v in gamma",
     "the first step divides by epsilon", alpha=lambda s, page: page(s.but(r=spec.reciprocal(s.old_v, s.q, s.epsilon))))
_add("second moment", "v-stale-in-gamma", "divides by v before it is renewed in gamma, and by the new v in the step",
     "the first decay divides by epsilon",
     gamma=lambda s, page: page(s.but(r=spec.reciprocal(s.old_v, s.q, s.epsilon))))
_add("second moment", "v-stale-in-gamma-later", "divides by v before it is renewed in gamma, but at the first step",
     "decay and clock are noisy", gamma=lambda s, page: page(
         s.but(r=spec.reciprocal(s.v if s.count == 1 else s.old_v, s.q, s.epsilon))))
_add("second moment", "v-frozen", "keeps the first v", "steps no longer heed the gradient's size",
     v=lambda s, page: _first(s, "v", page(s)))
_add("second moment", "v-forgets", "divides by the present mean square alone", "every step has one size: noisy",
     r=lambda s, page: spec.reciprocal(s.g2, 1.0, s.epsilon))
_add("second moment", "v-of-largest", "v = max(beta v, g2), as Adamax has it", "one outlier shrinks later steps",
     v=lambda s, page: np.maximum(s.beta * s.old_v, s.g2))
_add("second moment", "v-averaged-evenly", "averages all mean squares alike, by 1/t", "v never forgets",
     v=lambda s, page: s.old_v + (s.g2 - s.old_v) / s.t)
_add("second moment", "v-starts-at-1", "starts v at 1 instead of at 0", "the first steps depend on the loss's scale",
     v=lambda s, page: page(s if s.memory.setdefault("one", s.count) != s.count else s.but(old_v=s.old_v * 0.0 + 1.0)))
_add("second moment", "v-of-root", "averages the root mean square and squares it afterwards",
     "outliers count less", v=lambda s, page: np.square(spec.second_moment(np.sqrt(s.old_v), np.sqrt(s.g2), s.beta)))
_add("second moment", "beta-squared", "has beta^2 where the page has beta", "v forgets twice as fast",
     beta=lambda s, page: page(s) * page(s))
_add("second moment", "beta-rooted", "has sqrt(beta) where the page has beta", "v forgets half as fast",
     beta=lambda s, page: np.sqrt(page(s)))
_add("second moment", "beta-ignored", "takes 0.999 for beta, whatever is asked for", "beta cannot be set",
     beta=lambda s, page: 0.999)
_add("second moment", "beta-ignored-in-correction", "corrects v's bias with 0.999 for beta, whatever is asked for",
     "the first steps are far too large", q=lambda s, page: page(s.but(beta=0.999)))

# epsilon
_add("epsilon", "epsilon-roots-added", "divides by (sqrt(v) + sqrt(epsilon))^2; the page by max(v, epsilon)",
     "steps shrink where gradients are small", r=lambda s, page: s.q / np.square(np.sqrt(s.v) + np.sqrt(s.epsilon)))
_add("epsilon", "epsilon-max-on-root", "divides by max(sqrt(v), epsilon), squared; the page by max(v, epsilon)",
     "epsilon acts at a much smaller v", r=lambda s, page: s.q / np.square(np.maximum(np.sqrt(s.v), s.epsilon)))
_add("epsilon", "epsilon-on-corrected-root", "divides by sqrt(v / (1-beta^t)) + epsilon, as Adam",
     "steps shrink where gradients are small",
     r=lambda s, page: 1.0 / np.square(np.sqrt(s.v / s.q) + s.epsilon))
_add("epsilon", "epsilon-added-in-step", "divides by v + epsilon in the step, and by max(v, epsilon) in gamma",
     "steps shrink where gradients are small",
     alpha=lambda s, page: page(s.but(r=s.q / (s.v + s.epsilon))))
_add("epsilon", "epsilon-on-root-in-step",
     "divides by sqrt(v) + epsilon in the step; the page by sqrt(max(v, epsilon))",
     "steps shrink where gradients are small",
     alpha=lambda s, page: page(s.but(r=s.q / np.square(np.sqrt(s.v) + s.epsilon))))
_add("epsilon", "epsilon-added-in-gamma", "divides by v + epsilon in gamma, and by max(v, epsilon) in the step",
     "decay and clock are slower where gradients are small",
     gamma=lambda s, page: page(s.but(r=s.q / (s.v + s.epsilon))))
_add("epsilon", "epsilon-in-gamma-only", "divides by max(v, epsilon) in gamma, and by v in the step",
     "slots with small gradients take large steps",
     alpha=lambda s, page: page(s.but(r=s.q / np.where(s.v == 0, 1.0, s.v))))
_add("epsilon", "epsilon-in-mean-square", "adds epsilon to the mean square", "small gradients count as larger ones",
     g2=lambda s, page: page(s) + s.epsilon)

# c, d
_add("c", "c-as-d", "has d's formula for c", "the decay falls too fast",
     c=lambda s, page: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.d_coef))
_add("c", "c-in-form-of-d", "has 1/(1 + c_coef sqrt(xi eta) b) for c", "the decay falls too fast",
     c=lambda s, page: spec.decay_factor_d(s.old_b, s.xi, s.eta, s.c_coef))
_add("d", "d-as-c", "has c's formula for d", "steps fall too slowly",
     d=lambda s, page: spec.decay_factor_c(s.old_b, s.xi, s.c_coef))
_add("c", "c_coef-in-d", "has c_coef in d as well", "d_coef cannot be set", d_coef=lambda s, page: s.c_coef)
_add("c", "d_coef-in-c", "has d_coef in c as well", "c_coef cannot be set",
     c=lambda s, page: page(s.but(c_coef=s.d_coef)))
_add("c", "c-with-1+b", "has 1 + b where the page has b in c", "the decay is too weak from the first step on",
     c=lambda s, page: page(s.but(old_b=1.0 + s.old_b)))
_add("d", "d-with-1+b", "has 1 + b where the page has b in d", "steps are too small from the first one on",
     d=lambda s, page: page(s.but(old_b=1.0 + s.old_b)))
_add("c", "new-b-in-c", "uses b after its growth in c, and grows it by that gamma",
     "decay and clock fall one step early",
     gamma=lambda s, page: _gamma_of_grown(s, page))
_add("d", "d-of-earlier-b", "uses the b of the step before in d", "steps fall one step late",
     d=lambda s, page: page(s.but(old_b=_kept(s, "b", s.old_b, s.old_b))))
_add("d", "c-on-step", "decays the step by c as well as by d", "steps fall too fast",
     alpha=lambda s, page: page(s) * s.c)

# eta
_add("eta", "eta-half", "takes 0.5 for eta, whatever is asked for", "all arrays are trained towards one scale",
     eta=lambda s, page: 0.5)
_add("eta", "eta-largest", "takes the largest eta for all leaves", "arrays of small scale step too much",
     eta=lambda s, page: max(s.etas.values(), key=float))
_add("eta", "eta-of-theta", "takes the root mean square of the present theta for eta",
     "the step follows the weights, as in LAMB, and those of zeros do not move", eta=lambda s, page: _rms(s.old_theta))
_add("eta", "eta-of-first-theta", "takes the root mean square of the first theta for eta",
     "arrays that start at zero do not move", eta=lambda s, page: _first(s, "eta", _rms(s.old_theta)))

# step size, change
_add("step size", "trust-ratio", "multiplies the change by the norm of theta over that of the change, as LAMB does",
     "steps do not fall with d", delta=lambda s, page: page(s) * _ratio(s.old_theta, page(s)))
_add("step size", "trust-ratio-with-xi", "multiplies the change by xi times the norm of theta over that of the change",
     "steps do not fall with d", delta=lambda s, page: page(s) * s.xi * _ratio(s.old_theta, page(s)))
_add("step size", "trust-ratio-of-gradient",
     "multiplies the step by the norm of theta over that of the gradient (LARS)",
     "steps depend on the loss's scale", alpha=lambda s, page: page(s) * _ratio(s.old_theta, s.g))
_add("step size", "step-and-decay-rooted", "divides the decay by the root of v-hat as well",
     "small gradients, more decay",
     rho=lambda s, page: page(s) * np.sqrt(s.r))

# weight decay
_add("weight decay", "decay-not-on-vectors", "does not decay arrays of fewer than two axes",
     "biases and gains keep what they learnt early", rho=lambda s, page: page(s) * (1.0 if _rank(s) > 1 else 0.0))
_add("weight decay", "extra_l2-not-on-vectors", "applies extra_l2 to arrays of two axes and more only",
     "biases and gains are not decayed", extra_l2=lambda s, page: page(s) if _rank(s) > 1 else 0.0)
_add("weight decay", "decay-of-sign", "decays by the sign of theta, as L1 does", "small weights become zero",
     delta=lambda s, page: page(s.but(old_theta=np.sign(s.old_theta))))
_add("weight decay", "decay-towards-start", "decays towards the first theta", "weights stay near where they began",
     delta=lambda s, page: page(s.but(old_theta=s.old_theta - _first(s, "start", s.old_theta))))
_add("weight decay", "decay-towards-mean", "decays towards the mean of the array's entries",
     "weights come near to each other, not to 0",
     delta=lambda s, page: page(s.but(old_theta=s.old_theta - np.add.reduce(s.old_theta, None) / s.old_theta.size)))
_add("weight decay", "gamma-in-extra_l2-only", "decays by gamma * extra_l2 where the page has gamma/2 + extra_l2",
     "hardly any decay", rho=lambda s, page: s.d * s.gamma * s.extra_l2)
_add("weight decay", "gamma-of-step-before", "decays by the gamma of the step before", "the decay comes one step late",
     rho=lambda s, page: page(s.but(gamma=_kept(s, "gamma", s.gamma, 0.0 * s.gamma))))
_add("weight decay", "decay-by-extra_l2-gamma-not-on-vectors",
     "has gamma/2 in the decay of arrays of two axes and more only", "biases do not decay by themselves",
     rho=lambda s, page: page(s if _rank(s) > 1 else s.but(gamma=0.0 * s.gamma)))

# gamma, clock
_add("gamma", "gamma-at-most-1", "lets gamma be 1 at most", "the clock runs too slowly at a large learning rate",
     gamma=lambda s, page: np.minimum(page(s), 1.0))
_add("weight decay", "rho-at-most-1", "lets rho be 1 at most; the page lets weights change their sign",
     "weights keep their sign at a large learning rate", rho=lambda s, page: np.minimum(page(s), 1.0))
_add("gamma", "gamma-of-v", "has r v in gamma where the page has r g2", "the clock runs where gradients vanish",
     gamma=lambda s, page: page(s.but(g2=s.v)))
_add("clock", "b-frozen", "never renews b", "neither steps nor decay ever fall", b=lambda s, page: s.old_b)
_add("clock", "b-exponential", "b = (1 + b) exp(gamma) - 1; the page has b + gamma (1 + b)", "the clock runs fast",
     b=lambda s, page: (1.0 + s.old_b) * np.exp(s.gamma) - 1.0)
_add("clock", "b-one-late", "grows b by the gamma of the step before", "steps and decay fall one step late",
     b=lambda s, page: page(s.but(gamma=_kept(s, "late", s.gamma, 0.0 * s.gamma))))
_add("clock", "b-averaged", "b = beta b + gamma (1 + b)", "the clock runs slow",
     b=lambda s, page: page(s) - (1.0 - s.beta) * s.old_b)
_add("clock", "b-as-average", "b = beta b + (1 - beta) gamma (1 + b); the page has b + gamma (1 + b)",
     "the clock comes to rest where the page's goes on",
     b=lambda s, page: s.beta * s.old_b + (1.0 - s.beta) * (page(s) - s.old_b))
_add("clock", "b-at-most-1", "does not let b grow beyond 1", "steps and decay stop falling",
     b=lambda s, page: np.minimum(page(s), 1.0))
_add("clock", "b-mean-over-slots", "keeps one b for each array, grown by the mean gamma of its slots",
     "slots with few gradients fall with the others",
     b=lambda s, page: page(s) * 0.0 + np.add.reduce(page(s), None) / max(np.size(s.gamma), 1))
_add("clock", "b-of-new-b", "b = b + gamma (1 + b + gamma), as if b were renewed before its use in its own growth",
     "the clock runs fast", b=lambda s, page: s.old_b + s.gamma * (1.0 + s.old_b + s.gamma))
_add("clock", "b-with-rho", "grows b by rho (1 + b)", "the clock runs at less than half its speed",
     b=lambda s, page: page(s.but(gamma=s.rho)))

# momentum
_add("momentum", "momentum-starts-full", "starts the average at the first change instead of at 0",
     "the first steps are 1/(1-mu) times larger",
     m=lambda s, page: page(s) if not s.momentum or s.memory.setdefault("full m", s.count) != s.count else s.delta)
_add("momentum", "momentum-without-xi", "averages the change without its learning rate, which is applied afterwards",
     "a schedule acts at once on old changes",
     theta=lambda s, page: page(s) if s.m is None else s.old_theta + s.m * s.xi,
     m=lambda s, page: spec.average(s.old_m, s.delta / (s.xi or 1.0), s.momentum) if s.momentum else None)
_add("momentum", "momentum-nesterov-undamped", "m = mu m + delta, and moves by delta + mu m",
     "steps are 1/(1-mu) times too large",
     m=lambda s, page: s.momentum * s.old_m + s.delta if s.momentum else None,
     theta=lambda s, page: page(s if s.m is None else s.but(m=s.delta + s.momentum * s.m)))
_add("momentum", "momentum-on-normalised-gradient",
     "averages the gradient over its root mean square, and steps with that",
     "the decay is not smoothed, and old gradients get the present step size",
     delta=lambda s, page: page(s.but(g=_averaged(s, s.g * np.sqrt(s.r)) / np.sqrt(s.r))) if s.momentum else page(s),
     m=lambda s, page: None)
_add("momentum", "momentum-on-gradient-undamped", "m = mu m + g, and steps with that; the page averages the change",
     "steps are 1/(1-mu) times too large",
     delta=lambda s, page: page(s.but(g=_summed(s, s.g))) if s.momentum else page(s), m=lambda s, page: None)
_add("momentum", "momentum-on-gradient-debiased", "steps with the average of gradients over 1 - mu^t, as Adam does",
     "the decay is not smoothed",
     delta=lambda s, page: page(s.but(g=_averaged(s, s.g) / (1.0 - s.momentum**s.t))) if s.momentum else page(s),
     m=lambda s, page: None)

# count
_add("momentum", "momentum-with-new-d", "averages the change without d, and multiplies the average by d",
     "old changes fall with the present d", delta=lambda s, page: page(s) / s.d if s.momentum else page(s),
     theta=lambda s, page: page(s if s.m is None else s.but(m=s.m * s.d)))
_add("momentum", "clip-the-average", "clips what theta moves by, averaged or not; the page clips the gradient",
     "outliers enter v unclipped", g=lambda s, page: s.grad,
     theta=lambda s, page: s.old_theta + spec.clip(s.delta if s.m is None else s.m, chi(s)))

# schedule, storage
_add("schedule", "schedule-largest", "takes the largest learning rate so far", "the rate never falls",
     xi=lambda s, page: max(s.rates[: s.count]))
_add("schedule", "schedule-first", "keeps the learning rate of the first step, also where it is 0",
     "a warm-up from 0 never begins", xi=lambda s, page: s.rates[0])
for _name in ("float32", "float16", "bfloat16"):
    for _part in ("v", "b", "m"):
        _add("storage", f"{_part}-in-{_name}", f"stores {_part} as {_name}, and the rest as it is",
             "small growth is lost", **{_part: lambda s, page, name=_name: stored(page(s), name)})
    _add("storage", f"change-in-{_name}", f"rounds the change of theta to {_name}", "small changes are coarse",
         delta=lambda s, page, name=_name: stored(page(s), name))
    _add("storage", f"movement-in-{_name}",
         f"rounds what is added to theta, averaged by momentum or not, to {_name}", "small changes are coarse",
         theta=lambda s, page, name=_name: s.old_theta + stored(s.delta if s.m is None else s.m, name))

# count
_add("count", "count-of-leaves", "counts every leaf's step in one count", "the bias correction ends too early",
     t=lambda s, page: count_of_leaves(s))
_add("count", "count-twice", "counts every step twice", "the bias correction ends too early",
     t=lambda s, page: 2 * page(s))

# apply
_add("change", "theta-frozen", "never changes theta", "nothing is learnt", theta=lambda s, page: s.old_theta)
_add("change", "theta-not-decayed-in-momentum", "adds the change to theta and the averaged change again",
     "steps are twice too large",
     theta=lambda s, page: page(s) + (0.0 if s.m is None else s.delta))
# fmt: on


def _entries(s: Any) -> int:
    return sum(g.size for g in s.grads.values() if g is not None)


def _global_largest(s: Any) -> float:
    clipped = [spec.clip(g, chi(s)) for g in s.grads.values() if g is not None]
    return max((float(np.max(g * g, initial=0.0)) for g in clipped), default=0.0)


def _gamma_of_grown(s: Any, page: Any) -> Any:
    return page(s.but(c=spec.decay_factor_c(spec.grown(s.old_b, page(s)), s.xi, s.c_coef)))


def _averaged(s: Any, new: Any) -> Any:
    mu = s.momentum or 0.0
    s.memory["averaged"] = mu * s.memory.get("averaged", 0.0) + (1.0 - mu) * new
    return s.memory["averaged"]


def _smoothed(s: Any) -> Any:
    s.memory["smoothed"] = s.beta * s.memory.get("smoothed", 0.0) + (1.0 - s.beta) * s.g
    return s.memory["smoothed"]


def _summed(s: Any, new: Any) -> Any:
    s.memory["summed"] = (s.momentum or 0.0) * s.memory.get("summed", 0.0) + new
    return s.memory["summed"]
