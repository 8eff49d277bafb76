"""amos_ref.ports.keras on both backends, each in a process of its own: keras_use.py has the tests."""

import os
import pathlib
import subprocess
import sys

import pytest
from helpers import ROOT

pytest.importorskip("torch")
pytest.importorskip("jax")
if not any((pathlib.Path(folder) / "keras").is_dir() for folder in sys.path):
    pytest.skip("there is no keras", allow_module_level=True)  # importing it would need its backend first

USE = pathlib.Path(__file__).with_name("keras_use.py")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_of_it_on_one_backend(backend):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(USE)]
    environment = os.environ | {"KERAS_BACKEND": backend, "AMOS_REF_KERAS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)
    assert found.returncode == 0, found.stdout[-8000:]
    assert f"{backend} passed" not in found.stdout


def test_the_file_works_where_there_is_no_amos_ref(tmp_path):
    (tmp_path / "amos.py").write_bytes((ROOT / "amos_ref" / "ports" / "keras.py").read_bytes())
    code = (
        "import sys; sys.modules['amos_ref'] = None; sys.modules['numpy.none'] = None; import amos, keras; "
        "w = keras.Variable([1.0, -2.0]); amos.Amos(0.1).apply([keras.ops.array([3.0, 4.0])], [w]); print(float(w[0]))"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith("0.952"), found.stderr
