"""How much work the explorer's page does for a frame, counted in headless Chromium: `nox -s explorer`."""

import pytest
from helpers.explorer_reference import PAGE, STEPS

PARTS = ("paper", "closed", "adamw", "schedules")
# What a slider makes the page compute, and nothing else.
COMPUTED = {
    "t": "",
    "noise seed": "paper closed adamw",
    "xi eta": "paper schedules",
    "beta momentum": "paper",
    "alpha_0 sigma q": "closed",
    "half_life": "closed schedules",
    "lr weight_decay beta1 beta2": "adamw",
    "end": "adamw schedules",
}
ANEW = {name: set(parts.split()) for names, parts in COMPUTED.items() for name in names.split()}
# Counts what is changed inside the charts, and elsewhere.
WATCH = """
() => {
  window.before = window.explorer;
  window.changes = [];
  const note = ({ type, target, attributeName }) => {
    const chart = target.closest?.("svg")?.id;
    changes.push([chart ?? "", type, attributeName ?? ""].join(" "));
  };
  window.watcher = new MutationObserver((found) => found.forEach(note));
  watcher.observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
}
"""
CHANGES = "() => { watcher.takeRecords(); return changes; }"
SAME = "(names) => names.filter((name) => explorer[name] !== before[name])"


def frame(page):
    """Take one step as playing does; return what was computed, and what was changed, with how often."""
    page.evaluate(WATCH)
    page.locator("#step").press("Enter")
    page.wait_for_function("changes.length > 0")
    changes = page.evaluate(CHANGES)
    return page.evaluate(SAME, PARTS), {change: changes.count(change) for change in changes}


def test_a_frame_of_playing_computes_nothing_and_draws_only_what_moves(opened):
    page = opened(settings="t=500")
    computed, changes = frame(page)
    assert computed == []
    in_charts = {change: count for change, count in changes.items() if not change.startswith(" ")}
    assert in_charts == {"map-now attributes points": 3, "map-now attributes transform": 3}
    # The marks of the step in three charts; the numbers of the table and of the equations.
    assert changes[" attributes style"] <= 3
    assert changes[" childList "] <= len("theta1 theta2 loss error recent length alpha rho".split()) * 3 + 5 + 13 + 10
    points = page.evaluate("Array.from(document.querySelectorAll('#map-now polyline'), (e) => e.points.length)")
    assert points == [502] * 3


def test_no_line_has_more_points_than_there_are_steps(opened):
    page = opened()
    points = page.evaluate("Array.from(document.querySelectorAll('.stage polyline'), (e) => e.points.length)")
    assert len(points) == 3 + 3 + 4 + 6 + 5  # the map's, behind and before; distances; steps and decays; factors
    assert max(points) == STEPS + 1


@pytest.mark.parametrize("name", ANEW)
def test_a_slider_computes_only_what_it_changes(opened, name):
    page = opened(settings="schedule=linear&t=50")
    page.evaluate("window.before = explorer")
    page.locator(f"#{name}").press("ArrowRight")
    assert page.evaluate("(name) => explorer.settings[name] !== before.settings[name]", name)
    assert set(page.evaluate(SAME, PARTS)) == ANEW[name]
    axes = page.locator("#factors .axis").first.element_handle()
    page.locator(f"#{name}").press("ArrowLeft")
    assert axes.evaluate("(e) => e.isConnected") == ("schedules" not in ANEW[name])


@pytest.mark.parametrize(
    ("module", "right", "wrong"),
    [
        ("explorer.mjs", "if (stepAlone) showStep();", "if (false) showStep();"),
        ("explorer.mjs", "function showStep() {", "function showStep() { showPaths();"),
        ("map.mjs", "const move = (t) => moving", "const move = (t) => [...moving, ...moving]"),
    ],
)
def test_a_page_that_does_more_is_caught(opened, module, right, wrong):
    text = (PAGE / module).read_text(encoding="utf-8")
    assert text.count(right) == 1
    answer = dict(body=text.replace(right, wrong), content_type="text/javascript")
    page = opened(lambda page: page.route(f"**/{module}", lambda r: r.fulfill(**answer)), "t=500")
    _, changes = frame(page)
    assert {k: n for k, n in changes.items() if not k.startswith(" ")} != {
        "map-now attributes points": 3,
        "map-now attributes transform": 3,
    }
