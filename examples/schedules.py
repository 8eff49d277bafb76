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
t = np.unique(np.geomspace(1, last - 1, 300).astype(int))
plan = closed_form.Schedule(alpha_0=xi, half_life=half_life)
square = closed_form.Schedule(alpha_0=xi, half_life=half_life, decay="inverse-square")
print(f"halved at t = {half_life}, that is {half_life * xi**2:.2f} / xi^2")
for n in (half_life // 10, half_life, 10 * half_life):
    print(f"t {n:7}  paper alpha {d[n]:.4f} rho {cd[n]:.4f}  closed form {plan.shrink(n):.4f} {square.shrink(n):.4f}")

# %%
figure, ax = plt.subplots(figsize=(7, 4.5), layout="constrained")
ax.plot(t, d[t], "-", color="#000000", label="paper: alpha (d)")
ax.plot(t, cd[t], "--", color="#000000", label="paper: rho (c d)")
ax.plot(t, plan.shrink(t), "-", color="#D55E00", marker="s", markevery=30, label="closed form, inverse time: both")
ax.plot(t, square.shrink(t), "-.", color="#0072B2", marker="^", markevery=30, label="closed form, inverse square: both")
ax.set(xscale="log", yscale="log", xlabel="step t", ylabel="share of the first value", ylim=(1e-5, 2))
ax.axvline(half_life, color="#999999", linewidth=0.8)
ax.legend(loc="lower left")
plt.show()
