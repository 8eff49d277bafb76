"""Tables of what was measured."""

from typing import Any

from amos_ref.terminal import print_table

FORMAT = "amos-ref-bench-1"
_COLUMNS = ("", "ns/parameter", "quartiles", "GB/s", "x roof", "x ours", "rounds", "extra MB")
_ON_DEVICE = ("", "us/step", *_COLUMNS[1:-1], "copies")


def everything(report: dict[str, Any]) -> None:
    """Print a whole report."""
    head(report)
    for work in report["workloads"]:
        workload(work)
    if report["start"] is not None:
        start(report["start"])


def head(report: dict[str, Any]) -> None:
    """Print the machine, the versions and who takes part."""
    found = report["machine"]
    caches = ", ".join(f"{name} {size}" for name, size in found["caches"].items())
    print(f"{found['cpu']}, {found['usable_cores']} of {found['cores']} cores; caches {caches or 'unknown'}")
    if "gpu" in found:
        _device(found["gpu"])
    print(f"{found['system']}, Python {found['python']}; load before the run {found['load']}")
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print()
    for name, c in report["contenders"].items():
        print(f"{name:18} {c['about']}{'; ' + c['missing'] if c['missing'] else ''}")


def _device(found: dict[str, Any]) -> None:
    sizes = f"L2 {found['l2_bytes'] * 1e-6:.3g} MB, memory {found['memory_bytes'] * 1e-9:.3g} GB"
    print(
        f"{found['name']}, compute capability {found['compute_capability']}, {found['multiprocessors']} "
        f"multiprocessors; {sizes}; driver {found['driver'] or 'of unknown version'}, for CUDA {found['cuda']}"
    )


def workload(work: dict[str, Any]) -> None:
    """Print the table of one workload."""
    print()
    print(f"{work['label']}; {work['bytes'] / work['parameters']:.4g} bytes a parameter")
    if work["results"]:
        columns = _ON_DEVICE if "copies" in work["results"][0] else _COLUMNS
        print_table(columns, [_row(record, work["parameters"]) for record in work["results"]])
    for skip in work["skipped"]:
        if not skip["reason"].startswith("not installed"):  # said once, at the head
            print(f"{skip['contender']}: {skip['reason']}")


def _row(record: dict[str, Any], parameters: int) -> list[str]:
    low, high = (record["seconds"][f"{name}_quartile"] / parameters * 1e9 for name in ("lower", "upper"))
    figures = (f"{record[name]:.3g}" for name in ("gb_per_s", "of_roof", "of_ours"))
    middle = f"{record['ns_per_parameter']:.3g}", f"{low:.3g}..{high:.3g}", *figures, str(record["rounds"])
    if "copies" in record:
        return [record["contender"], f"{record['seconds']['median'] * 1e6:.4g}", *middle, str(record["copies"])]
    extra = "" if record["extra_bytes"] is None else f"{record['extra_bytes'] * 1e-6:.3g}"
    return [record["contender"], *middle, extra]


def start(found: dict[str, Any]) -> None:
    """Print how long a process takes to its first step."""
    print()
    print(f"seconds from a fresh process, {found['array']}; medians of {found['runs']} and {found['cold_runs']} runs")
    rows = zip(found["stages"], found["warm"], found["cold"], strict=True)
    print_table(("", "kernels on disk", "no kernels on disk"), [(s, f"{w:.3g}", f"{c:.3g}") for s, w, c in rows])
    print(f"Numba is imported by: {found['numba_imported_by'] or 'none of them'}")
