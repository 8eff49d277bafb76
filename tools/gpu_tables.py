"""Write the tables of docs/cuda.md and docs/performance.md from the report of tests/gpu/run.py.

    python tools/gpu_tables.py REPORT.json [FILE]...

In every file what stands between ``<!-- gpu: NAME -->`` and ``<!-- end -->`` is replaced by the table of that name:
checks (what ran and what it found) or speed (how long a step takes, in milliseconds).
"""

import json
import pathlib
import re
import sys

from amos_ref.storage.files import write_file

ROOT = pathlib.Path(__file__).parents[1]
FILES = [ROOT / "docs/cuda.md", ROOT / "docs/performance.md"]
COLUMNS = ("copy", "graph", "bound", "eager", "adamw graph", "adamw called")
MARKED = re.compile(r"(<!-- gpu: (\w+) -->\n).*?(<!-- end -->)", re.S)


def row(*cells):
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


def source(report):
    """Where and when the figures were measured."""
    found = report["parts"].get("bench", {}).get("found")
    if found is None:
        return f"{report['date']}."
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k in ("numpy", "numba-cuda", "torch"))
    device = found["device"]
    return f"{device['name']}, driver {device['driver']}, CUDA {device['cuda']}, {versions}, {report['date']}."


def checks(report):
    """What ran, and what it found."""
    lines = [row("part", "verdict", "passed", "failed", "skipped", "seconds"), row(*["---"] * 6)]
    for name, part in report["parts"].items():
        counts = [part.get(key, "") for key in ("passed", "failed", "skipped", "seconds")]
        lines.append(row(name, " ".join([part["verdict"], *part.get("summary", [])]), *counts))
    return [*lines, "", source(report)]


def speed(report):
    """How long a step takes, beside a copy and torch's fused AdamW; what was left out is said."""
    found = report["parts"]["bench"]["found"]
    lines = [row("workload", *COLUMNS, "graph / copy", "host of eager, bound (us)")]
    lines.append(row(*["---"] * (len(COLUMNS) + 3)))
    for each in found["rows"]:
        ms, host = each["ms"], each["host_us"]
        times = [f"{ms[kind][0]:.4f}" if kind in ms else "" for kind in COLUMNS]
        ratio = f"{ms['graph'][0] / ms['copy'][0]:.2f}"
        lines.append(row(each["workload"], *times, ratio, f"{host['eager']:.0f}, {host['bound']:.0f}"))
    left = [f"Left out: {'; '.join(found['left_out'])}."] if found["left_out"] else []
    return [*lines, "", *left, f"Milliseconds, medians. {source(report)}"]


TABLES = {"checks": checks, "speed": speed}


def fill(text, report):
    """The text with its tables made from the report."""
    return MARKED.sub(lambda found: found[1] + "\n".join(TABLES[found[2]](report)) + "\n" + found[3], text)


def main(path, *files):
    report = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    for file in map(pathlib.Path, files or FILES):
        write_file(file, fill(file.read_text(encoding="utf-8"), report))


if __name__ == "__main__":
    main(*sys.argv[1:])
