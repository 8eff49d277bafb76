"""Build every CUDA kernel for compute capabilities, without a GPU, and look at the machine code.

    python tests/kernels/cuda/compile_check.py 80 90

Needs the pinned toolkit of `nox -s cuda` (ptxas and nvdisasm come as wheels). Exits with 1 if a kernel spills or has a
stack, if a hot loop does not move 16 bytes at once, or if a product and a sum may be fused: nothing in PTX is an fma,
ptxas makes the same code whether it may fuse or not, and where nothing is divided, that code has no DFMA at all (a
quotient and a square root are built of DFMA, and rounded as IEEE says). Two controls must fail the check.
"""

import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from typing import NamedTuple

import numba.cuda.dispatcher
from numba import cuda, types

from amos_ref.kernels.cuda import apply as cuda_apply
from amos_ref.kernels.cuda import rates as cuda_rates
from amos_ref.kernels.cuda import reduce as cuda_reduce
from amos_ref.kernels.cuda import slots as cuda_kernels
from amos_ref.optimizers.amos import Amos

BLOCK = 256
DECIDE = Amos.method.decide, Amos.method.numbers
DTYPES = ("float64", "float32", "uint16", "int16")
# theta, g, state, momentum: every dtype in every place, with and without momentum.
STEPS = (
    *((name, name, "float64", False) for name in DTYPES),
    *((name, name, name, True) for name in DTYPES),
    ("float32", "float32", "float64", True),
    ("float32", "int16", "float64", True),
    ("uint16", "float64", "float64", True),
    ("int16", "float32", "float64", True),
)


class Case(NamedTuple):
    """A kernel, with what its code must have."""

    name: str
    kernel: object
    integers: int  # arguments
    floats: int = 0
    loads: bool = False  # of 16 bytes
    stores: bool = False
    divides: bool = False


def cases():
    """Every kernel for every dtype."""
    yield Case("next_numbers", cuda_rates.next_numbers, 3, 1)
    yield Case("combine_columns", cuda_kernels.combine_columns, 7, divides=True)
    yield Case("fold_slots", cuda_kernels.fold_slots, 7, divides=True)
    yield Case("spread_slots", cuda_kernels.spread_slots, 6)
    yield Case("combine_rows", cuda_reduce.reducing("float64", BLOCK, squares=False).rows, 7, loads=True, divides=True)
    for name in DTYPES:
        yield Case(f"decide {name}", cuda_kernels.deciding(*DECIDE, name), 9, divides=True)
        for kind in ("rows", "columns", "elements"):
            yield Case(f"reduce {kind} {name}", getattr(cuda_reduce.reducing(name, BLOCK), kind), 5, loads=True)
    for step in dict.fromkeys(STEPS):
        name = " ".join(map(str, step))
        moves = dict(loads=True, stores=True)
        yield Case(f"apply rows {name}", cuda_apply.applying(*step).rows, 7, **moves)
        yield Case(f"apply columns {name}", cuda_apply.applying(*step).columns, 7, **moves)
        yield Case(f"step elements {name}", cuda_apply.stepping(*DECIDE, *step), 6, divides=True, **moves)


def loose(x, y, z):
    """A control: what Numba makes of a product and a sum by itself."""
    i = cuda.grid(1)
    z[i] = x[i] * y[i] + z[i]


class Compiler:
    """ptxas and nvdisasm for one compute capability."""

    def __init__(self, capability, folder):
        self.capability, self.folder = capability, pathlib.Path(folder)

    def ptx(self, case):
        signature = (types.int64,) * case.integers + (types.float64,) * case.floats
        return cuda.compile_ptx(case.kernel.py_func, signature, cc=self.capability)[0]

    def build(self, ptx, *options):
        """Return what ptxas says, and where the machine code is."""
        (self.folder / "kernel.ptx").write_text(ptx)
        architecture = "sm_{}{}".format(*self.capability)
        cubin = self.folder / f"kernel{len(options)}.cubin"
        words = _run("ptxas", f"-arch={architecture}", "-v", *options, self.folder / "kernel.ptx", "-o", cubin)
        return words, cubin


def machine_code(cubin):
    """Return the bytes of the executable sections of an ELF file."""
    elf = cubin.read_bytes()
    (table,), (size, count) = struct.unpack_from("<Q", elf, 0x28), struct.unpack_from("<HH", elf, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", elf, table + k * size) for k in range(count)]
    return [elf[offset : offset + length] for _, _, flags, _, offset, length in sections if flags & 4]


def _run(name, *args):
    found = subprocess.run([_tool(name), *map(str, args)], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"{name} failed: {found.stderr.strip()}")
    return found.stdout + found.stderr


def _tool(name):
    """The tool from its wheel, or on the path."""
    for path in pathlib.Path(sys.prefix).glob(f"lib/python3*/site-packages/nvidia/*/bin/{name}"):
        return str(path)
    path = shutil.which(name)
    if path is None:
        raise SystemExit(f"there is no {name}: run nox -s cuda, which installs its wheel")
    return path


def faults(compiler, case, ptx, *options):
    """Return what is wrong with a kernel's code, and how many registers it takes."""
    words, cubin = compiler.build(ptx, *options)
    _, strict = compiler.build(ptx, "--fmad=false", *options)
    same, code = machine_code(cubin) == machine_code(strict), _run("nvdisasm", "-c", cubin)
    return list(_faults(case, ptx, words, code, same)), int(re.search(r"Used (\d+) registers", words)[1])


def _faults(case, ptx, words, code, same):
    stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", words)
    if stack is None or stack.groups() != ("0", "0", "0"):
        yield f"stack and spills {stack and stack.groups()}"
    for word, wanted in (("LDG", case.loads), ("STG", case.stores)):
        if wanted and not re.search(rf"{word}\.E\.128", code):
            yield f"no {word} of 128 bits"
    if re.search(r"\bfma\.", ptx) or not same:
        yield "a product and a sum may be fused"
    if not case.divides and "DFMA" in code:
        yield "DFMA where nothing is divided"


def check(compiler):
    """Print one line a kernel; return how many are wrong."""
    wrong = count = most = 0
    for case in cases():
        found, registers = faults(compiler, case, compiler.ptx(case))
        count, wrong, most = count + 1, wrong + bool(found), max(most, registers)
        print(f"{case.name:44} {registers:3} registers  {'; '.join(found) or 'ok'}", flush=True)
    print("sm_{}{}: ".format(*compiler.capability), end="")
    print(f"{count} kernels, at most {most} registers, {wrong} wrong")
    return wrong


def controls_pass(compiler):
    """Whether the check misses a kernel that spills, or one that fuses."""
    case = Case("spills", cuda_apply.applying("float32", "float32", "float64", False).columns, 7)
    spills, _ = faults(compiler, case, compiler.ptx(case), "--maxrregcount=24")
    ptx = cuda.compile_ptx(loose, (types.float64[::1],) * 3, cc=compiler.capability)[0]
    fuses, _ = faults(compiler, Case("fuses", None, 0), ptx)
    print(f"control with 24 registers: {spills}\ncontrol that fuses: {fuses}")
    return not (spills and "stack" in spills[0] and len(fuses) == 2)


def main(*arguments):
    if len(arguments) > 1:  # a process each: device functions are compiled once a process
        children = [subprocess.Popen([sys.executable, __file__, argument]) for argument in arguments]
        return max([child.wait() for child in children])
    capability = divmod(int(arguments[0]), 10)
    # To compile a device function Numba asks the current device what it can do, and there is none.
    numba.cuda.dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    with tempfile.TemporaryDirectory() as folder:
        compiler = Compiler(capability, folder)
        wrong = check(compiler)
        if controls_pass(compiler):
            print("a control passed: the check sees nothing")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
