"""The catalogue of the closed form, continued: sigma, the schedule, step size, weight decay, count and storage."""

import math
from typing import Any

import numpy as np

from amos_ref import closed_form, spec
from amos_ref.conformance.closed_form import life_deviations
from amos_ref.conformance.closed_form.deviations import CATALOGUE
from amos_ref.conformance.closed_form.formulas import AT_HALF, elapsed, initial, is_special
from amos_ref.conformance.diagnosis import extremes, storage
from amos_ref.conformance.diagnosis.deviation import bessel, count_of_leaves, own_count, stored

_add = CATALOGUE.add


def _measured(way: Any) -> Any:
    """Override sigma where it is measured."""
    return lambda s, page: way(s, page) if "sigma" in s.asked else page(s)


def _where_decay(decay: str, override: Any) -> Any:
    """Override something of one schedule."""
    return lambda s, page: override(s, page) if s.options["decay"] == decay else page(s)


def _rms(a: Any) -> float:
    return math.sqrt(float(np.add.reduce(np.square(a), None)) / max(a.size, 1))


def _mean_absolute(a: Any) -> float:
    return float(np.add.reduce(np.abs(a), None)) / a.size


def _spread(a: Any, ddof: int = 0) -> float:
    """The standard deviation; 0.5 for zeros and ones."""
    return (
        0.5
        if is_special(a)
        else _rms(a - float(np.add.reduce(a, None)) / a.size) * math.sqrt(bessel(a.size) if ddof else 1.0)
    )


# fmt: off
# sigma
_add("sigma", "sigma-missing", "leaves sigma out: alpha = alpha_0 / rms(u) exp(-2S)",
     "all arrays step alike, whatever their scale", sigma=lambda s, page: 1.0)
_add("sigma", "sigma-squared", "has sigma^2 where the page has sigma", "arrays of small scale hardly move",
     sigma=lambda s, page: page(s) * page(s))
_add("sigma", "sigma-rooted", "has sqrt(sigma) where the page has sigma",
     "arrays of small scale move too much", sigma=lambda s, page: np.sqrt(page(s)))
_add("sigma", "sigma-of-two", "has |eps_0|^2 = 2 k sigma^2, as the source derives; the document and the page k sigma^2",
     "steps are sqrt(2) times as large", sigma=lambda s, page: page(s) * math.sqrt(2.0))
_add("sigma", "sigma-ignored", "measures sigma in the initial entries, whatever sigma says", "sigma cannot be set",
     sigma=lambda s, page: closed_form.initial_sigma(initial(s)))
_add("sigma", "sigma-first", "takes the first leaf's sigma for all", "the other arrays step by a wrong scale",
     sigma=lambda s, page: page(s.but(name=next(iter(s.etas)))))
_add("sigma", "sigma-current", "measures sigma in the entries of every step, as LAMB; the page in the first ones",
     "steps follow the weights: small ones cannot grow",
     sigma=_measured(lambda s, page: closed_form.initial_sigma(s.old_theta)))
_add("sigma", "sigma-current-always", "takes the present root mean square of theta for sigma, whatever sigma says",
     "steps follow the weights: small ones cannot grow", sigma=lambda s, page: closed_form.initial_sigma(s.old_theta))
_add("sigma", "sigma-current-without-half",
     "takes the present root mean square of theta for a sigma that is measured, 0 for zeros, as LAMB",
     "steps follow the weights, and biases that start at 0 never move",
     sigma=_measured(lambda s, page: _rms(s.old_theta)))
_add("sigma", "half-missing", "measures sigma in arrays of zeros and of ones too; the page has 0.5 there",
     "biases that start at 0 never move", sigma=_measured(lambda s, page: _rms(initial(s))))
_add("sigma", "half-for-zeros-only", "has 0.5 for arrays of zeros, and measures 1 in those of ones; the page has 0.5",
     "gains step twice as far", sigma=_measured(lambda s, page: 0.5 if not initial(s).any() else _rms(initial(s))))
_add("sigma", "half-for-ones-only", "has 0.5 for arrays of ones, and measures 0 in those of zeros; the page has 0.5",
     "biases that start at 0 never move",
     sigma=_measured(lambda s, page: 0.5 if np.all(initial(s) == 1.0) else _rms(initial(s))))
_add("sigma", "half-for-vectors", "has 0.5 for every array with at most one axis, whatever its entries",
     "vectors of embeddings step by a wrong scale",
     sigma=_measured(lambda s, page: 0.5 if initial(s).ndim < 2 else _rms(initial(s))))
_add("sigma", "half-per-entry", "has 0.5 for each entry that is 0 or 1, and measures the array elsewhere",
     "entries that happen to be 0 or 1 step otherwise",
     delta=lambda s, page: page(s) if "sigma" not in s.asked else -(s.rho * s.old_theta) - s.alpha * s.u
     * np.where((initial(s) == 0) | (initial(s) == 1), 0.5 / s.sigma, 1.0))
_add("sigma", "half-always", "has 0.5 for every array where sigma is \"init\"", "the scale of an array does not count",
     sigma=_measured(lambda s, page: 0.5))
_add("sigma", "sigma-centred", "subtracts the mean when it measures sigma, as std() does; the page does not",
     "arrays far from 0 hardly move, constant ones not at all", sigma=_measured(lambda s, page: _spread(initial(s))))
_add("sigma", "sigma-centred-over-n-1", "takes the standard deviation over n - 1 for sigma, as torch.std does",
     "arrays far from 0 hardly move, small ones too much", sigma=_measured(lambda s, page: _spread(initial(s), 1)))
_add("sigma", "sigma-norm", "takes the norm of the initial entries for sigma; the page their root mean square",
     "steps grow with the square root of the array's size",
     sigma=_measured(lambda s, page: page(s) if is_special(initial(s)) else page(s) * math.sqrt(initial(s).size)))
_add("sigma", "sigma-mean-absolute", "takes the mean of |theta_0| for sigma; the page its root mean square",
     "steps are a fifth smaller for normal entries",
     sigma=_measured(lambda s, page: page(s) if is_special(initial(s)) else _mean_absolute(initial(s))))
_add("sigma", "half-for-constants", "has 0.5 for every constant array; the page for zeros and ones only",
     "layer scales of 1e-6 step as far as biases",
     sigma=_measured(lambda s, page: 0.5 if np.all(initial(s) == np.ravel(initial(s))[:1]) else page(s)))
_add("sigma", "sigma-of-slot", "measures sigma in each slot; the page in the array",
     "slots of small entries step less", sigma=_measured(lambda s, page: _of_slots(s, page)))

# schedule
_add("schedule", "t-from-1", "counts t from 1; the page from 0", "the first step is shrunk already",
     t=lambda s, page: page(s) + 1, n=lambda s, page: page(s) - 1)
_add("schedule", "sums-from-1", "sums S_t from i = 1, as the document writes it; its recursion and the page from 0",
     "the second step is as large as the first: all comes one step late",
     x=lambda s, page: elapsed(s, max(s.t - 1, 0)), shrink=lambda s, page: page(s.but(t=max(s.t - 1, 0))))
_add("schedule", "schedule-absent", "leaves exp(-2S) out", "no convergence under gradient noise",
     shrink=lambda s, page: 1.0)
_add("schedule", "exp-S", "has exp(-S) where the page has exp(-2S)", "steps and decay fall too slowly",
     shrink=lambda s, page: np.sqrt(page(s)))
_add("schedule", "exp-4S", "has exp(-4S) where the page has exp(-2S)", "steps and decay fall too fast",
     shrink=lambda s, page: page(s) * page(s))
_add("schedule", "p-constant", "has 1/(1 + x)^2, as for a constant p, whatever decay says",
     "steps vanish like 1/t^2: training freezes", falling=lambda s, page: False)
_add("schedule", "p-falling", "has 1/(1 + x), as for a falling p, whatever decay says", "steps fall too slowly",
     falling=lambda s, page: True)
_add("schedule", "half-life-of-constant-p",
     "turns half_life into (sqrt(2) - 1)/T for a falling p too; the page into 1/T for that",
     "the half-life comes 2.4 times too late",
     **{name: lambda s, page: page(s) * (AT_HALF if s.falling and s.half_life is not None else 1.0) for name in "xk"})
_add("schedule", "half-life-of-falling-p",
     "turns half_life into 1/T for a constant p too; the page into (sqrt(2) - 1)/T for that",
     "a quarter is left at the half-life",
     **{name: lambda s, page: page(s) * (1.0 if s.falling or s.half_life is None else 1.0 / AT_HALF) for name in "xk"})
_add("schedule", "half-life-doubled", "turns half_life into alpha_0 p_0 = 1/(2T), and has 1/(1 + alpha_0 p_0 t)",
     "the half-life comes twice too late",
     **{name: lambda s, page: page(s) / (2.0 if s.falling and s.half_life is not None else 1.0) for name in "xk"})
_add("schedule", "half-life-exponential", "halves at every half-life, exp(-2S) = 2^(-t/T); the page has 1/(1 + t/T)",
     "steps vanish: training freezes",
     shrink=lambda s, page: page(s) if s.half_life is None else float(0.5 ** (float(s.t) / float(s.half_life))))
_add("schedule", "schedule-exponential", "has exp(-2S) = exp(-x) where the page has 1/(1 + x), as exponential decay",
     "steps vanish: training freezes", shrink=lambda s, page: float(np.exp(-float(s.x))))
_add("schedule", "p_0-once", "has 1/(1 + alpha_0 p_0 t) for a falling p; the page has 2 alpha_0 p_0 t",
     "steps and decay fall at half the pace",
     **{name: lambda s, page: page(s) / (2.0 if s.falling and s.half_life is None else 1.0) for name in "xk"})
_add("schedule", "p_0-twice", "has 1/(1 + 2 alpha_0 p_0 t)^2 for a constant p; the page has alpha_0 p_0 t",
     "steps and decay fall at twice the pace",
     **{name: lambda s, page: page(s) * (2.0 if not s.falling and s.half_life is None else 1.0) for name in "xk"})
_add("schedule", "p_0-without-alpha_0", "has p_0 t where the page has alpha_0 p_0 t", "steps fall at once",
     **{name: lambda s, page: page(s) / (s.alpha_0 if s.half_life is None else 1.0) for name in "xk"})
_add("schedule", "q-in-schedule", "divides x by q, as if rho lacked its 1/q in S_{t+1} = S_t + p_t sqrt(2 q rho_t)",
     "steps and decay fall at another pace", **{name: lambda s, page: page(s) / s.q for name in "xk"})
_add("schedule", "recurrence-by-its-limit", "has the closed form where the recurrence is asked for",
     "hardly another number where alpha_0 p_0 is small",
     shrink=lambda s, page: page(s) if s.decay != "recurrence" else _limit(s))
_add("schedule", "recurrence-always", "sums the recurrence where a closed form is asked for",
     "hardly another number where alpha_0 p_0 is small", decay=lambda s, page: "recurrence",
     p_t=lambda s, page: "constant" if s.options["decay"] == "inverse-square" else page(s))
_add("schedule", "recurrence-with-new-S", "has exp(-S_{t+1}) in the place of exp(-S_t) in S_{t+1}, as an implicit step",
     "steps fall a little more slowly",
     shrink=lambda s, page: page(s) if s.decay != "recurrence" else _implicit(s))
_add("schedule", "recurrence-halved", "sums S with half of alpha_0 p_0 for a falling p",
     "steps fall at half the pace",
     k=lambda s, page: page(s) / (2.0 if s.falling and s.decay == "recurrence" else 1.0))
_add("schedule", "count-of-leaves", "counts every leaf's step in one count", "steps fall too fast",
     t=lambda s, page: count_of_leaves(s) - 1, n=lambda s, page: s.count + s.ahead)

# a slip in the code of one schedule, where a port has several
for _decay in ("inverse-time", "inverse-square", "recurrence"):
    for _name in ("t-from-1", "sums-from-1", "exp-S", "exp-4S"):
        _known = CATALOGUE[_name]
        _add("schedule", f"{_name}-in-{_decay}", f"with decay {_decay!r} alone, {_known.does}", _known.effect,
             **{stage: _where_decay(_decay, override) for stage, override in _known.overrides.items()})

# step size
_add("step size", "step-not-shrunk", "lets the decay fall, and not the step", "no convergence under gradient noise",
     alpha=lambda s, page: page(s.but(shrink=1.0)))
_add("step size", "step-exp-S", "has exp(-S) in the step and exp(-2S) in the decay", "steps fall too slowly",
     alpha=lambda s, page: page(s.but(shrink=np.sqrt(s.shrink))))
_add("step size", "step-alpha_0-squared", "has alpha_0^2 in the step where the page has alpha_0", "steps are tiny",
     alpha=lambda s, page: page(s) * s.alpha_0)
_add("step size", "step-at-most-1", "does not let sigma / rms(u) grow beyond 1", "small gradients steer less",
     ratio=lambda s, page: np.minimum(page(s), 1.0))
_add("step size", "step-not-normalised", "has alpha = alpha_0 exp(-2S), without sigma / rms(u)",
     "steps depend on the loss's scale", ratio=lambda s, page: 0.0 * page(s) + 1.0)

# weight decay
_add("weight decay", "decay-without-half", "has alpha_0^2 / q where the page has alpha_0^2 / (2q)",
     "twice the weight decay", rho=lambda s, page: page(s) * 2.0)
_add("weight decay", "decay-without-q", "has alpha_0^2 / 2 where the page has alpha_0^2 / (2q)", "q cannot be set",
     rho=lambda s, page: page(s.but(q=1.0)))
_add("weight decay", "decay-times-q", "has alpha_0^2 q / 2 where the page has alpha_0^2 / (2q)", "q acts the wrong way",
     rho=lambda s, page: page(s.but(q=1.0 / s.q)))
_add("weight decay", "decay-by-4q", "has alpha_0^2 / (4q) where the page has alpha_0^2 / (2q)", "half the weight decay",
     rho=lambda s, page: page(s) / 2.0)
_add("weight decay", "decay-q-squared", "has alpha_0^2 / (2q^2) where the page has alpha_0^2 / (2q)",
     "q counts twice", rho=lambda s, page: page(s) / s.q)
_add("weight decay", "decay-alpha_0-once", "has alpha_0 / (2q) where the page has alpha_0^2 / (2q)",
     "the decay is 1/alpha_0 times too strong", rho=lambda s, page: page(s) / s.alpha_0)
_add("weight decay", "decay-times-alpha_0", "multiplies the decay by alpha_0 once more, as AdamW does by its rate",
     "the decay is 1/alpha_0 times too weak", rho=lambda s, page: page(s) * s.alpha_0)
_add("weight decay", "decay-times-alpha", "multiplies the decay by the step size alpha",
     "the decay depends on the gradient", rho=lambda s, page: page(s) * s.alpha)
_add("weight decay", "decay-as-AdamW", "has alpha_0^2 / (2 sigma) exp(-2S), AdamW's rate times its weight decay",
     "the decay depends on sigma", rho=lambda s, page: page(s.but(q=1.0)) / s.sigma)
_add("weight decay", "decay-exp-4S", "lets rho fall as alpha^2, with exp(-4S); the page both with exp(-2S)",
     "the decay fades before the steps do", rho=lambda s, page: page(s) * s.shrink)
_add("weight decay", "decay-exp-S", "has exp(-S) in the decay and exp(-2S) in the step", "the decay outlives the steps",
     rho=lambda s, page: page(s.but(shrink=np.sqrt(s.shrink))))
_add("weight decay", "decay-not-shrunk", "does not let the decay fall: it is apart from the schedule",
     "weights decay to 0 in the end", rho=lambda s, page: page(s.but(shrink=1.0)))
_add("weight decay", "decay-sign", "has -rho where the page has +rho", "weights grow without end",
     rho=lambda s, page: -page(s))
_add("weight decay", "decay-absent", "does not decay", "no weight decay: half of the derivation is left out",
     rho=lambda s, page: 0.0 * page(s))
_add("weight decay", "decay-kernels-only", "does not decay arrays with fewer than two axes",
     "biases do not decay", rho=lambda s, page: page(s) if len(s.shapes[s.name]) > 1 else 0.0 * page(s))

# change
_add("change", "decay-after-step", "decays theta after the step; the page decays the theta before it",
     "the step itself is decayed too: off by rho times the step",
     delta=lambda s, page: page(s) + s.rho * (s.alpha * s.u))
_add("change", "decay-towards-start", "decays towards the initial entries; the page towards 0",
     "the prior is the initialisation", delta=lambda s, page: page(s.but(old_theta=s.old_theta - initial(s))))
_add("change", "theta-frozen", "never changes theta", "nothing is learnt", theta=lambda s, page: s.old_theta)

# count, storage
_add("count", "count-per-leaf", "counts each leaf's own steps; the page has one count for the tree",
     "a leaf whose first gradient comes late starts with the largest steps", t=lambda s, page: own_count(s) - 1)
_add("count", "count-twice", "counts every step twice in the schedule", "steps fall at twice the pace",
     t=lambda s, page: 2 * page(s), n=lambda s, page: s.count + s.ahead)
_add("storage", "schedule-float32", "computes exp(-2S) in float32", "the last digits of steps are lost",
     shrink=lambda s, page: stored(page(s), "float32"))
for _name in ("float32", "float16", "bfloat16"):
    _add("storage", f"state-{_name}", f"stores Adam's m and v as {_name}", "small gradients do not add up",
         **{what: lambda s, page, name=_name: stored(page(s), name) for what in "mv"})
storage.add_all(_add)
extremes.add_broken(_add)
life_deviations.add_all(_add)
extremes.add_counters(_add, "from there on the schedule is that of another step")
_add("epsilon", "nan-dropped-by-max",
     "divides by epsilon where u2 is NaN, as fmax(u2, epsilon) does, or -ffast-math; the page keeps NaN",
     "entries beside a broken one jump far away", only=extremes.is_spoilt,
     ratio=lambda s, page: s.sigma / np.sqrt(np.fmax(s.u2, s.epsilon)))
# fmt: on


def _of_slots(s: Any, page: Any) -> Any:
    first = initial(s)
    if is_special(first):
        return page(s)
    return np.sqrt(spec.mean_square(np.asarray(first), s.slot))


def _limit(s: Any) -> Any:
    return (closed_form.shrink_inverse_time if s.falling else closed_form.shrink_inverse_square)(s.x)


def _implicit(s: Any) -> float:
    """exp(-2 S_t) with R = R_old + k exp(-R), solved for R at each step; R is S, or 2 S for a falling p."""
    from scipy.special import lambertw

    total, k = 0.0, float(s.k)
    for _ in range(int(s.t)):
        total = total + float(lambertw(k * math.exp(-total)).real)
    return math.exp(-total if s.falling else -2.0 * total)
