"""How long the first step takes: the stages run in fresh processes with caches of their own."""

import math

import jsonschema
import pytest
from helpers.benchmark import SCHEMA

from amos_ref import errors
from amos_ref.bench import start


def test_start_runs_fresh_processes_with_caches_of_their_own(monkeypatch):
    homes, child = [], start._run_child

    def note_cache(backend, cache):
        homes.append(cache)
        return child(backend, cache)

    monkeypatch.setattr(start, "_run_child", note_cache)
    found = start.measure_start("numpy", caches=1, runs=1)
    jsonschema.validate(found, {**SCHEMA["$defs"]["start"], "$defs": SCHEMA["$defs"]})
    assert (found["runs"], found["cold_runs"], found["numba_imported_by"]) == (1, 1, None)
    assert len(homes) == 2
    assert len(set(homes)) == 1
    assert all(0 < x < math.inf for x in found["warm"] + found["cold"])
    with pytest.raises(errors.BackendError, match=r"a fresh process could not take a step: it says .*'abacus'"):
        child("abacus", homes[0])
