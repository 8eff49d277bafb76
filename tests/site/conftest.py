"""The site that `nox -s explorer` has built, served."""

import os

import pytest
from helpers.browser import SITE, serve


@pytest.fixture(scope="session")
def address():
    if "AMOS_REF_SITE" not in os.environ and not SITE.exists():
        pytest.skip("no site; `nox -s docs` builds it")
    with serve(SITE) as address:
        yield address
