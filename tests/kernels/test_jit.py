"""Compiled code: strict in its arithmetic, kept on disk under the digest of all its sources, or else one warning."""

import ast
import errno
import pathlib
import subprocess
import sys
import warnings

import numba
import pytest
from numba.core.dispatcher import Dispatcher

import amos_ref
from amos_ref.kernels import jit
from amos_ref.kernels.cpu import loops

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def one_more(x):
    return x + 1.0


@pytest.fixture
def warn_afresh():
    jit._warn_uncached.cache_clear()
    yield
    jit._warn_uncached.cache_clear()


@compiled_only
def test_the_cache_is_keyed_by_the_digest_of_every_compiled_source(monkeypatch):
    cache = jit._Cache(one_more)
    codegen = numba.njit(fastmath=False)(one_more).targetctx.codegen()
    before = cache._index_key(None, codegen)
    assert jit.source_digest() in before
    monkeypatch.setattr(jit, "source_digest", lambda: "another page")
    assert cache._index_key(None, codegen) != before


def test_the_digest_covers_the_page_and_all_that_is_compiled():
    root = jit._PACKAGE
    covered = {path for pattern in jit._COMPILED for path in root.glob(pattern)}
    compiled = {root / "spec.py", root / "closed_form.py", *(root / "optimizers").glob("*.py")}
    compiled |= {path for path in (root / "kernels").rglob("*.py") if path.parent.name != "cuda"}
    assert covered == compiled


@compiled_only
@pytest.mark.parametrize("method", ["save_overload", "load_overload"])
def test_a_disk_that_fails_is_one_warning_and_the_right_answer(method, monkeypatch, warn_afresh, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # nothing is kept there yet

    def fails(*args):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(jit.FunctionCache, method, fails)
    with pytest.warns(RuntimeWarning, match="not kept on disk.*Read-only file system") as seen:
        assert jit.kernel(one_more)(1.0) == 2.0
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jit.kernel(one_more)(2.0) == 3.0


@compiled_only
def test_no_place_for_a_cache_is_one_warning_and_the_right_answer(monkeypatch, warn_afresh):
    def nowhere(*args):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(jit, "_Cache", nowhere)
    with pytest.warns(RuntimeWarning, match="no locator available"):
        assert jit.kernel(one_more)(1.0) == 2.0


# the source

MAKERS = {"jit", "njit", "vectorize", "guvectorize", "stencil", "register_jitable", "overload", "overload_method"}


def jitted(tree):
    """(line, call) of everything in a file that has Numba compile something; the call is None for a bare name."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else None
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", None) == "jax":
            continue
        if name in MAKERS:
            yield node.lineno, calls.get(id(node))


def options_of(node):
    """What a literal dictionary says; under a name anything could stand."""
    if not isinstance(node, ast.Dict):
        return {}
    return {getattr(key, "value", None): value for key, value in zip(node.keys, node.values, strict=True)}


def fastmath_of(call):
    """The value of the call's fastmath, by itself, in ** or in jit_options; None if it says nothing."""
    found = {}
    for keyword in call.keywords if call else ():
        found |= options_of(keyword.value) if keyword.arg in (None, "jit_options") else {keyword.arg: keyword.value}
    return getattr(found.get("fastmath"), "value", None)


def test_every_kernel_says_that_fastmath_is_off():
    seen = 0
    for path in sorted(pathlib.Path(amos_ref.__file__).parent.rglob("*.py")):
        for line, call in jitted(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            assert fastmath_of(call) is False, f"{path}:{line} does not say fastmath=False"
    assert seen >= 3


@compiled_only
def test_every_kernel_is_compiled_with_fastmath_off():
    deciding = loops.deciding(amos_ref.Amos.method.decide, amos_ref.Amos.method.states)
    kernels = [*vars(loops).values(), *vars(deciding).values()]
    found = [value for value in kernels if isinstance(value, Dispatcher)]
    assert len(found) >= 10
    assert all(kernel.targetoptions["fastmath"] is False for kernel in found)


LOOSE = [
    "@njit\ndef f(): ...",
    "@numba.njit()\ndef f(): ...",
    "@overload(f)\ndef g(): ...",
    "njit(f)",
    "njit(fastmath=True)(f)",
    "njit(**{**STRICT, 'fastmath': True})(f)",
    "njit(**STRICT)(f)",
    "njit(fastmath={'contract'})(f)",
    "overload(f, jit_options={'fastmath': {'contract'}})",
    "overload(f, jit_options=LOOSE)",
]


@pytest.mark.parametrize("text", LOOSE)
def test_kernels_that_do_not_say_so_are_caught(text):
    assert [fastmath_of(call) for _, call in jitted(ast.parse(text))] != [False]


def test_importing_the_package_imports_no_compiler_and_no_framework():
    heavy = ["numba", "llvmlite", "torch", "jax", "tensorflow", "rich", "scipy", "matplotlib", "flint"]
    code = f"import sys, amos_ref; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
