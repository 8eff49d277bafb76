"""
A first run: no schedule, no weight decay to choose
===================================================

A small network learns handwritten digits in batches of 32. Amos is given xi = 1/sqrt(N) for N batches an epoch, and for
every array the scale eta that its shape suggests. It is not told how long the training will be. The step sizes and the
weight decay on the right are what it chooses.

Run: python examples/first_run.py [PICTURE]
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import amos_ref

images, labels = load_digits(return_X_y=True)
images = (images / 16).reshape(-1, 64)
rng = np.random.default_rng(0)
order = rng.permutation(len(images))
held_out, train = order[:297], order[297:]  # 1,500 images to train on


def loss_and_grads(params, rows):
    """Return the mean cross-entropy of some images, and its gradient."""
    hidden = np.maximum(images[rows] @ params["kernel1"] + params["bias1"], 0)
    scores = hidden @ params["kernel2"] + params["bias2"]
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss = -np.mean(np.log(shares[np.arange(len(rows)), labels[rows]]))
    shares[np.arange(len(rows)), labels[rows]] -= 1
    shares /= len(rows)
    back = (shares @ params["kernel2"].T) * (hidden > 0)
    grads = {"kernel1": images[rows].T @ back, "bias1": back.sum(axis=0)}
    return loss, grads | {"kernel2": hidden.T @ shares, "bias2": shares.sum(axis=0)}


params = {"kernel1": rng.normal(scale=np.sqrt(2 / 64), size=(64, 32)), "bias1": np.zeros(32)}
params |= {"kernel2": rng.normal(scale=np.sqrt(1 / 32), size=(32, 10)), "bias2": np.zeros(10)}
batches = len(train) // 32
opt = amos_ref.Amos(
    learning_rate=1 / np.sqrt(batches),
    eta={"kernel1": "sqrt(2/SHAPE[0])", "kernel2": "sqrt(1/SHAPE[0])", "bias.": 0.5},
    slot_shape={"kernel.": "(1, SHAPE[1])", "bias.": "tensor"},
    beta=0.95,
)
state, losses, steps, decay = opt.init(params), [], [], []
for epoch in range(21):
    losses.append([loss_and_grads(params, rows)[0] for rows in (train, held_out)])
    if epoch in (0, 1, 5, 20):
        print(f"after {epoch:2} epochs: loss {losses[-1][0]:.3f}, on held-out images {losses[-1][1]:.3f}")
    for i, rows in enumerate(np.array_split(rng.permutation(train), batches)):
        grads = loss_and_grads(params, rows)[1]
        if i % 8 == 0:
            trace = opt.trace(grads, state, params)
            steps.append([np.median(trace[name]["alpha"] / np.sqrt(trace[name]["r"])) for name in params])
            decay.append(np.median(trace["kernel1"]["rho"]))
        state = opt.step(params, grads, state)

# %%
# Steps keep nearly their first size for two epochs and fall from there; the decay falls faster. (A step is the median
# over the slots of an array, the decay the mean of an epoch.)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.plot(losses, "-o", markersize=3, label=["training images", "held-out images"])
left.set(xlabel="epoch", ylabel="loss", yscale="log", title="One run, nothing tuned")
left.legend()
t = np.arange(len(steps)) * 21 / len(steps)
styles = ("-", "--", "-.", ":")
for name, size, line in zip(params, np.transpose(steps), styles, strict=True):
    right.plot(t, size, line, label=f"step of {name}")
mean_decay = np.reshape(decay, (21, -1)).mean(axis=1)
right.plot(np.arange(21) + 0.5, mean_decay, "o", color="#777777", label="decay of kernel1")
right.set(xlabel="epoch", yscale="log", title="The steps and the decay that Amos chose")
right.legend(fontsize="small")
if len(sys.argv) > 1 and sys.argv[1].endswith(".png"):
    figure.savefig(sys.argv[1], dpi=120)
plt.show()
