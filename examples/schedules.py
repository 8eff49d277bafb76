"""
Two plans for one step
======================

Both algorithms move by theta - (alpha u + rho theta). Here are alpha and rho of both over a training, as shares of
their first values: of the paper's Amos under gradients of constant size, and of the closed form, whose half-life is set
to the step at which the paper's alpha is halved.

Run: python examples/schedules.py
"""

import matplotlib.pyplot as plt
import numpy as np

from amos_ref import closed_form, spec

xi, eta, coef, last = 0.01, 0.5, 0.25, 1_000_000

# %%
# The paper's plan follows the clock b. With gradients of constant size g2 / v is 1, so that d and c d are functions of
# the step alone.
d, cd, b = np.empty(last), np.empty(last), 0.0
for t in range(last):
    c = spec.decay_factor_c(b, xi, coef)
    d[t] = spec.decay_factor_d(b, xi, eta, coef)
    cd[t] = c * d[t]
    b = spec.grown(b, spec.growth(c, xi, 1.0, 1.0))

# %%
# The closed form's falls with t, and is the same for alpha and rho.
half_life = int(np.argmax(d <= 0.5))
plan = closed_form.Schedule(alpha_0=xi, half_life=half_life)
square = closed_form.Schedule(alpha_0=xi, half_life=half_life, decay="inverse-square")
print(f"halved at t = {half_life}, that is {half_life * xi**2:.2f} / xi^2")
for n in (half_life // 10, half_life, 10 * half_life):
    print(f"t {n:7}  paper alpha {d[n]:.4f} rho {cd[n]:.4f}  closed form {plan.shrink(n):.4f} {square.shrink(n):.4f}")

# %%
# On the left up to twice the half-life: the paper's steps stay, then fall; the plan falls from the start. On the right
# what follows.
curves = (
    ("paper: alpha (d)", lambda n: d[n], dict(c="#000000", ls="-")),
    ("paper: rho (c d)", lambda n: cd[n], dict(c="#000000", ls="--")),
    ("closed form, inverse time: both", plan.shrink, dict(c="#D55E00", marker="s", markevery=20)),
    (
        "closed form, inverse square: both",
        square.shrink,
        dict(c="#0072B2", marker="^", markevery=20, ls="-."),
    ),
)
early = np.linspace(0, 2 * half_life, 200).astype(int)
late = np.geomspace(half_life, last - 1, 200).astype(int)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, curve, style in curves:
    left.plot(early, curve(early), **style)
    right.plot(late, curve(late), label=name, **style)
left.axvline(half_life, color="#999999", linewidth=0.8)
left.set(xlabel="step t", ylabel="share of the first value", ylim=(0, 1.05), title="up to twice the half-life")
right.set(xscale="log", yscale="log", xlabel="step t", title="later")
right.legend(loc="lower left", fontsize="small")
plt.show()
