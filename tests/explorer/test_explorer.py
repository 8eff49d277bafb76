"""The explorer's page in headless Chromium: `nox -s explorer`."""

import pathlib

import numpy as np
import pytest
from helpers.browser import CONTRAST, serve
from helpers.explorer_reference import closed_path, paper_path, schedules

pytest.importorskip("playwright.sync_api", reason="no playwright; `nox -s explorer` installs it")

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explorer"
DIGITS = 1e-6  # what the page promises
CHARTS = ("map", "errors", "sizes", "factors")
SLIDERS = {
    "t": {"map", "errors", "sizes", "factors"},
    "alpha_0": {"map", "errors", "sizes"},  # the factors do not depend on it
    "half_life": {"map", "errors", "sizes", "factors"},
    "q": {"map", "errors", "sizes"},
    "sigma": {"map", "errors", "sizes"},
    "xi": {"map", "errors", "sizes", "factors"},
    "eta": {"map", "errors", "sizes", "factors"},
    "beta": {"map", "errors", "sizes"},
    "momentum": {"map", "errors", "sizes"},
}
PHONE, DESK = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="session")
def address():
    with serve(PAGE) as address:
        yield address


@pytest.fixture
def opened(browser, address):
    """Open the page; at the end nothing may be on its console, and nothing come from elsewhere."""
    pages, said, asked = [], [], []

    def open_page(change=lambda page: None, **options):
        page = browser.new_page(**{"viewport": DESK, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        change(page)
        page.goto(address)
        page.wait_for_function("window.explorer")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:"))] == []


def drawn(page):
    return {name: page.locator(f"#{name}").inner_html() for name in CHARTS}


def choose(page, **settings):
    for name, value in settings.items():
        if name in SLIDERS:
            page.locator(f"#{name}").fill(str(value))
        else:
            page.locator(f"#{name}").select_option(value)


def departures(page):
    """Names of what the page shows, as text or as window.explorer, and amos_ref has otherwise."""
    shown = page.evaluate("window.explorer")
    settings, found = shown["settings"], []
    for name, reference in (("closed", closed_path), ("paper", paper_path)):
        path = reference(settings, shown["problem"], shown["closed"][0]["theta"], settings["t"] + 1)
        last = path[-1] | dict(zip(("theta1", "theta2"), path[-1]["theta"], strict=True))
        cells = page.locator(f"td[data-of={name}]")
        assert cells.count() == {"closed": 7, "paper": 8}[name]
        for cell in cells.all():
            key = cell.get_attribute("data-name")
            if float(cell.inner_text().replace("\N{MINUS SIGN}", "-")) != pytest.approx(last[key], rel=DIGITS, abs=0):
                found.append(f"{name} {key}")
        got = [at["theta"] for at in shown[name][: settings["t"] + 1]]
        if not np.allclose(got, [at["theta"] for at in path], rtol=DIGITS, atol=0):
            found.append(f"{name} path")
    for key, ref in schedules(settings, shown["schedules"]["t"]).items():
        if not np.allclose(shown["schedules"][key], ref, rtol=DIGITS, atol=0):
            found.append(key)
    return found


CHOICES = [
    {},
    {"problem": "noisy", "t": 300, "alpha_0": 20, "half_life": 25, "xi": 15, "beta": 9, "momentum": 6},
    {"problem": "valley", "t": 37, "q": 3, "sigma": 14, "eta": 3, "decay": "inverse-square", "half_life": 0},
    {"problem": "bowl", "t": 0, "xi": 26, "eta": 20},
]


@pytest.mark.parametrize("choice", CHOICES)
def test_the_numbers_shown_are_those_of_amos_ref(opened, choice):
    page = opened()
    choose(page, **choice)
    assert departures(page) == []


@pytest.mark.parametrize(
    ("module", "right", "wrong", "seen"),
    [
        ("amos_step.mjs", "gamma / 2 + extra_l2", "gamma + extra_l2", "paper rho"),
        ("closed_form.mjs", "(2 * q)", "q", "closed rho"),
        ("explorer.mjs", "result.paper[settings.t]", "result.paper[settings.t + 1]", "paper theta1"),
        ("explorer.mjs", "toPrecision(7)", "toPrecision(5)", "paper theta1"),
    ],
)
def test_a_wrong_page_is_caught(opened, module, right, wrong, seen):
    text = (PAGE / module).read_text()
    assert right in text
    body = text.replace(right, wrong)
    page = opened(
        lambda page: page.route(f"**/{module}", lambda r: r.fulfill(body=body, content_type="text/javascript"))
    )
    assert seen in departures(page)


@pytest.mark.parametrize("name", SLIDERS)
def test_an_arrow_key_moves_the_slider_and_the_curves(opened, name):
    page = opened()
    before, value = drawn(page), page.locator(f"#{name}-value").inner_text()
    page.locator(f"#{name}").focus()
    page.keyboard.press("ArrowRight")
    after = drawn(page)
    assert {chart for chart in CHARTS if before[chart] != after[chart]} == SLIDERS[name]
    new = page.locator(f"#{name}-value").inner_text()
    assert float(new) > float(value)
    assert page.locator(f"#{name}").get_attribute("aria-valuetext") == new
    page.keyboard.press("ArrowLeft")
    assert drawn(page) == before


@pytest.mark.parametrize("key", ["Home", "End"])
def test_every_number_is_finite_with_all_sliders_at_one_end(opened, key):
    page = opened()
    for name in SLIDERS:
        page.locator(f"#{name}").focus()
        page.keyboard.press(key)
    for problem in page.evaluate("Array.from(document.getElementById('problem').options, o => o.value)"):
        choose(page, problem=problem)
        text = page.locator("#explorer").inner_html()
        assert "NaN" not in text
        assert "Infinity" not in text


def test_a_problem_and_a_plan_can_be_chosen(opened):
    page = opened()
    for name, value in (("problem", "noisy"), ("decay", "inverse-square")):
        before = drawn(page)
        choose(page, **{name: value})
        assert drawn(page)["map"] != before["map"]
        assert page.evaluate(f"window.explorer.settings.{name}") == value


def test_a_plan_that_no_path_can_follow_is_told(opened):
    page = opened()
    note = page.get_by_text("No cosine is above 1")
    assert not note.is_visible()
    choose(page, half_life=0)
    assert note.is_visible()
    assert page.locator("#cosine").inner_text() == "10"  # 1 / (2 alpha_0 T) = 1 / (2 * 0.05 * 1)


def test_first_steps_can_be_made_equal_and_all_be_reset(opened):
    page = opened()
    before = drawn(page)
    choose(page, alpha_0=12, sigma=9, momentum=5, q=2)
    page.get_by_role("button", name="Make the first steps equal").press("Enter")
    first = page.evaluate(
        "[explorer.closed[1].theta, explorer.paper[1].theta, explorer.closed[0].rho, explorer.paper[0].rho]"
    )
    # Two ways to the same numbers, a dozen roundings each, of steps no larger than theta.
    assert np.allclose(first[0], first[1], rtol=32 * 2.0**-53, atol=0)
    assert first[2] == pytest.approx(first[3], rel=32 * 2.0**-53)
    page.get_by_role("button", name="Reset").press("Space")
    assert drawn(page) == before


def test_the_keyboard_reaches_everything_in_order_with_its_focus_seen_and_its_name_told(opened):
    page = opened()
    reached = []
    for _ in range(len(SLIDERS) + 4):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outline")
        assert "solid 3px" in outline
    assert reached == [
        *("problem", "t", "alpha_0", "half_life", "q", "sigma", "decay"),
        *("xi", "eta", "beta", "momentum", "align", "reset"),
    ]
    for name in reached[:-2]:
        assert page.evaluate(f"document.getElementById('{name}').labels[0].innerText.length") > 3
    for name in CHARTS:
        assert len(page.get_by_role("img").and_(page.locator(f"#{name}")).get_attribute("aria-label")) > 20


@pytest.mark.parametrize("ends", ["Home", "End"])
def test_nothing_scrolls_sideways_on_a_phone(opened, ends):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    for name in ("t", "q", "xi", "alpha_0"):
        page.locator(f"#{name}").press(ends)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    outside = "body *:not(svg *)"  # what is drawn is cut off at the axes
    right = f"Math.max(...Array.from(document.querySelectorAll('{outside}'), e => e.getBoundingClientRect().right))"
    assert page.evaluate(right) <= PHONE["width"]


def test_the_path_stays_in_sight_on_a_phone_and_hides_no_focus(opened):
    page = opened(viewport=PHONE)
    for _ in range(len(SLIDERS) + 4):
        page.keyboard.press("Tab")
        focus = page.evaluate("document.activeElement.getBoundingClientRect().toJSON()")
        path = page.locator(".path").bounding_box()
        assert path["y"] >= 0
        assert path["y"] + path["height"] <= focus["top"] < focus["bottom"] <= PHONE["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_in_light_and_in_dark_mode(opened, scheme):
    page = opened(color_scheme=scheme)
    count, least, background = page.evaluate(CONTRAST, "body")
    assert count > 100
    assert least >= 4.5  # WCAG 2, level AA
    assert (background > 0.9) if scheme == "light" else (background < 0.05)


def test_opened_as_a_file_it_says_what_to_do(browser):
    page = browser.new_page()
    page.goto((PAGE / "index.html").as_uri())
    assert page.get_by_text("python -m http.server").is_visible()
    assert not page.locator("#explorer").is_visible()
    page.close()
