"""How the explorer's page looks in headless Chromium, on a desk, on a phone, in the dark: `nox -s explorer`."""

import pytest
from helpers.browser import CONTRAST
from helpers.explorer_reference import PAGE

PHONE = {"width": 390, "height": 844}
CHARTS = ("map", "errors", "sizes", "factors")
PRESETS = ("", "problem=tilted&noise=0", "problem=rare&slots=each", "problem=rosenbrock&xi=0.5&eta=10&sigma=10")


def test_the_path_the_numbers_the_distances_and_reset_are_seen_at_once_on_a_desk(opened):
    page = opened()
    for name in ("play", "step", "reset", "share", "story", "map", "numbers"):
        box = page.locator(f"#{name}").bounding_box()
        assert 0 <= box["y"] < box["y"] + box["height"] <= 900, name


@pytest.mark.parametrize("settings", PRESETS)
@pytest.mark.parametrize("width", [360, 390, 800, 1280])
def test_nothing_scrolls_sideways(opened, width, settings):
    page = opened(settings=settings, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = "body *:not(svg *, .math *, #reading *)"  # what is drawn is cut off at the axes, wide formulas scroll
    right = f"Math.max(...Array.from(document.querySelectorAll('{outside}'), e => e.getBoundingClientRect().right))"
    assert page.evaluate(right) <= width


def test_the_path_stays_in_sight_on_a_phone_and_hides_no_focus(opened):
    page = opened(viewport=PHONE, has_touch=True, is_mobile=True)
    page.locator("#problem").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        focus = page.evaluate("document.activeElement.getBoundingClientRect().toJSON()")
        path = page.locator(".path").bounding_box()
        assert path["y"] >= 0
        assert path["y"] + path["height"] <= focus["top"] < focus["bottom"] <= PHONE["height"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out_in_light_and_in_dark_mode(opened, scheme):
    page = opened(color_scheme=scheme)
    for link in ("paper alpha", "closed shrink"):
        page.locator(f"#equations [data-link='{link}']").hover()
        count, least, background = page.evaluate(CONTRAST, "body")
        assert count > 150
        assert least >= 4.5  # WCAG 2, level AA
        assert (background > 0.9) if scheme == "light" else (background < 0.05)


def test_the_site_is_one_click_away(opened, address):
    page = opened()
    link = page.get_by_role("link", name="amos_ref")
    assert link.is_visible()
    assert page.evaluate("document.querySelector('#back a').href") == address.replace("explorer/", "index.html")


def test_opened_as_a_file_it_says_what_to_do(browser):
    page = browser.new_page()
    page.goto((PAGE / "index.html").as_uri())
    assert page.get_by_text("python -m http.server").is_visible()
    assert not page.locator("#explorer").is_visible()
    page.close()


def test_pictures_have_names(opened):
    page = opened()
    for name in CHARTS:
        assert len(page.get_by_role("img").and_(page.locator(f"#{name}")).get_attribute("aria-label")) > 20
