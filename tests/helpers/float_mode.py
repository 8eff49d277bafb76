"""The processor's floating-point mode in this thread, set through the environment of C's fenv.h."""

import contextlib
import ctypes
import platform
import sys

X86 = platform.machine() in ("x86_64", "AMD64")
#: Where glibc keeps the control word in its fenv_t, and its bits; None where nothing is known of the system.
PLACE = 7 if X86 else 0
MODES = (
    {"FTZ": 0x8000, "DAZ": 0x40, "FTZ and DAZ": 0x8040, "downward": 0x2000, "upward": 0x4000, "toward zero": 0x6000}
    if X86
    else {"FTZ": 1 << 24, "downward": 2 << 22, "upward": 1 << 22, "toward zero": 3 << 22}
)
KNOWN = sys.platform == "linux" and platform.libc_ver()[0] == "glibc" and (X86 or platform.machine() == "aarch64")


@contextlib.contextmanager
def float_mode(name):
    """Let this thread compute in a mode, by its name in MODES."""
    libm = ctypes.CDLL("libm.so.6")
    kept, changed = ((ctypes.c_uint32 * 8)() for _ in range(2))
    libm.fegetenv(kept)
    libm.fegetenv(changed)
    changed[PLACE] |= MODES[name]
    libm.fesetenv(changed)
    try:
        yield
    finally:
        libm.fesetenv(kept)
