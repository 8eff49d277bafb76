"""Amos for one array in exact arithmetic, element by element: the oracle of the page.

Written from the algorithm's description alone; it imports nothing of the package. Numbers are
fractions.Fraction; square roots are taken to 60 digits. The defined order of summation and the rounding to
narrow formats are here as well, as slow loops.
"""

import itertools
from decimal import Decimal, localcontext
from fractions import Fraction

DIGITS = 60
FORMATS = {"float16": (11, -14, 15), "bfloat16": (8, -126, 127)}  # significand bits, least and greatest exponent


def root(x):
    with localcontext() as context:
        context.prec = DIGITS
        return Fraction((Decimal(x.numerator) / Decimal(x.denominator)).sqrt())


def slot_of(index, slot_shape):
    tail = index[len(index) - len(slot_shape) :]
    return tuple(0 if n == 1 else i for i, n in zip(tail, slot_shape, strict=True))


def step(
    theta, g, v, b, m, shape, slot_shape, t,
    *, xi, eta, beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon,
):  # fmt: skip
    """One step; theta, g, m are {index: Fraction} of `shape`, v and b of `slot_shape`. Every intermediate by name."""
    out = {name: {} for name in ("g", "g2", "v", "r", "c", "gamma", "d", "alpha", "rho", "delta", "b", "m", "theta")}
    members = {s: [] for s in itertools.product(*map(range, slot_shape))}
    for i in itertools.product(*map(range, shape)):
        out["g"][i] = g[i] if clip_value is None else min(max(g[i], -clip_value), clip_value)
        members[slot_of(i, slot_shape)].append(i)
    for s, inside in members.items():
        g2 = sum((out["g"][i] ** 2 for i in inside), Fraction(0)) / max(len(inside), 1)
        new_v = beta * v[s] + (1 - beta) * g2
        r = (1 - beta**t) / max(new_v, epsilon)
        c = 1 / root(1 + c_coef * root(xi) * b[s])
        gamma = c * xi**2 * r * g2
        d = 1 / (1 + d_coef * root(xi * eta) * b[s])
        alpha, rho = d * xi * eta * root(r), d * (gamma / 2 + extra_l2)
        found = dict(g2=g2, v=new_v, r=r, c=c, gamma=gamma, d=d, alpha=alpha, rho=rho, b=b[s] + gamma * (1 + b[s]))
        for name, value in found.items():
            out[name][s] = value
        for i in inside:
            out["delta"][i] = moved = -d * (xi * eta * root(r) * out["g"][i] + (gamma / 2 + extra_l2) * theta[i])
            if m is not None:
                out["m"][i] = moved = momentum * m[i] + (1 - momentum) * moved
            out["theta"][i] = theta[i] + moved
    return out


def closed_step(
    theta, u, shape, slot_shape, t, *, sigma, alpha_0, half_life=Fraction(0), p_0=None, decay="inverse-time", q, epsilon
):  # fmt: skip
    """One step of the closed form along u, {index: Fraction} as theta is; half_life goes with inverse time alone."""
    out = {name: {} for name in ("u2", "alpha", "rho", "delta", "theta")}
    members = {s: [] for s in itertools.product(*map(range, slot_shape))}
    for i in itertools.product(*map(range, shape)):
        members[slot_of(i, slot_shape)].append(i)
    if p_0 is None:
        shrink = 1 / (1 + t / half_life)
    elif decay == "inverse-time":
        shrink = 1 / (1 + 2 * alpha_0 * p_0 * t)
    else:
        shrink = 1 / (1 + alpha_0 * p_0 * t) ** 2
    for s, inside in members.items():
        out["u2"][s] = sum((u[i] ** 2 for i in inside), Fraction(0)) / max(len(inside), 1)
        out["alpha"][s] = alpha_0 * sigma * shrink / root(max(out["u2"][s], epsilon))
        out["rho"][s] = alpha_0**2 * shrink / 2 / q
        for i in inside:
            out["delta"][i] = -out["alpha"][s] * u[i] - out["rho"][s] * theta[i]
            out["theta"][i] = theta[i] + out["delta"][i]
    return out | {"shrink": {(): shrink}}


def adam(g, m, v, n, *, beta1, beta2, adam_epsilon):
    """m, v and Adam's direction after n gradients, {index: Fraction} each."""
    m = {i: beta1 * m[i] + (1 - beta1) * x for i, x in g.items()}
    v = {i: beta2 * v[i] + (1 - beta2) * x**2 for i, x in g.items()}
    u = {i: m[i] / (1 - beta1**n) / (root(v[i] / (1 - beta2**n)) + adam_epsilon) for i in g}
    return m, v, u


def one_minus_power(beta, t):
    """1 - beta^t for a float beta, exact for small t, else to more than 60 digits."""
    if t <= 64:
        return 1 - Fraction(beta) ** t
    with localcontext() as context:
        context.prec = 2 * DIGITS + 20
        return Fraction(1 - Decimal(beta) ** t)


def sum_of_squares(x, axis_runs):
    """{index of kept runs: sum}, where x is {index: float} and axis_runs the (reduced, length) of its axes."""
    sums = {i: value * value for i, value in x.items()}
    lengths = [n for _, n in axis_runs]
    for axis in reversed(range(len(axis_runs))):
        if axis_runs[axis][0]:
            n, lengths[axis] = lengths[axis], 1
            add = by_lanes if axis == len(axis_runs) - 1 else by_rows
            kept = itertools.product(*map(range, lengths))
            sums = {i: add([sums[(*i[:axis], k, *i[axis + 1 :])] for k in range(n)]) for i in kept}
    return sums


def by_lanes(numbers):
    """Chunks of 8192 by lanes; with more than one chunk, the chunks' sums by lanes again, however many."""
    if len(numbers) <= 8192:
        return one_chunk(numbers)
    return one_chunk([one_chunk(numbers[k : k + 8192]) for k in range(0, len(numbers), 8192)])


def one_chunk(numbers):
    lanes = [0.0] * 128
    for i, x in enumerate(numbers):
        lanes[i % 128] += x
    for half in (64, 32, 16, 8, 4, 2, 1):
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
    return lanes[0]


def by_rows(numbers):
    """64 at a time in order, then those sums likewise, until one is left."""
    while len(numbers) != 1:
        numbers = [in_order(numbers[k : k + 64]) for k in range(0, max(len(numbers), 1), 64)]
    return numbers[0]


def in_order(numbers):
    total = 0.0
    for x in numbers:
        total += x
    return total


def rounded(x, name):
    """The float x rounded once to the format, to nearest, ties to even, as a float."""
    bits, lowest, greatest = FORMATS[name]
    if x == 0 or x != x or abs(x) == float("inf"):
        return x
    size = abs(Fraction(x))
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    quantum = Fraction(2) ** (max(exponent, lowest) - bits + 1)
    nearest = round(size / quantum) * quantum
    value = float("inf") if nearest >= Fraction(2) ** (greatest + 1) else float(nearest)
    return -value if x < 0 else value
