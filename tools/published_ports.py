"""Every published port of Amos that can be had, beside the page: writes docs/ports.md.

    python -m tools.published_ports DOCS [PACKAGE | PACKAGE==VERSION ...]     check (all, or some of them), then write
    python -m tools.published_ports DOCS --from                               write from DOCS/ports.json, as it stands

Each version is installed, without what it depends on, into a folder of its own below build/ports, and checked by
``amos-ref check --json`` in a process of its own. What it depends on (torch, JAX, flax) is that of this environment.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.progress import track

import amos_ref
from amos_ref.conformance.cases import table
from amos_ref.conformance.judging.verdicts import VERDICTS
from amos_ref.storage.files import write_file

ROOT = pathlib.Path(__file__).parents[1]
SITES = ROOT / "build" / "ports"
TIMEOUT = 900  # seconds for one check
DTYPES = ("float64", "float32", "bfloat16", "float16")
#: What stands for a verdict; any other has its first letter.
MARKS = {"conforms": "+", "departs": "x", "not finite": "N", "raises": "!", "overwrites its input": "o"}
MARKS |= {"not supported": " "}


class Published(NamedTuple):
    """A version of a package that has a port of Amos.

    Attributes
    ----------
    package, version : str
        As on PyPI.
    target : str
        For amos-ref check; {site} stands for the folder into which it is installed.
    beside : tuple of str
        What else is installed there.
    """

    package: str
    version: str
    target: str
    beside: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Package and version."""
        return f"{self.package} {self.version}"


_BY_PATH = "{site}/jestimator/amos.py:amos"  # without its __init__, which does not import on today's JAX
#: One version for each text of its amos.py, comments and imports apart.
PORTS = (
    Published("jestimator", "0.3.2", _BY_PATH, ("chex==0.1.91", "toolz==1.1.0")),
    Published("jestimator", "0.3.3", _BY_PATH),
    *(
        Published("pytorch_optimizer", version, "pytorch_optimizer:Amos")
        for version in ("2.10.0", "3.1.2", "3.6.1", "3.8.2", "3.9.0", "3.10.1", "4.0.0", "4.1.0")
    ),
    Published("zij", "0.1.0", "zij:Amos"),
    Published("zij", "0.1.1", "zij:Amos"),
)

ALL = "pytorch_optimizer 2.10.0 to 4.1.0"
#: Reports to maintainers: file of docs/reports -> in one line, and the versions that it is about.
REPORTS = {
    "pytorch_optimizer-extra_l2": ("`extra_l2` with the wrong sign and half the size", ALL),
    "pytorch_optimizer-maximize": ("`maximize` negates the caller's `p.grad`", "pytorch_optimizer 3.6.0 to 4.1.0"),
    "pytorch_optimizer-float16": ("zero gradients turn float16 parameters into NaN", ALL),
    "pytorch_optimizer-momentum": ("momentum switched on after the first step raises", ALL),
    "pytorch_optimizer-copies": ("a copy has lost `c_coef`, `d_coef` and `maximize`", ALL),
    "pytorch_optimizer-complex": ("a complex parameter takes a step of a million", f"{ALL}; zij 0.1.0 and 0.1.1"),
    "pytorch_optimizer-epsilon": ("small gradients hardly move a parameter", f"{ALL}; zij 0.1.0 and 0.1.1"),
    "zij-0d": ("a parameter without axes raises", "zij 0.1.0 and 0.1.1"),
    "zij-copies": ("a copy cannot step; momentum switched on later raises", "zij 0.1.0 and 0.1.1"),
    "jestimator-import": ("`import jestimator` fails on today's JAX", "jestimator 0.3.2 and 0.3.3"),
    "jestimator-float16": ("zero gradients give NaN in float16", "jestimator 0.3.2 and 0.3.3"),
}
#: What departs and may well be meant.
WITHOUT_REPORT = (
    "There is none about `added-group-restarts-count`: Amos counts the steps of all parameters together, and these",
    "ports those of a group that is added later from its first one, as torch's own optimizers count. That may well be",
    "meant.",
)


def install(port: Published) -> pathlib.Path:
    """Install a version into its folder, if it is not there; return the folder."""
    site = SITES / f"{port.package}-{port.version}"
    wanted = [f"{port.package}=={port.version}", *port.beside]
    if not (site / "complete").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--upgrade"]
        subprocess.run([*pip, "--target", str(site), *wanted], check=True, timeout=TIMEOUT)
        (site / "complete").touch()
    return site


def check(port: Published, site: pathlib.Path) -> dict[str, Any]:
    """Check a version and return what docs/ports.json keeps of the report, or why there is none."""
    path = os.pathsep.join(filter(None, (str(ROOT), str(site), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-m", "amos_ref", "check", port.target.format(site=site), "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=os.environ | {"PYTHONPATH": path}, cwd=site
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no report within {TIMEOUT} s"}
    if not done.stdout.startswith("{"):
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": said[-1].removeprefix("amos-ref: ").replace(str(site), "...")}
    report = json.loads(done.stdout)
    cases: dict[str, dict[str, str]] = {}
    details: dict[str, str] = {}
    for r in report["results"]:
        cases.setdefault(r["case"], {})[r["dtype"]] = r["verdict"]
        if r["verdict"] in ("raises", "not finite", "overwrites its input"):
            details.setdefault(f"{r['verdict']}: {r['detail']}", f"{r['case']}, {r['dtype']}")
    found = report["diagnosis"] or {}
    return {
        "counts": report["counts"],
        "names": list(dict.fromkeys([*found.get("deviations", []), *found.get("life", [])])),
        "dialect": found.get("dialect"),
        "text": found.get("text", ""),
        "details": details,
        "cases": cases,
    }


def versions() -> dict[str, str]:
    """Return the versions of what the ports run on."""
    found = {"amos_ref": amos_ref.__version__, "python": platform.python_version()}
    for name in ("numpy", "torch", "jax", "flax", "optax"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def measure(port: Published) -> dict[str, Any]:
    """Install and check a version; return what docs/ports.json keeps of it."""
    try:
        return check(port, install(port))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        return {"failed": f"could not be installed: {error}"}


HEAD = """# Published ports

This page is written by `nox -s matrix` (its second step; alone: `nox -s matrix -- ports`); nothing on it is typed by
hand. It shows the ports of Amos that PyPI has, beside the page. Each version was installed by itself, without its
dependencies, and run on {environment}.

Where several versions have the same `amos.py`, one is shown. jestimator is loaded by the path of that file, since
[`import jestimator` fails](reports/jestimator-import.md). A Keras port outside the registries (NoteDance/optimizers) is
not shown. optax, Keras, torch, timm, heavyball, torch-optimi, torch_optimizer, adv_optm and
bert4keras have no Amos, and on npm and crates.io none was found.
"""


def render(measured: Mapping[str, Any]) -> str:
    """Return the page."""
    ports, env = measured["ports"], measured["versions"]
    given = ", ".join(f"{name} {version}" for name, version in env.items())
    lines = [HEAD.format(environment=given), "## Verdicts", ""]
    lines += ["| port | verdicts | what it does instead |", "|---|---|---|"]
    lines += [_row(name, found) for name, found in ports.items()]
    lines += ["", "## Reports", "", "Written for the maintainers, each with a snippet that shows it.", ""]
    lines += ["| report | versions |", "|---|---|"]
    lines += [f"| [{about}](reports/{file}.md) | {who} |" for file, (about, who) in REPORTS.items()]
    lines += ["", *WITHOUT_REPORT]
    lines += ["", "```{toctree}", ":hidden:", "", *(f"reports/{file}" for file in REPORTS), "```"]
    lines += ["", "## What was raised or not finite", ""]
    seen: dict[str, list[str]] = {}
    for name, found in ports.items():
        for detail in found.get("details", {}):
            seen.setdefault(_cell(detail), []).append(name)
    lines += [f"* {detail}: {', '.join(names)}" for detail, names in seen.items()] or ["Nothing."]
    lines += ["", "## Case by case", "", _legend(ports), ""]
    return "\n".join([*lines, *_tables(ports), ""])


def _row(name: str, found: Mapping[str, Any]) -> str:
    if "failed" in found:
        return f"| {name} | could not be checked | {_cell(found['failed'])} |"
    counts = ", ".join(f"{n} {verdict}" for verdict, n in found["counts"].items())
    names = ", ".join(f"[{one}](deviations.md)" for one in found["names"])
    text = names or _cell(found["text"].splitlines()[0] if found["text"] else "nothing: it conforms")
    wrong = set(found["counts"]) - {"conforms", "not supported"}
    return f"| {name} | {counts} | {text if wrong else 'nothing: it conforms'} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", "&lt;")


def _legend(ports: Mapping[str, Any]) -> str:
    used = Counter(v for found in ports.values() for row in found.get("cases", {}).values() for v in row.values())
    words = ", ".join(f"`{_mark(verdict)}` {verdict}" for verdict in VERDICTS if used[verdict])
    return f"One mark for each of {', '.join(DTYPES)} in which the case exists, or one for all: {words}."


def _tables(ports: Mapping[str, Any]) -> list[str]:
    """Return a table for each package: its versions beside the cases."""
    lines = []
    cases = list(dict.fromkeys(case.name for case in table()))
    for package in dict.fromkeys(name.partition(" ")[0] for name in ports):
        some = {name.partition(" ")[2]: found["cases"] for name, found in ports.items()
                if name.startswith(f"{package} ") and "cases" in found}  # fmt: skip
        if not some:
            continue
        known = [case for case in cases if any(case in found for found in some.values())]
        known += sorted({case for found in some.values() for case in found} - set(cases))
        lines += [f"### {package}", "", f"| case | {' | '.join(some)} |", "|---" * (len(some) + 1) + "|"]
        lines += [
            f"| {case} | {' | '.join(_marks(found.get(case, {})) for found in some.values())} |" for case in known
        ]
        lines.append("")
    return lines


def _marks(row: Mapping[str, str]) -> str:
    marks = "".join(_mark(row[dtype]) for dtype in DTYPES if dtype in row)
    return marks[:1] if len(set(marks)) == 1 else marks


def _mark(verdict: str) -> str:
    return MARKS.get(verdict, verdict[0])


def main(arguments: list[str]) -> None:
    """Check what is asked for; after each, keep it in DOCS/ports.json; then write DOCS/ports.md."""
    folder, *wanted = arguments
    path = pathlib.Path(folder) / "ports.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"ports": {}}
    asked = [port for port in PORTS if not wanted or {port.package, f"{port.package}=={port.version}"} & set(wanted)]
    if not asked and wanted != ["--from"]:
        sys.exit(f"there is no port {' '.join(wanted)}; there are {', '.join(port.name for port in PORTS)}")
    for port in track(asked, "ports"):
        found = known["ports"] | {port.name: measure(port)}
        known = {"versions": versions(), "ports": {one.name: found[one.name] for one in PORTS if one.name in found}}
        write_file(str(path), json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    write_file(str(path.with_suffix(".md")), render(known))


if __name__ == "__main__":
    main(sys.argv[1:])
