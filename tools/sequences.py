"""Drive each optimizer through long sequences of moves, beside a fresh one on the page after each of them.

    PYTHONPATH=.:tests python tools/sequences.py 1000000

makes so many moves (tests/helpers/sequences.py), mostly on the CPU kernels, on three leaves or on all of them, with
scratch memory that begins as NaN. It ends at the first difference; otherwise it prints how many moves were made. A
million take about half an hour of one core.
"""

import os
import sys
import time

os.environ.setdefault("NUMBA_NUM_THREADS", "4")

import numpy as np
from helpers.sequences import ANYWHERE, MEMBERS, ONLY_HERE, SHAPES, Life, burst

from amos_ref.kernels.cpu import backend as cpu

MOVES = {"cpu": 2000, "numpy": 100}  # of one optimizer, before a new one is made


def main(wanted):
    cpu.scratch = lambda *shape: np.full(shape, np.nan)
    begin, made, turn = time.monotonic(), 0, 0
    while made < wanted:
        rng = np.random.default_rng(turn)
        names = tuple(rng.choice(sorted(SHAPES), 3, replace=False).tolist()) if turn % 4 else tuple(SHAPES)
        for member in MEMBERS:
            for backend, count in MOVES.items():
                life = Life(member, backend, names)
                burst(life, 997 * turn + len(member), count, (*ANYWHERE, *ONLY_HERE))
                made += life.moves
        turn += 1
        print(f"{made} moves in {time.monotonic() - begin:.0f} s: no difference", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
