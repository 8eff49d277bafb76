"""
eta is the scale at which steps and decay balance
=================================================

Feed Amos nothing but noise. Each step adds a random move of size xi eta to every entry, and takes the fraction xi^2 / 2
of the entry away. So the squares grow by xi^2 eta^2 and shrink by xi^2 theta^2. The two balance where theta^2 = eta^2,
wherever the entries began. Here c_coef and d_coef are 0, so that the steps stay as large as they are. With the default
factors the steps fall before the balance is reached, and entries stop on the way to it.

Run: python examples/scale.py
"""

import matplotlib.pyplot as plt
import numpy as np

import amos_ref

xi, eta, steps = 0.1, 0.5, 600
rng = np.random.default_rng(0)
opt = amos_ref.Amos(learning_rate=xi, eta=eta, beta=0.99, c_coef=0.0, d_coef=0.0)
params = {"small": rng.normal(scale=0.05, size=4000), "large": rng.normal(scale=3.0, size=4000)}
state = opt.init(params)
size = {name: [] for name in params}
for _ in range(steps):
    for name, theta in params.items():
        size[name].append(np.sqrt(np.mean(theta**2)))
    state = opt.step(params, {name: rng.normal(size=4000) for name in params}, state)

for name, found in size.items():
    print(f"{name}: root mean square {found[0]:.3f} at the start, {found[-1]:.3f} after {steps} steps")

# %%
# The balance says how: theta^2 - eta^2 falls as exp(-xi^2 t).
t = np.arange(steps)
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, found), colour in zip(size.items(), ("#0072B2", "#D55E00"), strict=True):
    ax.plot(t, found, color=colour, linewidth=3, alpha=0.5, label=f"{name} at first")
    balance = np.sqrt(eta**2 + (found[0] ** 2 - eta**2) * np.exp(-(xi**2) * t))
    ax.plot(t, balance, "--", color=colour, label="as the balance says")
ax.axhline(eta, color="#000000", linewidth=0.8)
ax.annotate("eta", (steps, eta), xytext=(4, -3), textcoords="offset points")
ax.set(
    yscale="log", xlabel="step t", ylabel="root mean square of the entries", title="Under noise entries settle at eta"
)
ax.legend()
plt.show()
