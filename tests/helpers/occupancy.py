"""What of a multiprocessor a kernel uses, as ptxas and its machine code say."""

import re
from typing import NamedTuple

REGISTERS, WARPS, BLOCKS = 65536, 64, 32  # of a multiprocessor, compute capabilities 8.0 and 9.0
SHARED = {(8, 0): 164 * 1024, (9, 0): 228 * 1024}  # bytes of a multiprocessor; each block takes 1 KiB more than it asks
_LOAD = re.compile(r"\bLDG\.E([.\w]*) R(\d+),")
_BYTES = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}


class Use(NamedTuple):
    """Of a kernel: what it takes, how many blocks of it there can be at once, and how far its loads run ahead."""

    registers: int  # of a thread
    shared: int  # bytes of a block
    blocks: int  # on a multiprocessor at once
    in_flight: int  # bytes that a thread has asked for before it waits for the first of them, at most

    def __str__(self) -> str:
        return f"{self.registers:3} registers {self.shared:5} shared {self.blocks} blocks {self.in_flight:3} in flight"


def measure(words, code, capability, block):
    """Return the use of a kernel with blocks of so many threads, from the words of ``ptxas -v`` and nvdisasm's code."""
    registers = int(re.search(r"Used (\d+) registers", words)[1])
    found = re.search(r"(\d+) bytes smem", words)
    shared, warps = int(found[1]) if found else 0, block // 32
    blocks = min(
        REGISTERS // (-(-registers // 8) * 8 * 32 * warps),
        WARPS // warps,
        BLOCKS,
        SHARED[capability] // (shared + 1024),
    )
    return Use(registers, shared, blocks, bytes_in_flight(code))


def bytes_in_flight(code):
    """Return how many bytes the loads of a stretch without a label bring, until an instruction reads one of them."""
    most, pending = 0, {}
    for line in code.splitlines():
        load, used = _LOAD.search(line), set(map(int, re.findall(r"\bR(\d+)\b", line)))
        if line.startswith(".L") or (used - ({int(load[2])} if load else set())) & pending.keys():
            pending = {}
        if load:
            size = next((size for name, size in _BYTES.items() if name in load[1].split(".")), 4)
            pending |= dict.fromkeys(range(int(load[2]), int(load[2]) + -(-size // 4)), 0) | {int(load[2]): size}
            most = max(most, sum(pending.values()))
    return most


def worse(use, kept):
    """Return in which way a use is worse than the one that is kept."""
    if kept is None:
        return ["not in the table: run with --write"]
    found = [(name, mine, old) for name, mine, old in zip(Use._fields, use, kept, strict=True)]
    return [
        f"{name} {mine}, was {old}"
        for name, mine, old in found
        if (mine > old if name in ("registers", "shared") else mine < old)
    ]
