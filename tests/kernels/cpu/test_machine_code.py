"""No product and sum of a kernel is fused into one rounding, here or on other processors.

The kernels' code is compiled for them by the LLVM that is in llvmlite, as Numba would do it there.
"""

import re

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest

import amos_ref
from amos_ref.kernels.cpu import loops, reduce

pytestmark = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

FUSED = r"\b(v?fn?m(?:add|sub|la|ls)\w*)"
#: Processors that can fuse.
TARGETS = {
    "Apple silicon": ("arm64-apple-macosx14", "apple-m1", ""),
    "ARM under Linux": ("aarch64-unknown-linux-gnu", "neoverse-n1", ""),
    "Windows": ("x86_64-pc-windows-msvc", "haswell", "+fma,+avx2"),
    "AVX-512": ("x86_64-unknown-linux-gnu", "skylake-avx512", "+fma,+avx512f"),
}


SHARED = dict(slot_shape={"elements": "element", "rows": "(SHAPE[0], 1)"}, clip_value=0.5, backend="cpu")


@pytest.fixture(scope="module")
def codes():
    """LLVM's code of the kernels that do all for element slots, and of those of rows; also along Adam's direction."""
    theta, g = (np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6) for _ in range(2))
    found = []
    for opt in (
        amos_ref.Amos(momentum=0.9, **SHARED),
        amos_ref.ClosedFormAmos(half_life=3, direction="adam", **SHARED),
    ):
        params = {"elements": theta.copy(), "rows": theta.copy()}
        opt.step(params, {"elements": g, "rows": g}, opt.init(params))
        made = loops.deciding(opt.method)
        adam = isinstance(opt, amos_ref.ClosedFormAmos)
        slots = () if adam else (made.slots,)  # the closed form's has nothing to fuse
        for kernel in (made.elements, *slots, reduce.reduce_rows, loops.apply_rows):
            signature = next(one for one in kernel.signatures if ("Adam(" in str(one)) == adam)
            fresh = numba.njit(fastmath=False, error_model="numpy", nogil=True)(
                kernel.py_func
            )  # not the one in the cache
            fresh.compile(signature)
            found.append(fresh.inspect_llvm(signature))
    return found


def assembly(code, triple, cpu, features):
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=3)
    code = code.replace("@llvm.x86.", "@x86_")  # counts of references, which no other processor knows by this name
    code = re.sub("target triple = .*", f'target triple = "{triple}"', code)
    code = re.sub("target datalayout = .*", f'target datalayout = "{machine.target_data}"', code)
    return machine.emit_assembly(llvm.parse_assembly(code))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_no_processor_fuses(target, codes):
    for code in codes:
        assert re.search(r"\bfmul\b", code)
        assert re.findall(FUSED, assembly(code, *target)) == []


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_code_that_may_be_fused_is_caught(target, codes):
    for code in codes:
        loose = re.sub(r"\b(fmul|fadd|fsub) ", r"\1 contract ", code)
        assert re.findall(FUSED, assembly(loose, *target))
