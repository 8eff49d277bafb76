"""Build every CUDA kernel for compute capabilities, without a GPU, and look at the machine code.

    python tests/kernels/cuda/compile_check.py 80 90

`--write` keeps what was found in occupancy_80.json, ...; without it, what became worse than that is a fault.
Needs the pinned toolkit of `nox -s cuda` (ptxas and nvdisasm come as wheels). Exits with 1 if a kernel spills or has a
stack, if a hot loop does not move 16 bytes at once, or if a product and a sum may be fused: nothing in PTX is an fma,
ptxas makes the same code whether it may fuse or not, and where nothing is divided, that code has no DFMA at all (a
quotient and a square root are built of DFMA, and rounded as IEEE says). Controls must fail the check.
"""

import json
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
from amos_ref.optimizers.closed_form import ClosedFormAmos
from amos_ref.optimizers.directions import Adam, Sign

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from helpers.occupancy import Use, measure, worse

BLOCK = 256
KINDS = dict(rows=9, columns=5, elements=6)  # of kernels that reduce, with how many integers they take
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


DIRECTIONS = {"gradient": None, "sign": Sign, "adam": Adam}


class Case(NamedTuple):
    """A kernel, with what its code must have."""

    name: str
    kernel: object
    integers: int  # arguments
    floats: int = 0
    loads: bool = False  # of 16 bytes, or of 4 halves
    stores: bool = False
    divides: bool = False


def cases():
    """Every kernel for every dtype."""
    yield Case("next_numbers", cuda_rates.next_numbers, 4, 1)
    yield Case("combine_columns", cuda_kernels.combine_columns, 7, divides=True)
    yield Case("fold_slots", cuda_kernels.fold_slots, 7, divides=True)
    yield Case("spread_slots", cuda_kernels.spread_slots, 6)
    yield Case("combine_few", cuda_kernels.combine_few, 7, divides=True)
    yield Case("combine_rows", cuda_reduce.reducing("float64", BLOCK, 1, squares=False).rows, 7, divides=True)
    for name in DTYPES:
        yield Case(f"decide {name}", cuda_kernels.deciding(Amos.method, name), 8, divides=True)
        for kind, integers in KINDS.items():
            yield Case(f"reduce {kind} {name}", reducing(name, kind), integers, loads=True, divides=kind == "rows")
        few = reducing(name, "rows", block=cuda_reduce.SMALL_BLOCK)
        yield Case(f"reduce rows {name} of a small table", few, KINDS["rows"], loads=True, divides=True)
    for step in dict.fromkeys(STEPS):
        name = " ".join(map(str, step))
        moves, two = dict(loads=True, stores=True), step[3] and step[2] != "float64"  # neighbours, with momentum
        yield Case(f"apply rows {name}", applying(step, "rows"), 8, **moves)
        yield Case(f"apply columns {name}", applying(step, "columns"), 7, **moves)
        moves = {} if two else moves
        yield Case(f"step elements {name}", cuda_apply.stepping(Amos.method, *step), 6, divides=True, **moves)
    yield Case("decide without state", cuda_kernels.deciding(ClosedFormAmos.method, "float64"), 8, divides=True)
    yield from owning()
    for word, direction in DIRECTIONS.items():
        yield from directed(word, direction)


def directed(word, direction):
    """The kernels of a direction; those that follow gradients and have slots of many elements are paper Amos's."""
    divides, moves, method = direction is Adam, dict(loads=True, stores=True), ClosedFormAmos.method
    for name in DTYPES if direction is not None else ():
        for kind, integers in KINDS.items():
            kernel = reducing(name, kind, direction)
            means = divides or kind == "rows"  # where every row is one chunk
            yield Case(f"reduce {kind} {name} by {word}", kernel, integers, loads=True, divides=means)
    for name in DTYPES:
        if direction is not None:
            for kind, integers in dict(rows=8, columns=7).items():
                kernel = applying((name, name, "float64", False), kind, direction)
                yield Case(f"apply {kind} {name} by {word}", kernel, integers, divides=divides, **moves)
        step = cuda_apply.stepping(method._replace(direction=direction), name, name, "float64", False)
        yield Case(f"step elements {name} by {word}", step, 6, divides=True, **moves)


def owning():
    """The kernels for leaves with numbers of their own, where they differ."""
    for name in DTYPES:
        yield Case(f"decide {name} with own", cuda_kernels.deciding(Amos.own_method, name), 8, divides=True)
    kernel = cuda_kernels.deciding(ClosedFormAmos.own_method, "float64")
    yield Case("decide without state with own", kernel, 8, divides=True)
    for step in dict.fromkeys(STEPS):
        kernel = cuda_apply.stepping(Amos.own_method, *step)
        yield Case(f"step elements {' '.join(map(str, step))} with own", kernel, 6, divides=True)
    for word, direction in DIRECTIONS.items():
        method = ClosedFormAmos.own_method._replace(direction=direction)
        for name in DTYPES:
            kernel = cuda_apply.stepping(method, name, name, "float64", False)
            yield Case(f"step elements {name} by {word} with own", kernel, 6, divides=True)


def reducing(dtype, kind, direction=None, block=BLOCK):
    """The kernel that reduces, as the backend asks for it."""
    width = cuda_reduce.sum_width(dtype, direction, kind)
    return getattr(cuda_reduce.reducing(dtype, block, width, direction), kind)


def applying(step, kind, direction=None):
    """The kernel that applies, as the backend asks for it."""
    width = cuda_apply.move_width(*step, direction, kind)
    return getattr(cuda_apply.applying(*step, width, direction), kind)


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
        return cuda.compile_ptx(
            case.kernel.py_func,
            signature,
            cc=self.capability,
            launch_bounds=case.kernel.targetoptions.get("launch_bounds"),
        )[0]

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
    """Return what is wrong with a kernel's code, and what of a multiprocessor it uses."""
    words, cubin = compiler.build(ptx, *options)
    _, strict = compiler.build(ptx, "--fmad=false", *options)
    same, code = machine_code(cubin) == machine_code(strict), _run("nvdisasm", "-c", cubin)
    return list(_faults(case, ptx, words, code, same)), measure(words, code, compiler.capability, BLOCK)


def _faults(case, ptx, words, code, same):
    stack = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", words)
    if stack is None or stack.groups() != ("0", "0", "0"):
        yield f"stack and spills {stack and stack.groups()}"
    for word, wanted in (("LDG", case.loads), ("STG", case.stores)):
        bits = "64" if "int16" in case.name and not case.name.startswith("reduce elements") else "128"
        if wanted and not re.search(rf"{word}\.E\.{bits}", code):
            yield f"no {word} of {bits} bits"
    if re.search(r"\bfma\.", ptx) or not same:
        yield "a product and a sum may be fused"
    if not case.divides and "DFMA" in code:
        yield "DFMA where nothing is divided"


def check(compiler, kept):
    """Print one line a kernel; return how many are wrong, and what each uses."""
    wrong, found = 0, {}
    for case in cases():
        errors, use = faults(compiler, case, compiler.ptx(case))
        if kept is not None:
            errors += worse(use, kept.get(case.name))
        found[case.name], wrong = use, wrong + bool(errors)
        print(f"{case.name:44} {use}  {'; '.join(errors) or 'ok'}", flush=True)
    most = max(use.registers for use in found.values())
    print("sm_{}{}: ".format(*compiler.capability), end="")
    print(f"{len(found)} kernels, at most {most} registers, {wrong} wrong")
    return wrong, found


def controls_pass(compiler):
    """Whether the check misses a kernel that spills, one that fuses, or one that leaves a multiprocessor idle."""
    case = Case("spills", applying(("float32", "float32", "float64", False), "rows"), 8)
    _, use = faults(compiler, case, compiler.ptx(case))
    spills, _ = faults(compiler, case, compiler.ptx(case), "--maxrregcount=24")
    better = use._replace(registers=use.registers - 1, blocks=use.blocks + 1, in_flight=use.in_flight + 16)
    idle = worse(use, better)
    ptx = cuda.compile_ptx(loose, (types.float64[::1],) * 3, cc=compiler.capability)[0]
    fuses, _ = faults(compiler, Case("fuses", None, 0), ptx)
    print(f"control with 24 registers: {spills}\ncontrol that fuses: {fuses}\ncontrol that was better: {idle}")
    return not (spills and "stack" in spills[0] and len(fuses) == 2 and len(idle) == 3)


def main(*arguments):
    write = "--write" in arguments
    names = [name for name in arguments if name != "--write"]
    if len(names) > 1:  # a process each: device functions are compiled once a process
        options = ["--write"] if write else []
        children = [subprocess.Popen([sys.executable, __file__, name, *options]) for name in names]
        return max([child.wait() for child in children])
    capability = divmod(int(names[0]), 10)
    kept = {name: Use(*use) for name, use in json.loads(_table(names[0]).read_text()).items()} if not write else None
    # To compile a device function Numba asks the current device what it can do, and there is none.
    numba.cuda.dispatcher.get_current_device = cuda.get_current_device = lambda: SimpleNamespace(
        compute_capability=capability
    )
    with tempfile.TemporaryDirectory() as folder:
        compiler = Compiler(capability, folder)
        wrong, found = check(compiler, kept)
        if controls_pass(compiler):
            print("a control passed: the check sees nothing")
            wrong += 1
    if write:
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(use)}" for name, use in found.items())
        _table(names[0]).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return 1 if wrong else 0


def _table(architecture):
    """Where the registers, bytes of shared memory, blocks and bytes under way of every kernel are kept."""
    return pathlib.Path(__file__).with_name(f"occupancy_{architecture}.json")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
