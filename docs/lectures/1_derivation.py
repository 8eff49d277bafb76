# %% [markdown]
# # Lecture 1: from one equation to a schedule
#
# Which step size and which weight decay should an optimizer use, and how should they fall? This lecture derives
# an answer from a single equation. The answer is the *closed form* of Amos, and at the end you have written it
# yourself.
#
# Allow an hour. The exercises come after the lecture, and their solutions at the very end. To run it yourself you
# need pip and nothing else: `pip install 'amos_ref[plot]' notebook`, then `jupyter notebook` in the folder of
# this file. If your package index does not have amos_ref, give pip the wheel that lies beside this lecture.

# %%
import matplotlib.pyplot as plt
import numpy as np

import amos_ref

rng = np.random.default_rng(1)

# %% [markdown]
# ## The problem
#
# The simplest training is a bowl with its minimum at $\theta^*$. The gradient is the error
# $\epsilon = \theta - \theta^*$, and a minibatch adds noise to it. Let us walk down with three plans
# for the step size: one that stays, one that falls like $1/t$, and one that falls like $1/t^2$.

# %%
plans = {
    "constant": lambda t: 0.1,
    "like 1/t": lambda t: 0.1 / (1 + t / 30),
    "like 1/t^2": lambda t: 0.1 / (1 + t / 30) ** 2,
}


def walk(plan, steps=3000, noise=1.0):
    """Return the distance to the minimum before each step."""
    noises, error, distances = np.random.default_rng(2), np.ones(100), []
    for t in range(steps):
        distances.append(np.linalg.norm(error))
        error = error - plan(t) * (error + noise * noises.normal(size=100))
    return np.array(distances)


walks = {name: walk(plan) for name, plan in plans.items()}
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, distances in walks.items():
    ax.loglog(1 + np.arange(3000), distances, label=name)
ax.set(
    xlabel="steps",
    ylabel="distance to the minimum",
    title="Three plans in a noisy bowl",
)
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# A constant step reaches a level of noise and stays there. The step that falls like $1/t^2$ ends too
# early: all its steps together are too short. The plan in between keeps getting closer. So a good plan must
# fall, but not too fast. How fast? And how strong may weight decay be meanwhile? The derivation answers both
# questions at once.

# %%
for name, distances in walks.items():
    print(f"{name:10} is {distances[-1]:.2f} from the minimum at the end")
assert min(walks, key=lambda name: walks[name][-1]) == "like 1/t"

# %% [markdown]
# ## One step
#
# Let the optimizer move along some direction $u$ and let the weights decay a little:
#
# $$
# \theta_{t+1} = \theta_t - (\alpha_t u_t + \rho_t \theta_t)
# $$
#
# The square of the error after the step is, if we drop what is of third order in $\alpha$,
#
# $$
# \|\epsilon_{t+1}\|^2 \approx \|\epsilon_t\|^2 - 2\alpha_t\, u_t\cdot\epsilon_t
# + (\alpha_t^2\|u_t\|^2 - 2\rho_t\,\theta_t\cdot\epsilon_t)
# $$
#
# The first change is progress, as long as the direction points roughly at the error. The bracket is small,
# but its first part is always a loss. Is it right to drop the rest? Compute both sides.


# %%
def error_after(eps, alpha, u, rho, theta):
    """Return the square of the error after a step."""
    return np.sum((eps - (alpha * u + rho * theta)) ** 2)


def error_after_approx(eps, alpha, u, rho, theta):
    """Return the same without the terms of third and fourth order."""
    bracket = alpha**2 * (u @ u) - 2 * rho * (theta @ eps)
    return eps @ eps - 2 * alpha * (u @ eps) + bracket


eps, theta = rng.normal(size=(2, 50))
u = eps + rng.normal(size=50)
for alpha in (0.001, 0.01, 0.1, 1.0):
    numbers = eps, alpha, u, alpha**2 / 2, theta
    exact, approx = error_after(*numbers), error_after_approx(*numbers)
    print(f"alpha {alpha:5}: exact {exact:9.4f}, without them {approx:9.4f}")

# %% [markdown]
# ## The balance
#
# Here is the one idea of the derivation: *let the decay pay for the loss*. The bracket is 0 if
#
# $$
# \alpha_t^2\|u_t\|^2 = 2\rho_t\,\theta_t\cdot\epsilon_t
# $$
#
# We do not know $\theta_t\cdot\epsilon_t$, but vectors of many entries that have nothing to do with
# each other are nearly at right angles. If that holds for the minimum and the error, then
# $\theta_t\cdot\epsilon_t \approx \|\epsilon_t\|^2$, and the balance becomes
#
# $$
# \alpha_t \|u_t\| = \sqrt{2\rho_t}\,\|\epsilon_t\|
# $$
#
# The quotient $q = \theta\cdot\epsilon/\|\epsilon\|^2$ says how good this is. It should be 1.

# %%
for size in (10, 1_000, 100_000):
    minimum, eps = rng.normal(size=(2, size))
    q = (minimum + eps) @ eps / (eps @ eps)
    print(f"{size:7,} entries: q = {q:.3f}")

# %% [markdown]
# ## All steps
#
# With the bracket gone, only the progress is left. Let $p$ be the cosine of the angle between direction
# and error. Put the balance into it:
#
# $$
# \|\epsilon_{t+1}\|^2 \approx \|\epsilon_t\|^2 (1 - 2p_t\sqrt{2\rho_t})
# \approx \|\epsilon_t\|^2 e^{-2p_t\sqrt{2\rho_t}}
# $$
#
# so that after $t$ steps
#
# $$
# \|\epsilon_t\|^2 \approx \|\epsilon_0\|^2 e^{-2S_t}, \qquad S_t = \sum_{i<t} p_i\sqrt{2\rho_i}
# $$
#
# One thing is still free. We choose to let step and decay fall alike, as $e^{-2S_t}$, like the square
# of the error that we expect:
#
# $$
# \alpha_t = \alpha_0\frac{\|\epsilon_0\|}{\|u_t\|}e^{-2S_t}, \qquad \rho_t = \frac{\alpha_0^2}{2}e^{-2S_t}
# $$
#
# Then $\sqrt{2\rho_t} = \alpha_0 e^{-S_t}$, and $S$ has a rule of its own:
#
# $$
# S_{t+1} = S_t + \alpha_0\,p_t\,e^{-S_t}, \qquad S_0 = 0
# $$


# %%
def recurrence(p_of, steps, alpha_0=0.05):
    """Return exp(-2 S_t) for a law of the cosine, p_of(S)."""
    sums = [0.0]
    for _ in range(steps - 1):
        sums.append(sums[-1] + alpha_0 * p_of(sums[-1]) * np.exp(-sums[-1]))
    return np.exp(-2 * np.array(sums))


# %% [markdown]
# ## Solving it
#
# Treat the rule as a differential equation, $S' = \alpha_0 p e^{-S}$, and it can be solved for two laws
# of the cosine. If it is constant, $e^{-2S_t} = 1/(1 + \alpha_0 p\,t)^2$. If it falls with the error,
# as $p_t = p_0 e^{-S_t}$, which is what noise in the gradient does to it, then
# $e^{-2S_t} = 1/(1 + 2\alpha_0 p_0 t)$. So the inverse of time was no accident.

# %%
t = np.arange(1000)
laws = {
    "constant cosine": (lambda s: 0.5, 1 / (1 + 0.05 * 0.5 * t) ** 2),
    "falling cosine": (
        lambda s: 0.5 * np.exp(-s),
        1 / (1 + 2 * 0.05 * 0.5 * t),
    ),
}
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, (law, solution) in laws.items():
    iterated = recurrence(law, 1000)
    (line,) = ax.loglog(
        1 + t, iterated, linewidth=4, alpha=0.4, label=f"{name}, step by step"
    )
    ax.loglog(
        1 + t, solution, "--", color=line.get_color(), label=f"{name}, solved"
    )
    away = iterated / solution - 1
    print(f"{name}: from {away.min():+.1%} to {away.max():+.1%} away")
ax.set(
    xlabel="steps + 1", ylabel="exp(-2 S)", title="The rule and its solutions"
)
ax.legend(loc="lower left")
plt.show()

# %% [markdown]
# ## An optimizer in five lines
#
# Two unknowns are left. The first distance is about $\|\epsilon_0\| \approx \sqrt{k}\,\sigma$ for
# $k$ entries that were initialised with standard deviation $\sigma$; then
# $\|\epsilon_0\|/\|u\| = \sigma/\mathrm{RMS}(u)$. And in place of $p_0$ you choose a half-life
# $T$, the step at which step size and decay have halved: $2\alpha_0 p_0 = 1/T$.


# %%
def my_step(theta, u, t, sigma, alpha_0, half_life):
    """Take step t = 0, 1, ... along the direction u."""
    shrink = 1 / (1 + t / half_life)
    alpha = alpha_0 * sigma / np.sqrt(np.mean(u**2)) * shrink
    rho = alpha_0**2 / 2 * shrink
    return theta - (alpha * u + rho * theta)


# %% [markdown]
# This is `amos_ref.ClosedFormAmos`. Both take the same hundred steps in a noisy bowl:

# %%
sigma, minimum = 0.3, rng.normal(scale=0.3, size=200)
mine = rng.normal(scale=sigma, size=200)
theirs = mine.copy()
opt = amos_ref.ClosedFormAmos(alpha_0=0.1, half_life=30, sigma=sigma)
state = opt.init(theirs)
for t in range(100):
    noise = rng.normal(size=200)
    mine = my_step(mine, mine - minimum + noise, t, sigma, 0.1, 30)
    state = opt.step(theirs, theirs - minimum + noise, state)
print("largest difference:", np.abs(mine - theirs).max())
# A dozen roundings of 2^-53 in each of 100 steps, on numbers of about 1.
assert np.abs(mine - theirs).max() < 1200 * 2**-53

# %% [markdown]
# ## Exercises
#
# 1. **Another half-life.** For a constant cosine the solution is $1/(1 + \alpha_0 p\,t)^2$. Which
#    $\alpha_0 p$ gives it the half-life $T$? Check your formula with
#    `amos_ref.closed_form.error`, which returns $e^{-2S_t}$, for `decay="inverse-square"`.
# 2. **Weights that must grow.** Start at $\theta_0 = 0$. What is $q$ on the straight way from
#    there to $\theta^*$? What does the weight decay of this lecture do to such weights?
# 3. **AdamW in disguise.** Adam's direction has about the size 1 for each entry. Put
#    $\mathrm{RMS}(u) = 1$ into $\alpha_t$ and $\rho_t$, and write down the learning rate
#    and the weight decay $\lambda$ with which AdamW, which decays by learning rate times
#    $\lambda$, takes the same steps. How do they depend on $t$?

# %% [markdown]
# ## Solutions
#
# **Exercise 1.** $(1 + \alpha_0 p\,T)^2 = 2$ gives $\alpha_0 p = (\sqrt 2 - 1)/T$.

# %%
plan = dict(
    alpha_0=0.01, p_0=(np.sqrt(2) - 1) / 300 / 0.01, decay="inverse-square"
)
halved = amos_ref.closed_form.error(300, **plan)
print(f"exp(-2 S) at step 300: {halved:.12f}")
assert abs(halved - 0.5) < 1e-14  # some ten roundings of 2^-53

# %% [markdown]
# **Exercise 2.** On the way $\theta = a\,\theta^*$ with $a$ from 0 to 1, and
# $\epsilon = (a-1)\,\theta^*$. So $q = a/(a-1)$, which is 0 at the start and then negative. The
# decay pulls back towards 0 where the weights have to grow. The balance would ask for a *negative* decay. The
# optimizer has a small positive one all the same.

# %%
for a in (0.0, 0.25, 0.5, 0.75):
    theta, eps = a * minimum, (a - 1) * minimum
    q = theta @ eps / (eps @ eps)
    print(f"a = {a}: q = {q:.2f}")
    assert abs(q - a / (a - 1)) < 1e-12

# %% [markdown]
# **Exercise 3.** $\alpha_t = \alpha_0\sigma e^{-2S_t}$ is AdamW's learning rate. It falls. AdamW decays
# by $\alpha_t\lambda$, so $\lambda = \rho_t/\alpha_t = \alpha_0/(2\sigma)$. This is a constant:
# AdamW with an inverse time schedule *is* this optimizer, with a weight decay that you did not have to search
# for.

# %%
alpha_0, sigma = 1e-3, 0.02
falling = amos_ref.closed_form.error(
    np.array([0, 100, 10_000]), alpha_0=alpha_0, half_life=1000
)
for shrink in falling:
    rate, rho = alpha_0 * sigma * shrink, alpha_0**2 / 2 * shrink
    print(f"learning rate {rate:.2e}, weight decay {rho / rate:.4f}")
    assert abs(rho / rate / (alpha_0 / (2 * sigma)) - 1) < 1e-14
