"""What the figures of a report say in words: how far from its roof each kind of step is, and what bounds it."""

from collections.abc import Mapping
from typing import Any

from amos_ref.bench.contenders import OURS

AT_THE_ROOF = 1.25  # times the roof up to which a step is said to be bound by the memory
SMALL = 1_000_000  # parameters below which what is called for each step counts


def describe(report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each workload of a report on which the kernels were measured."""
    found = []
    for work in report["workloads"]:
        records = {record["contender"]: record for record in work["results"]}
        if OURS in records:
            ours = records.pop(OURS)
            roof = f"{ours['of_roof']:.2f} times the roof{_streams(records)}"
            found.append(f"{work['label']}: {roof}, {_bound(work, ours)}; {_peers(records)}")
    return found


def _streams(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Return with how many streams a thread the roof was reached, and what it is with the others."""
    streams = records.get("roof", {}).get("streams")
    if streams is None:
        return ""
    used, ratio = streams["used"], streams["one_over_several"]
    if used == 1:
        return f" (of one stream a thread; several take {1 / ratio:.2f} times as long)"
    return f" (of {used} streams a thread; one takes {ratio:.2f} times as long)"


def _bound(work: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    if ours["of_roof"] <= AT_THE_ROOF:
        return f"bound by the memory, which moves {ours['gb_per_s']:.3g} GB/s"
    if work["slot"] == "element" and work["parameters"] >= SMALL / 100:
        return "bound by the divisions and roots of each element"
    if work["parameters"] < SMALL or work["parameters"] / work["arrays"] < SMALL / 100:
        return "bound by what is called once a step and an array, not by the bytes"
    if work["dtype"] in ("float16", "bfloat16"):
        return "bound by the conversion of half precision"
    if work["slot"] == "column":
        return "bound by the sums, alpha and rho of its columns, which do not fit into the first cache"
    return "bound by neither the memory nor the arithmetic alone"


def _peers(records: Mapping[str, Mapping[str, Any]]) -> str:
    own = ("roof", "bound", "page", "paper")
    peers = {name: record["of_ours"] for name, record in records.items() if name not in own}
    if not peers:
        return "no peer was measured"
    name, ratio = min(peers.items(), key=lambda item: item[1])
    return f"the fastest peer, {name}, takes {ratio:.2f} times as long"
