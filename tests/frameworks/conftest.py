"""The authors' code, and what pytest is not to import."""

import importlib.metadata
import importlib.util
import os

import pytest

# Keras takes its backend from the environment of the process that imports it.
collect_ignore = ["keras_amos.py"] + ["keras_use.py"] * ("AMOS_REF_KERAS" not in os.environ)


@pytest.fixture(scope="session")
def authors():
    """The authors' amos.py, loaded by its path, since `import jestimator` fails on today's JAX."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("flax")
    pytest.importorskip("optax")
    jax.config.update("jax_enable_x64", True)
    try:
        files = importlib.metadata.files("jestimator") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs jestimator")
    path = next(f for f in files if str(f) == "jestimator/amos.py").locate()
    spec = importlib.util.spec_from_file_location("jestimator_amos", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
