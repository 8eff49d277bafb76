"""The explorer's page in headless Chromium, for the tests of `nox -s explorer`."""

import functools
import http.server
import shutil
import threading

import pytest
from helpers.explorer_reference import PAGE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # on the path; otherwise Playwright's own
DESK = {"width": 1280, "height": 900}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def address():
    handler = functools.partial(Quiet, directory=PAGE.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/explorer/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser():
    why = "no playwright; `nox -s explorer` installs it"
    playwright = pytest.importorskip("playwright.sync_api", reason=why)
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found)
        yield browser
        browser.close()


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
        page.wait_for_function("window.explorer")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
