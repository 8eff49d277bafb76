"""Compiled code: strict in its arithmetic, kept on disk under the digest of all its sources, or else one warning."""

import ast
import errno
import hashlib
import os
import pathlib
import pickle
import subprocess
import sys
import warnings

import numba
import pytest
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

import amos_ref
from amos_ref.kernels import jit
from amos_ref.kernels.cpu import loops, reduce, whole

compiled_only = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


def one_more(x):
    return x + 1.0


@pytest.fixture
def warn_afresh():
    jit._told.cache_clear()
    yield
    jit._told.cache_clear()


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
def test_no_place_for_a_cache_is_one_warning_whatever_the_reasons(monkeypatch, warn_afresh):
    reasons = iter([RuntimeError("no locator available"), RuntimeError("not here either"), OSError("nor here")])

    def nowhere(*args):
        raise next(reasons)

    monkeypatch.setattr(jit, "_Cache", nowhere)
    with pytest.warns(RuntimeWarning, match="no locator available") as seen:
        assert [jit.kernel(one_more)(1.0) for _ in range(3)] == [2.0, 2.0, 2.0]
    assert len(seen) == 1


# damaged files


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of a cache that holds one kernel, in an index and a file of data."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    jit.kernel(one_more)(1.0)
    (folder,) = tmp_path.iterdir()
    assert sorted(path.suffix for path in folder.iterdir()) == [".nbc", ".nbi"]
    return folder


def hits():
    """Call the kernel in a new dispatcher; return whether it was loaded from the cache."""
    kernel = jit.kernel(one_more)
    assert kernel(1.0) == 2.0
    return sum(kernel.stats.cache_hits.values())


def sealed(content):
    data = pickle.dumps(content)
    return hashlib.sha256(data).digest() + data


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


VERSION, UNKNOWN = pickle.dumps(numba.__version__, protocol=-1), b"cno\nsuch\n."
DAMAGES = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "a bit at the end": lambda data: flipped(data, len(data) - 1),
    "a bit in the middle": lambda data: flipped(data, len(data) // 2),
    "a pickle": lambda data: pickle.dumps({"another": "thing"}),
    "a list with its hash": lambda data: sealed([1, 2, 3]),
    "an index of another kind": lambda data: VERSION + sealed(("stamp", [3])),
    "what cannot be unpickled": lambda data: VERSION + hashlib.sha256(UNKNOWN).digest() + UNKNOWN,
}


@compiled_only
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_compiled_anew_and_replaced(damage, suffix, kept):
    (path,) = kept.glob(f"*{suffix}")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert hits() == 0
    assert hits() == 1


@compiled_only
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_what_is_no_file_is_compiled_anew_and_replaced(suffix, kept):
    (path,) = kept.glob(f"*{suffix}")
    path.unlink()
    assert [hits(), hits()] == [0, 1]
    for target in ("nowhere", "/dev/zero"):
        path.unlink()
        path.symlink_to(target)
        assert [hits(), hits()] == [0, 1]
    path.unlink()
    os.mkfifo(path)
    assert [hits(), hits()] == [0, 1]


@compiled_only
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_folder_in_the_place_of_a_file_is_one_warning(suffix, kept, warn_afresh):
    (path,) = kept.glob(f"*{suffix}")
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="not kept on disk.*Is a directory") as seen:
        assert [hits(), hits()] == [0, 0]
    assert len(seen) == 1


@compiled_only
@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_without_hashes_and_care_a_damaged_cache_breaks_the_kernel(damage, kept, monkeypatch):
    monkeypatch.setattr(jit, "_Files", IndexDataCacheFile)
    monkeypatch.setattr(jit._Cache, "load_overload", jit.FunctionCache.load_overload)
    (path,) = kept.glob("*.nbi")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises((EOFError, OverflowError, pickle.UnpicklingError)):  # by what the cut bytes say
        hits()


@pytest.mark.parametrize(("files", "found"), [(jit._Files, None), (IndexDataCacheFile, "one")])
def test_two_processes_that_give_two_kernels_one_name_do_not_mix_them_up(files, found, tmp_path):
    """As Numba has it, an index that one process writes over another's can lead to the other's kernel."""
    kept = files(str(tmp_path), "kernel", "stamp")
    kept.save("float64", "one")
    assert kept.load("float64") == "one" or files is IndexDataCacheFile
    kept._save_index({"float32": "kernel.1.nbc"})
    assert kept.load("float32") == found


# others who may write

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs permissions")


@posix_only
@compiled_only
@pytest.mark.parametrize("where", ["folder", "parent"])
def test_a_folder_that_everybody_may_write_to_is_not_used(where, kept, warn_afresh):
    place = kept if where == "folder" else kept.parent
    place.chmod(0o777)
    with pytest.warns(RuntimeWarning, match=f"not kept on disk.*{place.name}' may be written by everybody") as seen:
        assert [hits(), hits()] == [0, 0]
    assert len(seen) == 1
    # As in /tmp, where nobody may rename what belongs to another user.
    kept.parent.chmod(0o1777)
    kept.chmod(0o755)
    assert hits() == 1


@posix_only
@compiled_only
@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="needs the superuser")
def test_a_folder_of_another_user_is_not_used(kept, warn_afresh):
    os.chown(kept, 65534, -1)
    with pytest.warns(RuntimeWarning, match="belongs to user 65534"):
        assert hits() == 0


@posix_only
@compiled_only
@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_file_that_everybody_may_write_to_is_not_loaded_but_replaced(suffix, kept):
    (path,) = kept.glob(f"*{suffix}")
    path.chmod(0o666)
    assert [hits(), hits()] == [0, 1]
    assert path.stat().st_mode & 0o002 == 0


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
    method = amos_ref.Amos.method
    deciding = loops.deciding(method)
    kernels = [*vars(loops).values(), *vars(reduce).values(), *vars(deciding).values(), *vars(whole).values()]
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
