# %% [markdown]
# # Lecture 2: the clock in the paper's Amos
#
# The Amos of the paper is never told how long a training will be, and yet its steps and its weight decay fall
# at the right time. It keeps a clock, a number $b$ for each slot. In this lecture you build the clock,
# read the time from it, and find out when it stops being useful.
#
# Allow an hour. The exercises come after the lecture, and their solutions at the very end. To run it yourself you
# need pip and nothing else: `pip install 'amos_ref[plot]' notebook`, then `jupyter notebook` in the folder of
# this file. If your package index does not have amos_ref, give pip the wheel that lies beside this lecture.

# %%
import matplotlib.pyplot as plt
import numpy as np

import amos_ref

# %% [markdown]
# ## Four lines
#
# Amos divides every gradient $g$ by its usual size, the root of a running mean $\hat v$ of
# $g^2$, as Adam does. Suppose that gradients arrive steadily, so that
# $\mathrm{mean}(g^2)/\hat v = 1$. Then the rest of the algorithm knows only the learning rate
# $\xi$, the scale $\eta$ of the trained weights, and its own clock $b$, which starts at 0:
#
# $$
# c = \frac{1}{\sqrt{1 + \frac{1}{4}\sqrt\xi\,b}} \qquad d = \frac{1}{1 + \frac{1}{4}\sqrt{\xi\eta}\,b} \qquad
# \gamma = c\,\xi^2 \qquad b \leftarrow b + \gamma(1 + b)
# $$
#
# A step then moves an entry by about $d\,\xi\,\eta$ and takes the part $d\,\gamma/2$ of the
# weight away. So $d$ is how far the steps have fallen, and $c\,d$ is how far the decay has. Let
# us run the clock.


# %%
def clock(xi, steps, eta=0.5, coefficient=0.25):
    """Return b, c and d before each step."""
    b, kept = 0.0, []
    for _ in range(steps):
        c = 1 / np.sqrt(1 + coefficient * np.sqrt(xi) * b)
        d = 1 / (1 + coefficient * np.sqrt(xi * eta) * b)
        kept.append((b, c, d))
        b += c * xi**2 * (1 + b)
    return np.array(kept).T


# %% [markdown]
# Is this really Amos? Give the optimizer gradients of constant size and compare its state.

# %%
opt = amos_ref.Amos(learning_rate=0.1, eta=0.5)
params = {"w": np.zeros(4)}
state = opt.init(params)
for _ in range(1000):
    grads = {"w": np.array([3.0, -3.0, 3.0, -3.0])}
    state = opt.step(params, grads, state)
b, c, d = clock(0.1, 1001)
theirs = float(state.b["w"])
print(f"the optimizer's clock {theirs:.10f}, ours {b[-1]:.10f}")
# A step of the clock has a dozen roundings, and the running mean of the last
# 1000 gradients has three each, which gamma feels; 1 + b multiplies them all.
assert abs(theirs - b[-1]) < (12_000 + 3_000 * np.log1p(b[-1])) * 2**-53 * (
    1 + b[-1]
)

# %% [markdown]
# ## Early: an hour hand
#
# While $c$ is near 1, every step multiplies $1 + b$ by $1 + \xi^2$, so that
#
# $$
# 1 + b \approx e^{\xi^2 t}
# $$
#
# The authors advise $\xi = 1/\sqrt{N}$ for $N$ batches in an epoch. Then $\xi^2 t = t/N$ is
# the number of epochs $E$, and the clock shows epochs, whatever the size of your data set.

# %%
for batches in (100, 400, 1600):
    b, c, d = clock(1 / np.sqrt(batches), 8 * batches + 1)
    early = [b[E * batches] for E in (1, 2, 8)]
    print(f"{batches:4} batches:", *(f"{number:8.2f}" for number in early))
print("   e^E - 1:  ", *(f"{np.expm1(E):8.2f}" for E in (1, 2, 8)))

# %% [markdown]
# At epoch 1 the clock is right, at epoch 8 it is far behind the exponential. Something slows it down:
# $c$.
#
# ## Late: a square
#
# Both factors contain $B = \sqrt\xi\,b$. Written in epochs, the clock is
#
# $$
# \frac{dB}{dE} = \frac{\sqrt\xi + B}{\sqrt{1 + B/4}}
# $$
#
# When $B$ is large, the right side is about $2\sqrt B$, and the solution is
# $B = (E - E_0)^2$. An exponential has turned into a square. The two factors follow:
#
# $$
# c \approx \frac{2}{E} \qquad d \approx \frac{4}{\sqrt\eta\,E^2} \qquad \gamma \approx \frac{2}{t}
# $$
#
# The learning rate has dropped out. Look at it: three very different learning rates, and the same curves,
# only shifted.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for batches in (25, 400, 2500):
    xi = 1 / np.sqrt(batches)
    b, c, d = clock(xi, 60 * batches)
    epoch = np.arange(60 * batches) / batches
    axes[0].plot(epoch, np.sqrt(np.sqrt(xi) * b), label=f"{batches} batches")
    axes[1].semilogy(epoch, d, label=f"{batches} batches")
axes[0].plot([0, 60], [0, 60], "k:", label="slope 1")
axes[0].set(
    xlabel="epochs",
    ylabel="root of B",
    title="The clock: in the end one unit an epoch",
)
axes[1].set(xlabel="epochs", ylabel="d", title="What is left of the step size")
axes[0].legend(loc="upper left")
axes[1].legend(loc="upper right")
plt.show()

b, c, d = clock(0.05, 200 * 400 + 1)
for E in (1, 10, 200):
    late = c[E * 400] * E / 2, d[E * 400] * np.sqrt(0.5) * E**2 / 4
    print(
        f"epoch {E:3}: c E/2 = {late[0]:.2f}, d sqrt(eta) E^2/4 = {late[1]:.2f}"
    )
assert max(abs(x - 1) for x in late) < 0.03

# %% [markdown]
# ## What follows for a training
#
# For two epochs or so the steps stay as they are, and then they fall, without anybody having said when. This
# is the good side of the clock. There is another one: the sum of $1/E^2$ over all epochs is finite, so
# there is a limit to how far an entry can ever go. Steps freeze.

# %%
reached = 0.05 * np.cumsum(d * 0.05)
for E in (1, 3, 10, 30, 100, 200):
    print(f"epoch {E:3}: {reached[E * 400 - 1]:.2f} / xi times eta")

# %% [markdown]
# See it happen. A minimum moves away after 40 epochs, as it does if you change the data of a training. Amos
# does not get there any more. With a new state, which starts the clock anew, it does.


# %%
def follow(anew):
    """Return the distance at every epoch; the minimum moves at epoch 40."""
    rng = np.random.default_rng(0)
    minimum, theta = rng.normal(scale=0.5, size=(2, 300))
    opt = amos_ref.Amos(learning_rate=0.1, eta=0.5, beta=0.99)
    state, distances = opt.init(theta), []
    for t in range(80 * 100):
        if t == 40 * 100:
            minimum = rng.normal(scale=0.5, size=300)
            state = opt.init(theta) if anew else state
        if t % 100 == 0:
            distances.append(np.sqrt(np.mean((theta - minimum) ** 2)))
        noise = 2.0 * rng.normal(size=300)
        state = opt.step(theta, theta - minimum + noise, state)
    return distances


figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
frozen, moved = follow(anew=False), follow(anew=True)
ax.semilogy(frozen, label="the clock goes on")
ax.semilogy(moved, "--", label="the clock starts anew at epoch 40")
ax.set(
    xlabel="epochs",
    ylabel="distance for each entry",
    title="A minimum that moves",
)
ax.legend(loc="lower left")
plt.show()
print(f"at the end {frozen[-1]:.2f}, and {moved[-1]:.2f} with a new clock")
assert frozen[-1] > 2 * moved[-1]

# %% [markdown]
# ## Exercises
#
# 1. **Why a quarter?** Run the clock with the coefficients 1/16 and 1 in the place of 1/4. How fast does
#    $\sqrt B$ grow in the end? What does that change in $c$ and $d$?
# 2. **A rare word.** The row of an embedding has a gradient only in every hundredth batch. Then
#    $\mathrm{mean}(g^2)/\hat v$ is 0 in most steps, and $\gamma$ contains it as a factor. How
#    fast is the clock of this row? Take $\beta = 0.99$, and give `amos_ref.Amos` such gradients.
# 3. **One setting, two trainings.** You train with $\xi = 1/\sqrt{N}$ and then get ten times as much
#    data. Compare $d$ after the same number of *steps* for the old and the new $\xi$. Which of
#    the two trainings ends sooner?

# %% [markdown]
# ## Solutions
#
# **Exercise 1.** With the coefficient $a$ the equation becomes $dB/dE \approx \sqrt{B/a}$ in the
# end, so $\sqrt B \approx E/(2\sqrt a)$. A quarter is the coefficient for which the clock shows
# $E$. In $c$ and $d$ it drops out again: $c \approx 1/\sqrt{aB} = 2/E$, and $d$
# likewise.

# %%
for coefficient in (1 / 16, 1 / 4, 1):
    b, c, d = clock(0.2, 400 * 25, coefficient=coefficient)
    slope = np.sqrt(np.sqrt(0.2) * b[-1]) / 400
    print(f"{coefficient:.4f}: sqrt(B)/E {slope:.2f}, c E/2 {c[-1] * 200:.2f}")
    assert abs(slope * 2 * np.sqrt(coefficient) - 1) < 0.03

# %% [markdown]
# **Exercise 2.** When a gradient comes, $\hat v$ has just taken it in, and is larger than its mean over
# all steps. In the long run $g^2/\hat v$ is then $100\,(1 - \beta^{100}) = 63$ once in a hundred
# steps. So the clock of the row keeps 0.63 of the pace, and a little less at the beginning.

# %%
opt = amos_ref.Amos(learning_rate=0.05, eta=0.5, beta=0.99, c_coef=0.0)
rows = {"common": np.zeros(1), "rare": np.zeros(1)}
state = opt.init(rows)
for t in range(1, 4001):
    grads = {
        "common": np.ones(1),
        "rare": np.ones(1) if t % 100 == 0 else np.zeros(1),
    }
    state = opt.step(rows, grads, state)
epochs = {name: float(np.log1p(state.b[name])) for name in rows}
print(f"epochs on the clock: {epochs['common']:.2f} and {epochs['rare']:.2f}")
assert 0.5 < epochs["rare"] / epochs["common"] < 0.7

# %% [markdown]
# **Exercise 3.** The clock counts epochs. After the same number of steps the training with more data has seen
# a tenth of the epochs, its $d$ is larger, and its steps fall later. In epochs, the smaller $\xi$
# ends a little later too, because $B$ starts from a smaller seed.

# %%
old, new = 1 / np.sqrt(100), 1 / np.sqrt(1000)
for steps in (1000, 10_000):
    left = [clock(xi, steps + 1)[2][-1] for xi in (old, new)]
    print(f"{steps:6,} steps: d = {left[0]:.4f}, new xi {left[1]:.4f}")
same_epoch = [clock(xi, 10 * round(xi**-2) + 1)[2][-1] for xi in (old, new)]
print(f"after 10 epochs: d = {same_epoch[0]:.4f} and {same_epoch[1]:.4f}")
assert left[0] < left[1]
assert same_epoch[0] < same_epoch[1]
