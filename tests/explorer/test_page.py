"""What the explorer's page does in headless Chromium: `nox -s explorer`."""

import random

import numpy as np
import pytest
from helpers.explorer_reference import PAGE, PATHS, PROBLEMS, recent, schedules

DIGITS = 1e-6  # what the page promises
CHARTS = ("map", "errors", "sizes", "factors")
SCHEDULED = ("t", "xi", "eta", "half_life", "end")  # the factors depend on them
SLIDERS = (
    *SCHEDULED,
    *("noise", "seed", "beta", "momentum", "alpha_0", "sigma", "q", "lr", "weight_decay", "beta1", "beta2"),
)


def drawn(page):
    return {name: page.locator(f".stage:has(#{name})").inner_html() for name in CHARTS}


def settings_of(page):
    return page.evaluate("window.explorer.settings")


CELLS = "Array.from(document.querySelectorAll('td[data-of]'), (e) => [e.dataset.of, e.dataset.name, e.innerText])"
TO_T = """(whole) => { const { settings, schedules, ...found } = window.explorer;
  return { settings, schedules: whole ? schedules : null, ...Object.fromEntries(["paper", "closed", "adamw"].map(
    (who) => [who, found[who].slice(0, settings.t + 1).map((at) => at.theta)])) }; }"""


def departures(page, whole=True):
    """Names of what the page shows, as text or as window.explorer, and amos_ref has otherwise."""
    shown = page.evaluate(TO_T, whole)
    settings, found = shown["settings"], set()
    t = settings["t"]
    ref = {who: make(settings, t + 1) for who, make in PATHS.items()}
    cells = page.evaluate(CELLS)
    assert len(cells) == 3 * 8 + 5
    for who, name, text in cells:
        last = ref[who][t]
        expected = {
            "theta1": last["theta"][0],
            "theta2": last["theta"][1],
            "recent": recent(ref[who], t),
            **last["slots"],
        }.get(name, last.get(name))
        got = [float(x.replace("\N{MINUS SIGN}", "-")) for x in text.split()]
        # What is near 0 may be the difference of numbers that are not.
        if not np.allclose(got, np.unique(expected) if len(got) == 1 else expected, rtol=DIGITS, atol=1e-12):
            found.add(f"{who} {name}")
    for who in PATHS:
        if not np.allclose(shown[who], [at["theta"] for at in ref[who]], rtol=DIGITS, atol=1e-12):
            found.add(f"{who} path")
    if whole:
        for key, values in schedules(settings, shown["schedules"]["t"]).items():
            if not np.allclose(shown["schedules"][key], values, rtol=DIGITS, atol=0):
                found.add(key)
    return found


def random_settings(rng, sliders, choices):
    settings = {name: rng.choice(slider["values"]) for name, slider in sliders.items()}
    settings |= {name: rng.choice(list(choice["options"])) for name, choice in choices.items()}
    start = [rng.randint(-120, 120) / 100, rng.randint(-30, 120) / 100]  # within every map
    return settings | {"t": rng.randint(0, 40), "start": start}


GO = "(wanted) => { location.hash = Object.entries(wanted).map(([name, value]) => `${name}=${value}`).join('&'); }"
ARRIVED = "(wanted) => Object.keys(wanted).every((name) => String(explorer.settings[name]) === String(wanted[name]))"


def test_the_numbers_shown_are_those_of_amos_ref_for_200_random_settings(opened):
    page, rng = opened(), random.Random(0)
    page.evaluate("import('./settings.mjs').then((module) => { window.all = module; })")
    page.wait_for_function("window.all")
    sliders, choices = page.evaluate("[all.SLIDERS, all.CHOICES]")
    problems = set()
    for _ in range(200):
        settings = random_settings(rng, sliders, choices)
        page.evaluate(GO, settings)
        page.wait_for_function(ARRIVED, arg=settings)
        assert departures(page, whole=False) == set(), settings
        problems.add(settings["problem"])
    assert problems == set(PROBLEMS)


@pytest.mark.parametrize("settings", ["", "problem=rare&slots=each&t=137&momentum=0.5", "schedule=linear&t=400"])
def test_the_numbers_and_the_schedules_are_those_of_amos_ref(opened, settings):
    assert departures(opened(settings=settings)) == set()


@pytest.mark.parametrize(
    ("module", "right", "wrong", "seen"),
    [
        ("amos_step.mjs", "gamma / 2 + extra_l2", "gamma + extra_l2", "paper rho"),
        ("closed_form.mjs", "(2 * q)", "q", "closed rho"),
        ("adamw.mjs", "lr * weight_decay", "weight_decay", "adamw rho"),
        ("explorer.mjs", "path[settings.t]", "path[settings.t - 1]", "paper theta1"),
        ("explorer.mjs", "recent(path, settings.t)", "recent(path, 99)", "paper recent"),
        ("digits.mjs", "toPrecision(7)", "toPrecision(5)", "paper theta1"),
    ],
)
def test_a_wrong_page_is_caught(opened, module, right, wrong, seen):
    text = (PAGE / module).read_text(encoding="utf-8")
    assert text.count(right) == 1
    body = text.replace(right, wrong)
    answer = dict(body=body, content_type="text/javascript")
    page = opened(lambda page: page.route(f"**/{module}", lambda r: r.fulfill(**answer)), "t=200")
    assert seen in departures(page)


@pytest.mark.parametrize("name", SLIDERS)
def test_an_arrow_key_moves_the_slider_and_the_curves(opened, name):
    page = opened(settings="schedule=linear&t=50")
    before, value = drawn(page), page.locator(f"#{name}-value").inner_text()
    page.locator(f"#{name}").focus()
    page.keyboard.press("ArrowRight")
    after = drawn(page)
    stay = [] if name in SCHEDULED else ["factors"]
    assert [chart for chart in CHARTS if before[chart] == after[chart]] == stay
    new = page.locator(f"#{name}-value").inner_text()
    assert float(new) > float(value)
    assert page.locator(f"#{name}").get_attribute("aria-valuetext") == new
    page.keyboard.press("ArrowLeft")
    assert drawn(page) == before


@pytest.mark.parametrize("key", ["Home", "End"])
def test_every_number_is_finite_with_all_sliders_at_one_end(opened, key):
    page = opened(settings="schedule=linear")
    for name in SLIDERS:
        page.locator(f"#{name}").focus()
        page.keyboard.press(key)
    for problem in PROBLEMS:
        for slots in ("one", "each"):
            page.locator("#problem").select_option(problem)
            page.locator("#slots").select_option(slots)
            text = page.locator("#explorer").inner_html()
            assert "NaN" not in text
            assert "Infinity" not in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("problem", "saddle"),
        ("slots", "each"),
        ("decay", "inverse-square"),
        ("direction", "sign"),
        ("schedule", "linear"),
    ],
)
def test_choices_change_the_path(opened, name, value):
    page = opened()
    before = drawn(page)
    page.locator(f"#{name}").select_option(value)
    assert drawn(page)["map"] != before["map"]
    assert settings_of(page)[name] == value
    page.wait_for_function(f"location.hash.includes('{name}={value}')")


def test_an_address_shows_the_same_page_elsewhere(opened):
    page = opened(settings="problem=rosenbrock&noise=1&seed=3&xi=0.07&t=12&start=0.5,0.25")
    again = opened(settings="")
    assert drawn(again) != drawn(page)
    again.evaluate(f"location.hash = {page.evaluate('JSON.stringify(location.hash)')}")
    again.wait_for_function("explorer.settings.seed === 3")
    assert drawn(again) == drawn(page)
    again.go_back()
    again.wait_for_function("explorer.settings.seed === 1")


def test_the_link_can_be_copied(opened, address):
    page = opened(lambda page: page.context.grant_permissions(["clipboard-read", "clipboard-write"]), "eta=10")
    page.locator("#t").press("Home")
    page.locator("#share").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"{address}#t=0&eta=10"


def test_presets_tell_what_they_show_until_something_is_changed(opened):
    page = opened()
    buttons = page.locator("#presets button").all()
    stories = set()
    for button in buttons:
        button.press("Enter")
        assert page.locator("#presets [aria-pressed=true]").all_inner_texts() == [button.inner_text()]
        stories.add(page.locator("#story").inner_text())
    assert len(stories) == len(buttons) == 11
    page.locator("#t").press("ArrowLeft")
    assert page.locator("#story").inner_text() in stories
    page.locator("#xi").press("ArrowRight")
    assert page.locator("#presets [aria-pressed=true]").count() == 0
    assert page.locator("#story").inner_text() not in stories
    page.get_by_role("button", name="Reset").press("Space")
    assert page.locator("#presets [aria-pressed=true]").all_inner_texts() == ["Noise"]


def test_the_start_is_dragged_on_the_map_and_moved_by_keys(opened):
    page = opened()
    before, box = drawn(page), page.locator("#start").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=3)
    page.mouse.up()
    start = settings_of(page)["start"]
    assert start[0] > -1.5
    assert start[1] < 1.5
    assert page.evaluate("explorer.paper[0].theta") == start
    after = page.locator("#start").bounding_box()
    # A hundredth, to which a start is rounded, is about a pixel.
    assert (after["x"] - box["x"], after["y"] - box["y"]) == pytest.approx((60, 40), abs=1.5)
    assert drawn(page)["map"] != before["map"]
    page.locator("#start").press("ArrowRight")
    page.locator("#start").press("Shift+ArrowDown")
    moved = settings_of(page)["start"]
    assert moved == pytest.approx([start[0] + 0.1, start[1] - 0.01])
    for _ in range(50):
        page.locator("#start").press("ArrowUp")
    assert settings_of(page)["start"][1] == pytest.approx(2.1)  # the map's edge
    page.locator("#problem").select_option("saddle")
    assert settings_of(page)["start"] is None


def test_a_start_at_the_minimum_is_drawn(opened):
    page = opened(settings="problem=bowl&noise=0&start=0,0")
    assert page.evaluate("explorer.paper[1000].error") == 0
    assert "NaN" not in page.locator("#explorer").inner_html()


def test_playing_goes_on_to_the_end_pauses_and_starts_anew(opened):
    page = opened(settings="t=990")
    play = page.locator("#play")
    page.locator("#speed").select_option("240")
    play.press("Enter")
    page.wait_for_function("explorer.settings.t === 1000")
    page.get_by_role("button", name="Play").wait_for()
    play.press("Enter")  # from the start
    page.wait_for_function("explorer.settings.t > 0 && explorer.settings.t < 900")
    play.press("Enter")
    t = settings_of(page)["t"]
    assert play.inner_text() == "Play"
    page.locator("#step").press("Enter")
    assert settings_of(page)["t"] == t + 1
    page.wait_for_function(f"location.hash === '#t={t + 1}'")
    assert page.locator(".at-t").first.inner_text() == str(t + 1)


def test_playing_jumps_for_those_who_want_less_motion(opened):
    page = opened(settings="t=7", reduced_motion="reduce")
    page.evaluate("window.seen = new Set(); setInterval(() => seen.add(explorer.settings.t), 5)")
    page.locator("#speed").select_option("240")
    page.locator("#play").press("Enter")
    page.wait_for_function("explorer.settings.t > 200")
    page.locator("#play").press("Enter")
    assert {(t - 7) % 50 for t in page.evaluate("[...seen]")} == {0}


def test_equations_and_numbers_point_at_each_other(opened):
    page = opened(settings="problem=rare&slots=each&t=30")
    reading = page.locator("#reading")
    assert not reading.is_visible()
    page.locator("#equations [data-link='paper alpha']").hover()
    assert "linked" in page.locator("td[data-of=paper][data-name=alpha]").get_attribute("class")
    results = [float(x) for x in page.locator("#reading .result").all_text_contents()]
    alphas = page.evaluate("explorer.paper[30].slots.map((slot) => slot.alpha)")
    assert results == pytest.approx(alphas, rel=0.005)  # three digits
    page.locator("td[data-of=closed][data-name=rho]").hover()
    assert page.locator("#equations .linked").get_attribute("data-link") == "closed rho"
    page.locator("h1").hover()
    assert not reading.is_visible()
    page.locator("#equations [data-link]").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#equations .linked").get_attribute("data-link") == "paper c"
    assert reading.is_visible()


def test_what_an_equation_says_with_its_numbers_is_true(opened):
    """The right side of each, computed from the numbers that stand in it, is the left."""
    page = opened(settings="t=60&half_life=30&q=2&noise=2")
    for link in page.locator("#equations [data-link]").all():
        link.hover()
        (value,) = {
            float(x.replace("\N{MINUS SIGN}", "-")) for x in page.locator("#reading .result").all_text_contents()[:1]
        }
        found = page.evaluate(MATHS, page.locator("#reading math").first.inner_html())
        assert found == pytest.approx(value, rel=0.03, abs=1e-9)  # a few factors of three digits, some cubed


MATHS = """
(html) => {
  const box = document.createElement("div");
  box.innerHTML = html;
  const kind = (e) => e.tagName.toLowerCase();
  const read = (e) => {
    const inside = Array.from(e.children, read);
    const name = kind(e);
    if (name === "mn" || name === "mo") return e.textContent.replace("\u2212", "-").replace("\u00b7", "*");
    if (name === "msqrt") return `Math.sqrt(${inside.join("")})`;
    if (name === "mfrac") return `((${inside[0]})/(${inside[1]}))`;
    if (name === "msup") return `((${inside[0]})**(${inside[1]}))`;
    return inside.reduce((text, next, i) => {
      const product = i && kind(e.children[i - 1]) !== "mo" && kind(e.children[i]) !== "mo";
      return text + (product ? "*" : "") + next;
    }, "");
  };
  return eval(read(box.children[0]).split("=").at(-2));
}
"""


def test_a_plan_that_no_path_can_follow_is_told(opened):
    page = opened()
    note = page.get_by_text("No cosine is above 1")
    assert not note.is_visible()
    page.locator("#half_life").press("Home")
    assert note.is_visible()
    assert page.locator("#cosine").inner_text() == "5"  # 1 / (2 alpha_0 T) = 1 / (2 * 0.1 * 1)


def test_overshooting_is_told_where_it_happens(opened):
    page = opened(settings="problem=tilted&noise=0&xi=0.05&eta=1.5&beta=0.99")
    assert page.get_by_text("At step 522 paper Amos").is_visible()
    page.locator("#noise").press("ArrowRight")
    assert not page.locator("#overshoot").is_visible()


def test_first_steps_can_be_made_equal(opened):
    page = opened(settings="alpha_0=0.02&sigma=0.6&momentum=0.5&q=2&direction=sign&eta=3&xi=0.3")
    page.get_by_role("button", name="first steps equal").press("Enter")
    first = page.evaluate(
        "['closed', 'paper'].map((who) => [...explorer[who][1].theta, explorer[who][0].slots[0].rho])"
    )
    # Two ways to the same numbers, a dozen roundings each, of steps no larger than theta.
    assert np.allclose(*first, rtol=32 * 2.0**-53, atol=0)


def test_the_keyboard_reaches_everything_in_order_with_its_focus_seen_and_its_name_told(opened):
    page = opened(settings="schedule=linear")
    reached = []
    for _ in range(12 + 28 + 2):  # the link back and the presets, what is below, the two lists
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.link"))
        assert "solid 3px" in page.evaluate("getComputedStyle(document.activeElement).outline")
    assert [name for name in reached if name] == [
        *("play", "step", "speed", "t", "reset", "share", "problem", "slots", "noise", "seed"),
        *("xi", "eta", "beta", "momentum", "decay", "direction", "alpha_0", "half_life", "sigma", "q"),
        *("schedule", "lr", "weight_decay", "beta1", "beta2", "end", "align", "start", "paper alpha", "paper r"),
    ]
    for name in {*SLIDERS, "problem", "decay"}:
        assert page.evaluate(f"document.getElementById('{name}').labels[0].innerText.trim().length") > 0
    assert "The arrow keys move it" in page.locator("#start").get_attribute("aria-label")
