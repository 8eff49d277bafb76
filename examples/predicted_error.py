"""
The predicted error, and the measured one
=========================================

The derivation predicts the distance to the optimum: \\|eps_t\\| = \\|eps_0\\| exp(-S_t). On the left all that it takes
for granted holds: the direction is the error itself and the optimum is 0. On the right are plain quadratics: the
optimum is elsewhere, and the gradient leads to it the less directly the larger the condition number.

Run: python examples/predicted_error.py
"""

import matplotlib.pyplot as plt
import numpy as np

import amos_ref
from amos_ref.closed_form import Schedule

options = {"alpha_0": 0.005, "p_0": 1.0, "decay": "inverse-square"}  # a cosine of 1 that stays 1
steps, every, n = 2000, 10, 20


def measured(fun, start, optimum):
    """Return |eps_t| / |eps_0| of a training."""
    sigma = float(np.sqrt(np.mean((start - optimum) ** 2)))  # what the derivation wants sigma to be
    made = {"steps": steps, "every": every, "optimum": optimum, "sigma": sigma, **options}
    error = amos_ref.minimize(fun, start, "closed-form", **made).history.error
    return np.array(error) / error[0]


t = np.arange(0, steps + 1, every)
predicted = np.exp(-Schedule(**options).s(t))
granted = measured(lambda x: (x @ x / 2, x), np.ones(n), np.zeros(n))
others = {}
for condition in (1.0, 10.0, 100.0):
    problem = amos_ref.problems.quadratic(n, condition)
    others[condition] = measured(problem.fun, problem.start, problem.reference)

# %%
print("steps   predicted   granted   condition 1       10      100")
for i in (0, 2, 20, 60, 200):
    print(f"{t[i]:5} {predicted[i]:11.4f} {granted[i]:9.4f}", *(f"{e[i]:10.4f}" for e in others.values()))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
left.plot(t, granted, color="#BBBBBB", linewidth=5, label="measured")
left.plot(t, predicted, "--", color="#000000", label="predicted")
left.set(yscale="log", xlabel="steps", ylabel="distance to the optimum", title="all that is granted holds")
styles = (("-", "#D55E00"), ("-.", "#0072B2"), (":", "#009E73"))
right.plot(t, predicted, "--", color="#000000", label="predicted")
for (condition, error), (line, colour) in zip(others.items(), styles, strict=True):
    right.plot(t, error, line, color=colour, label=f"condition number {condition:.0f}")
right.set(xlabel="steps", title="plain quadratics")
for ax in (left, right):
    ax.legend()
plt.show()
