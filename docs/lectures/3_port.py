# %% [markdown]
# # Lecture 3: write Amos yourself, and have it judged
#
# You understand an algorithm when you have written it. In this lecture you write the Amos of the paper as a
# function of 15 lines. A judge runs it beside `amos_ref/spec.py`, the reference in plain NumPy, and tells you
# which formula you misread. Then you fix it.
#
# Allow an hour. The exercises come after the lecture, and their solutions at the very end. To run it yourself you
# need pip and nothing else: `pip install amos_ref notebook`, then `jupyter notebook` in the folder of
# this file. If your package index does not have amos_ref, give pip the wheel that lies beside this lecture.

# %%
import textwrap

import numpy as np

import amos_ref

# %% [markdown]
# ## The algorithm
#
# For an array $\theta$ with gradient $g$, at step $t = 1, 2, \ldots$:
#
# $$
# \begin{aligned}
# v &\leftarrow \beta v + (1-\beta)\,\mathrm{mean}(g^2) \\
# r &= (1 - \beta^t) / \max(v, 2^{-125}) \\
# c &= 1/\sqrt{1 + \frac{1}{4}\sqrt\xi\,b} \qquad d = 1/(1 + \frac{1}{4}\sqrt{\xi\eta}\,b) \\
# \gamma &= c\,\xi^2\, r\,\mathrm{mean}(g^2) \\
# \theta &\leftarrow \theta - d\,(\xi\eta\sqrt r\,g + \frac{1}{2}\gamma\,\theta) \\
# b &\leftarrow b + \gamma\,(1 + b)
# \end{aligned}
# $$
#
# The learning rate is $\xi$, the scale of the trained weights is $\eta$, and both $v$ and $b$ start at 0. Lecture 2
# explains what $b$ is for.
#
# ## A first version
#
# Here it is as a function. It takes the array, the gradient, what it remembers (`{}` at first) and the
# number of the step, and returns the new array and what to remember. It looks right, it runs, and it
# minimises a bowl:


# %%
def step(theta, g, state, t, learning_rate, eta, beta=0.999):
    v, b = state.get("v", 0.0), state.get("b", 0.0)
    g2 = np.mean(g**2)
    v = beta * v + (1 - beta) * g2
    r = (1 - beta**t) / (v + 2.0**-125)
    c = 1 / np.sqrt(1 + np.sqrt(learning_rate) * b / 4)
    gamma = c * learning_rate**2 * r * g2
    b = b + gamma * (1 + b)
    d = 1 / (1 + np.sqrt(learning_rate * eta) * b / 4)
    move = learning_rate * eta * np.sqrt(r) * g
    theta = theta - d * (move + gamma / 2 * theta)
    return theta, {"v": np.array(v), "b": np.array(b)}


theta, state = np.zeros(3), {}
for t in range(1, 2001):
    theta, state = step(theta, theta - [0.4, -0.5, 0.6], state, t, 0.05, 0.5)
print(theta.round(3))

# %% [markdown]
# The loss went down. This is how most implementations of optimizers are tested, and it says next to nothing:
# an optimizer with a wrong formula also goes down.
#
# ## The judge
#
# The judge compares *numbers*. It takes a table of cases, runs your function and the reference through each,
# and compares every number that both have, with a tolerance that it derives from rounding alone. The cases
# are chosen so that misreadings show: zeros, tiny gradients, a clock that is already old. Here are six of
# them.

# %%
cases = ["plain", "decayed", "schedule", "tiny-gradients", "1-d", "aged"]
report = amos_ref.conformance.check(step, suite="quick", cases=cases)
for result in report.results:
    print(
        f"{result.case:15} {result.verdict}, step {result.step}, {result.stage}"
    )

# %% [markdown]
# Nothing conforms. You could now look at the numbers of the first case that departs, and search. But the
# judge has already searched: it changes the reference, one formula at a time, until the changed reference
# does *everything* that your function did.


# %%
def tell(report):
    """Print what the judge found, in short lines."""
    for line in report.diagnosis.text.splitlines():
        print(textwrap.fill(line, 80))


tell(report)
assert sorted(report.diagnosis.deviations) == ["epsilon-added", "new-b-in-d"]

# %% [markdown]
# There are two mistakes, and neither is obvious from the loss.
#
# - `new-b-in-d`: the clock `b` is updated before `d` uses it. The formulas above use the old one.
# - `epsilon-added`: `v + 2**-125` is what Adam does. Amos takes the *larger* of the two, which makes a
#   difference when gradients are tiny, as in the case `tiny-gradients`.
#
# ## A second version


# %%
def fixed_step(theta, g, state, t, learning_rate, eta, beta=0.999):
    v, b = state.get("v", 0.0), state.get("b", 0.0)
    g2 = np.mean(g**2)
    v = beta * v + (1 - beta) * g2
    r = (1 - beta**t) / np.maximum(v, 2.0**-125)
    c = 1 / np.sqrt(1 + np.sqrt(learning_rate) * b / 4)
    d = 1 / (1 + np.sqrt(learning_rate * eta) * b / 4)
    gamma = c * learning_rate**2 * r * g2
    move = learning_rate * eta * np.sqrt(r) * g
    theta = theta - d * (move + gamma / 2 * theta)
    b = b + gamma * (1 + b)
    return theta, {"v": np.array(v), "b": np.array(b)}


# %% [markdown]
# Now all cases, not six of them:

# %%
report = amos_ref.conformance.check(fixed_step, suite="quick")
print(report.summary())
assert report.ok

# %% [markdown]
# "Not supported" is everything that this function does not have: momentum, clipping, slots for rows and
# columns. That is no fault, but it is not judged either.
#
# ## Would a training have told you?
#
# Train both versions in a noisy bowl, and look at how far they are from its minimum in the end.


# %%
def train(function, seed):
    rng = np.random.default_rng(seed)
    minimum, theta, state = rng.normal(scale=0.5, size=100), np.zeros(100), {}
    for t in range(1, 2001):
        g = theta - minimum + rng.normal(size=100)
        theta, state = function(theta, g, state, t, 0.1, 0.5)
    return np.linalg.norm(theta - minimum)


for function in (step, fixed_step):
    ends = [train(function, seed) for seed in range(3)]
    print(f"{function.__name__:10}", *(f"{end:.6f}" for end in ends))

# %% [markdown]
# Each column is another seed. The difference between the functions is far smaller than that between the
# seeds. No training shows such mistakes. Other mistakes cost a lot, and a training does not show these
# either, as long as nobody has a right version to compare it with.

# %% [markdown]
# ## Exercises
#
# 1. **Read a diagnosis.** Somebody's port is diagnosed as `gamma-times-eta`. Which line of `fixed_step`
#    would you have to change to get the same mistake? Try it with `check`. Which kinds of arrays suffer
#    most?
# 2. **Momentum.** Add `momentum=None` to `fixed_step`. If it is given, the change of $\theta$ is
#    averaged: $m \leftarrow \mu m + (1-\mu)\,\delta$ and then $\theta \leftarrow \theta + m$,
#    where $\delta$ is the whole change with its decay. Keep `m` in the state. Let the judge run the
#    cases `plain` and `momentum`. What does it say if you divide $m$ by $1-\mu^t$, as Adam
#    does?
# 3. **Fool the judge.** Write a function that gets "conforms" in the case `plain` and is wrong. Which case
#    catches it?

# %% [markdown]
# ## Solutions
#
# **Exercise 1.** The line of `gamma` gets a factor `eta`. The clock and the decay then run too slowly
# wherever $\eta$ is below 1, and the larger an array is, the smaller its $\eta$.


# %%
def times_eta(theta, g, state, t, learning_rate, eta, beta=0.999):
    v, b = state.get("v", 0.0), state.get("b", 0.0)
    g2 = np.mean(g**2)
    v = beta * v + (1 - beta) * g2
    r = (1 - beta**t) / np.maximum(v, 2.0**-125)
    c = 1 / np.sqrt(1 + np.sqrt(learning_rate) * b / 4)
    d = 1 / (1 + np.sqrt(learning_rate * eta) * b / 4)
    gamma = eta * c * learning_rate**2 * r * g2  # eta is the mistake
    move = learning_rate * eta * np.sqrt(r) * g
    theta = theta - d * (move + gamma / 2 * theta)
    b = b + gamma * (1 + b)
    return theta, {"v": np.array(v), "b": np.array(b)}


report = amos_ref.conformance.check(times_eta, suite="quick", cases=cases)
tell(report)
assert report.diagnosis.deviations == ["gamma-times-eta"]

# %% [markdown]
# **Exercise 2.** The change is what `fixed_step` adds, so a few lines around it are enough:


# %%
def with_momentum(
    theta,
    g,
    state,
    t,
    learning_rate,
    eta,
    beta=0.999,
    momentum=None,
    debias=False,
):
    after, kept = fixed_step(theta, g, state, t, learning_rate, eta, beta)
    if momentum is None:
        return after, kept
    m = momentum * state.get("m", np.zeros(theta.shape))
    m = m + (1 - momentum) * (after - theta)
    scale = 1 / (1 - momentum**t) if debias else 1.0
    return theta + scale * m, kept | {"m": m}


def as_adam_does(
    theta, g, state, t, learning_rate, eta, beta=0.999, momentum=None
):
    return with_momentum(
        theta, g, state, t, learning_rate, eta, beta, momentum, debias=True
    )


for function in (with_momentum, as_adam_does):
    report = amos_ref.conformance.check(
        function, suite="quick", cases=["plain", "momentum"]
    )
    print(report.summary())
assert not report.ok
tell(report)

# %% [markdown]
# **Exercise 3.** Skip every array whose gradient is all zeros. No array of `plain` has such a gradient. The
# case `0-d` is about a single number, whose gradient is 0 in one of the steps: $v$ must shrink in
# that step.


# %%
def skips_zeros(theta, g, state, t, learning_rate, eta, beta=0.999):
    if not np.any(g):
        return theta, state
    return fixed_step(theta, g, state, t, learning_rate, eta, beta)


report = amos_ref.conformance.check(
    skips_zeros, suite="quick", cases=["plain", "0-d"]
)
for result in report.results:
    print(f"{result.case:15} {result.verdict}")
assert [result.verdict for result in report.results] == ["conforms", "departs"]
