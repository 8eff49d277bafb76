"""
Training over MPI ranks
=======================

Train over the ranks of an MPI job, stop, and go on with another number of ranks, or in one process::

    mpiexec -n 4 python -m mpi4py examples/mpi_training.py run.amos --steps 20
    mpiexec -n 2 python -m mpi4py examples/mpi_training.py run.amos --steps 20
    python examples/mpi_training.py run.amos --steps 10 --compare

The last line trains in one process from the beginning, too, and compares all bits.
"""

import argparse
import os

import numpy as np

import amos_ref
from amos_ref.mpi import Layout, Sharded, load

SLOTS = {"bias": "tensor", ".*": "(1, SHAPE[1])"}


def model():
    """The whole parameters of a linear map from 256 numbers to 10; a larger model is made part by part."""
    rng = np.random.default_rng(0)
    return {"kernel": 0.05 * rng.standard_normal((256, 10)), "bias": np.zeros(10)}


def gradients(params, step):
    """Gradients of the mean square error on a minibatch. Here each rank computes all; yours come from your model."""
    rng = np.random.default_rng(step)
    x, target = rng.standard_normal((32, 256)), rng.standard_normal((32, 10))
    error = (x @ params["kernel"] + params["bias"] - target) / 32
    return {"kernel": x.T @ error, "bias": error.sum(axis=0)}


def optimizer():
    return amos_ref.Amos(learning_rate=0.05, eta={"bias": 0.5, ".*": "init"}, slot_shape=SLOTS, beta=0.95)


def train_over_ranks(path, steps, comm):
    """Take steps from where the file is, or from the beginning, and write the file."""
    opt, full = optimizer(), model()
    layout = Layout.even(full, comm.size, opt, "each")
    if comm.bcast(os.path.exists(path)):
        params, state, opt = load(path, layout, comm)
        sharded = Sharded(opt, layout, comm)
    else:
        sharded, params = Sharded(opt, layout, comm), layout.pieces(full, comm.rank)
        state = sharded.init(params)
    for _ in range(steps):
        whole = layout.join(comm.allgather(params))  # what a model that is sharded itself does not need
        grads = gradients(whole, state.count)
        state = sharded.step(params, layout.pieces(grads, comm.rank), state)
    sharded.save(path, params, state)
    if comm.rank == 0:
        print(f"{layout!r}, now at step {state.count}")


def train_alone(path, steps, compare):
    """The same in one process."""
    params, state, opt = amos_ref.load(path, like=model())
    for _ in range(steps):
        state = opt.step(params, gradients(params, state.count), state)
    amos_ref.save(path, params, state, opt)
    print(f"one process, now at step {state.count}")
    if compare:
        again, opt = model(), optimizer()
        begun = opt.init(again)
        for _ in range(state.count):
            begun = opt.step(again, gradients(again, begun.count), begun)
        pairs = [(params, again), (state.v, begun.v), (state.b, begun.b)]
        same = all(one[name].tobytes() == other[name].tobytes() for one, other in pairs for name in params)
        print("all bits are those of one process" if same else "THE BITS DIFFER")


def main():
    parser = argparse.ArgumentParser(description="Train over the ranks of an MPI job.")
    parser.add_argument("path")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--compare", action="store_true", help="train from the beginning in one process, and compare")
    args = parser.parse_args()
    if args.compare:
        train_alone(args.path, args.steps, args.compare)
        return
    from mpi4py import MPI

    train_over_ranks(args.path, args.steps, MPI.COMM_WORLD)


if __name__ == "__main__":
    main()
