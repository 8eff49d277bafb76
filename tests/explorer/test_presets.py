"""The explorer's presets: every number of their sentences is what amos_ref has, and addresses carry all settings."""

import decimal
import functools
import json
import re

import numpy as np
import pytest
from helpers.explorer_reference import PAGE, PATHS, recent, run_node

SCRIPT = """
const page = process.argv[1];
const { PRESETS, presetOf, settingsOf } = await import(`${page}/presets.mjs`);
const { compute, recent } = await import(`${page}/model.mjs`);
const { fromAddress, toAddress } = await import(`${page}/settings.mjs`);
const presets = Object.fromEntries(Object.keys(PRESETS).map((name) => {
  const settings = settingsOf(name);
  const address = toAddress(settings);
  return [name, { settings, text: PRESETS[name].say(compute(settings)), named: presetOf(settings), address,
                  back: fromAddress(`#${address}`) }];
}));
const seeds = Array.from({ length: 20 }, (_, i) => ["noise", "plan"].map((name) => {
  const { adamw, paper, closed } = compute({ ...settingsOf(name), seed: i + 1 });
  return [adamw, paper, closed].map((path) => recent(path, 1000));
}));
console.log(JSON.stringify({ presets, seeds }));
"""


@pytest.fixture(scope="module")
def found():
    return run_node(SCRIPT)


@functools.cache
def path(who, settings, steps):
    return PATHS[who](json.loads(settings), steps + 1)


class Run:
    """What amos_ref has for the settings of a preset."""

    def __init__(self, settings):
        self.settings = json.dumps(settings)

    def at(self, who, t, key, slot=0):
        at = path(who, self.settings, t)[t]
        return at["slots"][key][slot] if key in at["slots"] else at[key]

    def recent(self, who, t):
        return recent(path(who, self.settings, t), t)

    def errors(self, who, steps):
        return np.array([at["error"] for at in path(who, self.settings, steps)])


def noise(run):
    ends = [run.recent(who, 1000) for who in ("adamw", "paper", "closed")]
    assert ends[0] > 4 * max(ends[1:])
    return [100, *ends, 20, 18]


def plan(run):
    stays = run.at("adamw", 300, "error")
    assert all(run.errors("adamw", 1000)[300:] == stays)
    assert run.recent("paper", 1000) < stays < run.at("paper", 300, "error")
    return [0, 300, stays, run.at("paper", 300, "error"), run.recent("paper", 1000), 100, 20, 9]


def small(run):
    assert run.at("paper", 0, "length") == pytest.approx(run.at("closed", 0, "length") / 20)
    return [0.05, 1, 300, run.at("paper", 300, "error"), 1000, run.at("paper", 1000, "error")]


def large(run):
    first = run.at("paper", 0, "length")
    assert first == pytest.approx(10 * run.at("closed", 0, "length"))
    assert first == pytest.approx(10 * run.at("adamw", 0, "length"))
    return [10, 1, first, 100, 300, run.recent("paper", 300)]


def clock(run):
    return (
        [1, 0.1, 1, 100, 1.72, 1]
        + [run.at("paper", t, key) for t, key in ((100, "b"), (1000, "b"), (1000, "d"))]
        + [
            1000,
        ]
    )


def half(run):
    lengths, decays = ([run.at("closed", t, key) for t in (0, 100, 200)] for key in ("length", "rho"))
    for values in (lengths, decays):
        assert [values[0] / value for value in values] == pytest.approx([1, 2, 3])
    return [100, 100, *lengths[:2], *decays[:2]]


def frozen(run):
    errors = run.errors("paper", 1000)
    assert abs(errors[300] - errors[1000]) < 0.03
    assert 1000 * 0.3**2 == 90
    assert run.at("closed", 1000, "error") < errors[1000] / 2
    length = run.at("paper", 1000, "length")
    assert length < 1e-4
    return [0.3, 90, 11, 300, errors[300], 1000, errors[1000], length, run.at("closed", 1000, "error")]


def spikes(run):
    alpha = np.array([at["slots"]["alpha"][0] for at in path("paper", run.settings, 700)])
    start = int(np.argmax(alpha > 2 / 51))
    errors = run.errors("paper", 700)
    top = start + int(np.argmax(errors[start:]))
    assert errors[start:top].min() < errors[top] / 1000
    clocks = [run.at("paper", t, "b") for t in (100, start, top + 20)]
    assert clocks[1] - clocks[0] < 0.001 < clocks[2] - clocks[1]
    return [start, 2, 51, 2 / 51, 51, errors[top], top, *clocks[1:]]


def rare(run):
    alphas, clocks = ([run.at("paper", 1000, key, slot) for slot in (1, 0)] for key in ("alpha", "b"))
    assert alphas[0] > 3 * alphas[1]
    assert clocks[1] / 2 < clocks[0] < clocks[1]
    return [*alphas, *clocks]


def rosenbrock(run):
    losses, errors = ([run.at("paper", t, key) for t in (0, 50)] for key in ("loss", "error"))
    assert losses[0] > losses[1]
    assert errors[0] < errors[1]
    return [50, *losses, *errors]


def saddle(run):
    near = [int(np.argmax(run.errors(who, 60) < 0.5)) for who in ("adamw", "closed", "paper")]
    assert 0 < near[0] < near[1] < near[2]
    return [0.001, 0.5, *near]


CLAIMS = [noise, plan, small, large, clock, half, frozen, spikes, rare, rosenbrock, saddle]


def numbers_of(text):
    """Every number of a sentence, without the ones in names and exponents."""
    plain = re.sub(r"<[^>]*>|[θ²₁₂]", "", text).replace("\N{MINUS SIGN}", "-").replace("1,000", "1000")
    return sorted(float(x) for x in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?", plain))


def three_digits(x):
    """A number to three digits, halves upwards, as JavaScript rounds."""
    context = decimal.Context(prec=3, rounding=decimal.ROUND_HALF_UP)
    return float(context.create_decimal(float(x)))


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_every_number_of_a_sentence_is_that_of_amos_ref(found, claim):
    preset = found["presets"][claim.__name__]
    expected = map(three_digits, claim(Run(preset["settings"])))
    assert numbers_of(preset["text"]) == sorted(expected)


def test_every_preset_is_looked_at_and_known_by_its_settings(found):
    assert list(found["presets"]) == [claim.__name__ for claim in CLAIMS]
    for name, preset in found["presets"].items():
        assert preset["named"] == name


def test_what_is_said_of_twenty_seeds(found):
    adamw, paper, closed = np.array([noise for noise, _ in found["seeds"]]).T
    assert ((paper < adamw).sum(), (closed < adamw).sum()) == (20, 18)
    adamw, paper, _ = np.array([plan for _, plan in found["seeds"]]).T
    assert (adamw < paper).sum() == 9


def test_a_wrong_number_would_be_seen():
    text = "<i>b</i> is -0.5 in step 1,000, 2/51 = 0.0392, θ₁² 1.2e-5".replace("-", "\N{MINUS SIGN}")
    assert numbers_of(text) == [-0.5, 1.2e-5, 0.0392, 2, 51, 1000]


ADDRESSES = """
const { fromAddress, toAddress, DEFAULTS } = await import(`${process.argv[1]}/settings.mjs`);
console.log(JSON.stringify({ read: JSON.parse(process.argv[2]).map(fromAddress), DEFAULTS }));
"""


def test_an_address_carries_the_settings_of_every_preset(found):
    for name, preset in found["presets"].items():
        assert preset["back"] == preset["settings"], name
    assert found["presets"]["noise"]["address"] == ""
    assert found["presets"]["large"]["address"] == "t=300&eta=10"


def test_links_of_the_pages_lead_to_presets(found):
    pages = [path.read_text(encoding="utf-8") for path in PAGE.parent.glob("*.md")]
    linked = {address for page in pages for address in re.findall(r"explorer/index\.html#([^\"]*)", page)}
    assert len(linked) == 3
    assert linked <= {preset["address"] for preset in found["presets"].values()}


@pytest.mark.parametrize(
    ("address", "differs"),
    [
        ("", {}),
        ("#", {}),
        ("#xi=0.07", {"xi": 0.07}),  # between two positions of the slider
        ("?xi=0.07&t=12.4", {"xi": 0.07, "t": 12}),
        ("#start=0.123,-9&problem=saddle", {"problem": "saddle", "start": [0.12, -1.5]}),
        ("#start=1", {}),
        ("#start=1,x", {}),
        ("#start=Infinity,0", {}),
        ("#problem=__proto__&decay=toString", {}),
        ("#xi=0&eta=1e9&beta=1&t=-1&q=NaN&noise=&half_life=x", {}),
        ("#nothing=1&%=%E0%A4%A", {}),
        ("#schedule=linear&end=50&momentum=0.99", {"schedule": "linear", "end": 50, "momentum": 0.99}),
    ],
)
def test_an_address_is_read_and_nonsense_in_it_is_ignored(address, differs):
    found = run_node(ADDRESSES, [address])
    assert found["read"] == [found["DEFAULTS"] | differs]
