"""The explorer's page in headless Chromium, for the tests of `nox -s explorer`."""

import pytest
from helpers.browser import STARTED, serve
from helpers.explorer_reference import PAGE

DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def address():
    with serve(PAGE.parent) as address:
        yield f"{address}explorer/"


@pytest.fixture
def opened(browser, address):
    """Open the page; at the end nothing may be on its console, and nothing come from elsewhere."""
    pages, said, asked = [], [], []

    def open_page(change=lambda page: None, settings="", **options):
        page = browser.new_page(**{"viewport": DESK, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        change(page)
        page.goto(f"{address}#{settings}")
        page.wait_for_function(f"window.{STARTED}")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
