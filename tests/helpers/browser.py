"""A headless Chromium, a server for it, and what is measured in a page."""

import contextlib
import functools
import http.server
import os
import pathlib
import shutil
import threading

from helpers import ROOT

SITE = pathlib.Path(os.environ.get("AMOS_REF_SITE", ROOT / "build" / "site"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # on the path; otherwise Playwright's own
# Of a window: there once the explorer has run. Before that, `explorer` is the element with this id, as in any page.
STARTED = "explorer?.settings"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serve(folder):
    """Serve a folder, and yield its address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def launch():
    """Start a browser, and yield it."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=found)
        yield browser
        browser.close()


# Of all elements with text that are seen, and lines of charts: how many, the least contrast to what is behind, and the
# background.
CONTRAST = """
(within) => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (text) => rgb(text).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    const color = getComputedStyle(e).backgroundColor;
    return rgb(color)[3] === 0 ? behind(e.parentElement) : color;
  };
  const ratios = Array.from(document.querySelectorAll(`${within}, ${within} *`))
    .filter((e) => Array.from(e.childNodes).some((n) => n.nodeType === 3 && n.data.trim())
      || e.matches("polyline.line"))
    .filter((e) => !e.disabled && e.checkVisibility())
    .map((e) => {
      const style = getComputedStyle(e);
      const ink = e.matches("text") ? style.fill : e.matches("polyline") ? style.stroke : style.color;
      const [low, high] = [light(ink), light(behind(e))].sort((a, b) => a - b);
      return (high + 0.05) / (low + 0.05);
    });
  return [ratios.length, Math.min(...ratios), light(behind(document.body))];
}
"""
