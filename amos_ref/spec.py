"""The page: paper Amos (Tian & Parikh 2022, arXiv 2210.11693), written once to be read.

One step of one parameter array flows through four stages::

    gradient --clip--> reduce: g2 --> decide: v, r, c, gamma, d, alpha, rho, b --> apply: theta

Every stage is a function below, in that order; :func:`step` strings them together. The conventions:

* t counts from 1. One count serves the whole tree; a leaf whose gradient is None is skipped while the
  count goes on: its theta, v, b and m stay as they are.
* Clipping comes first, elementwise. NaN passes through it (and is refused by the stepper).
* c and d use the *old* b; b grows after use.
* r divides by max(v, epsilon), not by v + epsilon.
* Momentum averages the whole change, decay included, and is not debiased.
* xi = 0 is legal: then extra_l2 alone moves theta, while v goes on. The mean of an empty slot is 0.
* All arithmetic is IEEE float64, only + - * / sqrt and comparisons, in the order written here, without
  fused multiply-add; sign and payload of a NaN are left open. Storing rounds once, nothing else rounds.

theta parameters, g gradient, v second moment, b decay clock, m momentum; xi learning rate, eta expected
scale of theta, mu momentum, chi clip value.
"""

import numpy as np

LANES, ROWS = 128, 64  # the order of summation: 128 lanes, 64 rows at a time
CHUNK = ROWS * LANES  # 8192 elements

# Formats that library casts may round to twice (through float32): significand bits, smallest exponent.
NARROW = {"float16": (11, -14), "bfloat16": (8, -126)}


# gradient
def clip(g, chi):
    # g = clip(g, -chi, +chi); chi = inf leaves g as it is
    return np.minimum(np.maximum(g, -chi), chi)


# reduce: the sum of squares has one defined order
def mean_square(g, slot_shape):
    # g2 = mean(g*g over the slot's reduced axes), axes kept
    total = fold(g * g, runs(g.shape, slot_shape)).reshape(slot_shape)
    return total / max(g.size // max(total.size, 1), 1)


def runs(shape, slot_shape):
    """Runs of neighbouring axes that are all reduced or all kept: [(reduced, length), ...].

    An axis is reduced where the slot, aligned at the last axis, has size 1; axes of size 1 drop out.
    """
    slot = (1,) * (len(shape) - len(slot_shape)) + tuple(slot_shape)
    found = []
    for n, kept in zip(shape, slot, strict=True):
        if found and n != 1 and found[-1][0] == (kept != n):
            found[-1] = (kept != n, found[-1][1] * n)
        elif n != 1:
            found.append((kept != n, n))
    return found


def fold(x, axis_runs):
    """Sum the reduced runs, innermost first: a trailing run in lanes, any other in rows."""
    x = x.reshape([n for _, n in axis_runs])
    for axis in reversed(range(len(axis_runs))):
        if axis_runs[axis][0]:
            x = sum_lanes(x) if axis == x.ndim - 1 else sum_rows(x, axis)
    return x


def sum_lanes(x):
    """Last axis, chunk by chunk of 8192; then the chunks' sums as one chunk of any length."""
    return lanes(lanes(split(x, CHUNK, -1))) if x.shape[-1] > CHUNK else lanes(x)


def lanes(x):
    """Element i goes to lane i mod 128; each lane is summed in order; lanes combine by halving."""
    x = in_order(split(x, LANES, -1), -2)
    while x.shape[-1] > 1:
        x = x[..., : x.shape[-1] // 2] + x[..., x.shape[-1] // 2 :]
    return x[..., 0]


def sum_rows(x, axis):
    """An axis with kept axes behind it: 64 rows at a time in order, then those sums likewise."""
    while x.shape[axis] != 1:
        x = in_order(split(x, ROWS, axis), axis + 1)
    return x.squeeze(axis)


def in_order(x, axis):
    total, *rest = np.moveaxis(x, axis, 0)
    for row in rest:
        total = total + row
    return total


def split(x, size, axis):
    """Cut one axis into pieces of `size`, the last filled with zeros (which change no sum)."""
    axis %= x.ndim
    before, n, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    count = max(-(-n // size), 1)
    x = np.concatenate([x, np.zeros((*before, count * size - n, *after))], axis) if n != count * size else x
    return x.reshape(*before, count, size, *after)


# decide: a few scalars per slot; this is the algorithm
def one_minus_power(beta, t):
    # q_t = 1 - beta^t, from q_2k = q_k (2 - q_k) and q_k+1 = (1 - beta) + beta q_k over the bits of t
    q = 0.0
    for bit in bin(t)[2:]:
        q = q * (2.0 - q)
        if bit == "1":
            q = (1.0 - beta) + beta * q
    return q


def second_moment(v, g2, beta):
    # v = beta v + (1 - beta) g2
    return beta * v + (1.0 - beta) * g2


def reciprocal(v, q, epsilon):
    # r = (1 - beta^t) / max(v, epsilon)
    return q / np.maximum(v, epsilon)


def decay_factor_c(b, xi, c_coef):
    # c = 1 / sqrt(1 + c_coef sqrt(xi) b)        old b
    return 1.0 / np.sqrt(1.0 + c_coef * np.sqrt(xi) * b)


def growth(c, xi, r, g2):
    # gamma = c xi^2 r g2
    return c * (xi * xi) * (r * g2)


def decay_factor_d(b, xi, eta, d_coef):
    # d = 1 / (1 + d_coef sqrt(xi eta) b)        old b
    return 1.0 / (1.0 + d_coef * np.sqrt(xi * eta) * b)


def step_size(d, xi, eta, r):
    # alpha = d xi eta sqrt(r)
    return d * (xi * eta * np.sqrt(r))


def weight_decay(d, gamma, extra_l2):
    # rho = d (gamma/2 + extra_l2)
    return d * (gamma / 2.0 + extra_l2)


def grown(b, gamma):
    # b = b + gamma (1 + b)
    return b + gamma * (1.0 + b)


def decide(g2, v, b, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon):
    """(g2, old v, old b, q = 1 - beta^t, ...) -> (v, r, c, gamma, d, alpha, rho, b)."""
    v = second_moment(v, g2, beta)
    r = reciprocal(v, q, epsilon)
    c = decay_factor_c(b, xi, c_coef)
    gamma = growth(c, xi, r, g2)
    d = decay_factor_d(b, xi, eta, d_coef)
    alpha = step_size(d, xi, eta, r)
    rho = weight_decay(d, gamma, extra_l2)
    return v, r, c, gamma, d, alpha, rho, grown(b, gamma)


# apply
def change(alpha, g, rho, theta):
    # delta = -(alpha g + rho theta)
    return -(alpha * g + rho * theta)


def average(m, delta, mu):
    # m = mu m + (1 - mu) delta
    return mu * m + (1.0 - mu) * delta


def round_to(x, dtype):
    """float64 -> dtype in one rounding, to nearest, ties to even."""
    if dtype.name in NARROW:
        bits, lowest = NARROW[dtype.name]
        spacing = np.maximum(np.frexp(x)[1], lowest + 1) - bits
        x = np.ldexp(np.rint(np.ldexp(x, -spacing)), spacing)
    return x.astype(dtype)


def step(theta, g, v, b, m, *, q, xi, eta, beta, momentum, clip_value, extra_l2, c_coef, d_coef, epsilon, mean=None):
    """One step of one array, float64 in and out: every intermediate by its name.

    theta, g, m (None: no momentum) have the array's shape, v and b the slot's; q = 1 - beta^t.
    """
    g = clip(g, np.inf if clip_value is None else clip_value)
    g2 = (mean or mean_square)(g, v.shape)  # of a part, the mean over the whole array
    v, r, c, gamma, d, alpha, rho, b = decide(g2, v, b, q, xi, eta, beta, extra_l2, c_coef, d_coef, epsilon)
    delta = change(alpha, g, rho, theta)
    m = None if m is None else average(m, delta, momentum)
    new = theta + (delta if m is None else m)
    return dict(g=g, g2=g2, v=v, r=r, c=c, gamma=gamma, d=d, alpha=alpha, rho=rho, delta=delta, b=b, m=m, theta=new)
