"""What the tests of storage share."""

import pytest
from helpers.checkpoints import OLD

import amos_ref


@pytest.fixture
def path(tmp_path):
    """A file that holds OLD, alone in its folder."""
    amos_ref.save_state(tmp_path / "state", OLD)
    return tmp_path / "state"
