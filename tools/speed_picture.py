"""Draw docs/_static/speed.svg from docs/performance.json: how long a step of 1e7 parameters takes, and with whom.

    python tools/speed_picture.py

Its colours can be read on light and on dark pages.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from amos_ref.storage.files import write_file

DOCS = pathlib.Path(__file__).parents[1] / "docs"
CONTENDERS = {
    "amos_ref": ("this package", "#2f81f7"),
    "torch-fused": ("AdamW of torch, fused", "#d9822b"),
    "jestimator": ("Amos of its authors, compiled by JAX", "#8a63d2"),
}
SLOTS = ("tensor", "row", "column", "element")
TEXT, ROOF = "#7a8694", "#e5484d"
LEFT, WIDTH, BAR, GAP, TOP = 110, 560, 17, 22, 92


def find_bars(report: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a step by slots and contender, of 1e7 float32 parameters and all threads."""
    threads = max(work["threads"] for work in report["workloads"])
    found = {}
    for work in report["workloads"]:
        plain = (work["name"], work["dtype"], work["momentum"], work["state"]) == ("1e7", "float32", False, "param")
        if plain and work["threads"] == threads:
            times = {record["contender"]: record["seconds"]["median"] * 1e3 for record in work["results"]}
            found[work["slot"]] = {name: times[name] for name in (*CONTENDERS, "roof") if name in times}
    return {slot: found[slot] for slot in SLOTS}


def draw(report: Mapping[str, Any]) -> str:
    """Return the picture as SVG."""
    bars = find_bars(report)
    most = max(max(times[name] for name in times if name != "jestimator") for times in bars.values()) * 1.15
    height = TOP + sum(BAR * (len(times) - 1) + GAP for times in bars.values())
    lines = [*head(report), *(line for k in range(len(SLOTS)) for line in group(bars, k, most))]
    about = "Time of a step of ten million parameters: this package beside AdamW of torch and the authors' Amos"
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 130} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13" fill="{TEXT}">\n<title>{about}</title>\n{body}\n</svg>\n'
    )


def head(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the title and what the colours are."""
    machine = f"{report['machine']['usable_cores']} cores, {report['machine']['cpu']}"
    title = "Milliseconds for a step of 10 million float32 parameters"
    yield f'<text x="0" y="18" font-size="16" font-weight="600">{title}</text>'
    yield f'<text x="0" y="38">Shorter is better. The red line is the least that the memory allows ({machine}).</text>'
    x = 0
    for label, colour in CONTENDERS.values():
        yield f'<rect x="{x}" y="55" width="12" height="12" fill="{colour}"/><text x="{x + 18}" y="66">{label}</text>'
        x += 48 + 7 * len(label)


def group(bars: Mapping[str, Mapping[str, float]], k: int, most: float) -> Iterator[str]:
    """Yield the bars of one kind of slots; a bar that is too long is cut, and says so."""
    slot, times = SLOTS[k], bars[SLOTS[k]]
    y = TOP + sum(BAR * (len(bars[s]) - 1) + GAP for s in SLOTS[:k])
    last = y + BAR * (len(times) - 1)
    yield f'<text x="0" y="{(y + last) / 2 + 4}" font-weight="600">{slot} slots</text>'
    for i, (name, (_, colour)) in enumerate((name, c) for name, c in CONTENDERS.items() if name in times):
        length, top = min(times[name] / most, 1.0) * WIDTH, y + BAR * i
        more = "" if times[name] <= most else " (cut off)"
        yield f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR - 3}" fill="{colour}"/>'
        yield f'<text x="{LEFT + length + 6:.1f}" y="{top + 12}">{times[name]:.2f}{more}</text>'
    x = LEFT + times["roof"] / most * WIDTH
    yield f'<path d="M{x:.1f} {y - 4}V{last + 1}" stroke="{ROOF}" stroke-width="2.5"/>'


if __name__ == "__main__":
    report = json.loads((DOCS / "performance.json").read_text(encoding="utf-8"))
    write_file(DOCS / "_static/speed.svg", draw(report))
