"""The figures of a report in words."""

import json
import pathlib

import pytest

from amos_ref.bench import verdict


def made(of_roof, peers=(), **changes):
    work = dict(label="w", parameters=10**7, arrays=1, slot="tensor", dtype="float32") | changes
    records = [dict(contender="amos_ref", of_roof=of_roof, of_ours=1.0, gb_per_s=57.25)]
    records += [dict(contender=name, of_roof=1.0, of_ours=ratio) for name, ratio in (("roof", 0.5), *peers)]
    return {"workloads": [{**work, "results": records}, {**work, "results": []}]}


@pytest.mark.parametrize(
    ("of_roof", "changes", "words"),
    [
        (1.25, dict(slot="element"), "bound by the memory, which moves 57.2 GB/s"),
        (1.26, dict(slot="element"), "bound by the divisions and roots"),
        (1.9, dict(slot="element", parameters=10_000), "bound by the divisions and roots"),
        (1.9, dict(slot="element", parameters=9_999), "bound by what is called"),
        (1.9, dict(dtype="bfloat16"), "bound by the conversion"),
        (1.9, dict(slot="column"), "bound by the sums, alpha and rho"),
        (1.9, dict(parameters=999_999), "bound by what is called"),
        (1.9, dict(parameters=6_400_000, arrays=1000), "bound by what is called"),
        (1.9, dict(), "bound by neither the memory nor the arithmetic"),
    ],
)
def test_what_bounds_a_step_is_said(of_roof, changes, words):
    (line,) = verdict.describe(made(of_roof, **changes))
    assert line.startswith(f"w: {of_roof:.2f} times the roof, {words}")


def test_the_fastest_peer_is_named_and_the_roof_is_none():
    (line,) = verdict.describe(made(1.1, [("slow", 3.0), ("fast", 0.875)]))
    assert line.endswith("; the fastest peer, fast, takes 0.88 times as long")
    assert verdict.describe(made(1.1))[0].endswith("; no peer was measured")


def test_every_workload_of_a_stored_report_has_a_sentence():
    report = json.loads((pathlib.Path(__file__).parents[2] / "docs/performance.json").read_text(encoding="utf-8"))
    assert len(verdict.describe(report)) == len(report["workloads"])


@pytest.mark.parametrize(
    ("streams", "words"),
    [
        (
            dict(used=4, one_over_several=1.25),
            "(of 4 streams a thread; one takes 1.25 times as long)",
        ),
        (
            dict(used=1, one_over_several=0.5),
            "(of one stream a thread; several take 2.00 times as long)",
        ),
    ],
)
def test_the_streams_of_the_roof_are_said(streams, words):
    report = made(1.1)
    report["workloads"][0]["results"][1]["streams"] = streams
    assert verdict.describe(report)[0].startswith(f"w: 1.10 times the roof {words}, bound by")
