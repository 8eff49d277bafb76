"""Time steps of the closed form in turns beside paper Amos with the same slots, and beside the roof of their bytes.

    python tools/closed_form_speed.py [THREADS] [SIZE or TREE]...

One line for each kind of slots: nanoseconds a parameter of paper Amos and of the directions gradient, sign and adam,
the medians of the ratios turn by turn, and for trees microseconds a leaf. docs/performance.md has what it said.
"""

import sys
import time
from dataclasses import replace

import numpy as np

from amos_ref.bench.cpu import AmosStepper
from amos_ref.bench.measure import limit_threads
from amos_ref.bench.roof import Roof
from amos_ref.bench.workloads import SLOT_NAMES, parse_size, parse_tree

TURNS = 25
MEMBERS = {"paper": None, "gradient": "gradient", "sign": "sign", "adam": "adam"}
ROOFS = ("paper", "gradient", "adam")


def take_turns(works, calls):
    """Return the times of a step of each, and of their roofs, turn by turn, in an order drawn anew."""
    steppers = {name: AmosStepper(work, "cpu") for name, work in works.items()}
    steppers |= {f"roof of {name}": Roof(works[name]) for name in ROOFS}
    times, rng = {name: [] for name in steppers}, np.random.default_rng(2022)
    for _ in range(TURNS + 1):
        for name in rng.permutation(list(steppers)):
            steppers[name].launch()
            start = time.perf_counter()
            for _ in range(calls):
                steppers[name].launch()
            times[name].append((time.perf_counter() - start) / calls)
    return {name: np.array(found[1:]) for name, found in times.items()}


def main(threads="1", *names):
    for name in names or ("1e7", "1000x64"):
        base = parse_tree(name) if not name[:1].isdigit() or "x" in name else parse_size(name)
        for slot in SLOT_NAMES if len(base.shapes) == 1 else ("tensor", "element"):
            plain = replace(base, slot=slot, state="float64", threads=int(threads))
            works = {member: replace(plain, direction=way) for member, way in MEMBERS.items()}
            with limit_threads(int(threads)):
                times = take_turns(works, 1 if base.parameters > 10**6 else 20)
            middle = {member: float(np.median(times[member])) for member in MEMBERS}
            words = [f"{member} {1e9 * t / base.parameters:.3f}" for member, t in middle.items()]
            over = [f"gradient/paper {np.median(times['gradient'] / times['paper']):.2f}"]
            over += [f"{member}/roof {np.median(times[member] / times[f'roof of {member}']):.2f}" for member in ROOFS]
            if len(base.shapes) > 1:
                over = [f"{member} {1e6 * t / len(base.shapes):.2f} us/leaf" for member, t in middle.items()]
            print(f"{name} {slot}, {threads} threads: ns {' '.join(words)}; {', '.join(over)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
