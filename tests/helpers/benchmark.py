"""What several tests of the benchmark need: the report's schema, settings, workloads, and fewer contenders."""

import importlib.resources
import json
from dataclasses import replace

from amos_ref.bench import contenders, workloads
from amos_ref.bench.measure import Settings

SCHEMA = json.loads((importlib.resources.files("amos_ref.bench") / "bench.schema.json").read_text())


def settings(peers=(), backend="cpu", seconds=1.0, least=5, most=200):
    return Settings(peers, backend, seconds, least, most, most_compiled=100)


def device_work(size="1e4", **changed):
    """A workload on a GPU."""
    return replace(workloads.parse_size(size), threads=0, **changed)


def keep_contenders(monkeypatch, backend, *names):
    """Leave out the frameworks, whether they are installed or not."""
    kept = {name: contenders.CONTENDERS[backend][name] for name in (contenders.OURS, contenders.ROOF, *names)}
    monkeypatch.setitem(contenders.CONTENDERS, backend, kept)
