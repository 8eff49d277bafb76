"""What every test file shares: seeded Hypothesis, threads to compare, a Ctrl-C that works, scratch memory of NaN."""

import io
import os
import signal

import numpy as np
import pytest
from helpers import TESTS
from helpers.browser import launch
from hypothesis import is_hypothesis_test, settings

# Four threads at least, so that a machine with one core still sees work divided between threads.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(os.cpu_count() or 1, 4)))

# A shell that runs the tests in the background has SIGINT ignored, and Python then leaves it so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# AMOS_REF_EXAMPLES=N draws N fresh examples a test (nox -s fuzz); otherwise the same 100 every time.
examples = os.environ.get("AMOS_REF_EXAMPLES")
settings.register_profile(
    "amos_ref", derandomize=examples is None, deadline=None, max_examples=int(examples or 100), database=None
)
settings.load_profile("amos_ref")

from amos_ref.kernels.cpu import backend as cpu  # noqa: E402  (Numba reads how many threads there are when it is imported)

# Whoever reads scratch memory before it was written reads NaN, not the zeros of a new page of memory.
cpu.scratch = lambda *shape: np.full(shape, np.nan)

# They import a framework, and are run from tests/frameworks.
_NEED_FRAMEWORKS = (
    "torch_amos",
    "optax_amos",
    "stepped_torch",
    "closed_form_torch",
    "closed_form_optax",
    "sharded_optax",
)
collect_ignore = [f"helpers/{name}.py" for name in _NEED_FRAMEWORKS]


@pytest.fixture
def hang_ups():
    """SIGHUP is not ignored, as it is under nohup and then in every child."""
    before = signal.signal(signal.SIGHUP, lambda number, frame: None)
    yield
    signal.signal(signal.SIGHUP, before)


def pytest_configure(config):
    config.addinivalue_line("markers", "no_cover: pytest-cov does not look at the test")


def pytest_collection_modifyitems(items):
    """Let coverage look away from tests that draw examples: being looked at takes as long again as the test.

    Other tests go through the same lines, most of them once and not a hundred times. The tests of kernels come first:
    those that draw compile most kernels, for all tests, and a compiler that is looked at is slow too.
    """
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.no_cover)
    items.sort(key=lambda item: not item.path.is_relative_to(TESTS / "kernels"))


@pytest.fixture(scope="session")
def browser():
    """One headless browser for all tests: Playwright does not start a second one beside it."""
    pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")
    with launch() as browser:
        yield browser


@pytest.fixture
def wrong_port(tmp_path):
    """A target for the command line: `wrong.py:port`, whose extra_l2 has the wrong sign, alone in a folder."""
    path = tmp_path / "wrong.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\nfrom helpers.toy_port import ToyPort\n"
        "port = ToyPort('extra_l2 sign')\n"
    )
    return f"{path}:port"


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal with colours."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()
