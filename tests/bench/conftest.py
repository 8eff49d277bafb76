"""Fixtures of the benchmark's tests."""

import pytest
from helpers import made_up_gpu


@pytest.fixture
def driver(monkeypatch):
    return made_up_gpu.install(monkeypatch)
