"""Contenders: the table of their names, and how many bytes they hold."""

import pytest
from helpers.benchmark import device_work

from amos_ref.bench import contenders


@pytest.mark.usefixtures("driver")
def test_each_counts_copies_of_what_it_holds():
    work = device_work("1e6")
    counted = {"amos_ref": 19, "roof": 10, "torch-fused": 10, "torch-foreach": 8, "torch-eager": 10}
    counted |= {"pytorch_optimizer": 19, "jestimator": 19, "optax": 10}
    assert {name: contenders.find_contender(name, "cuda").count_copies(work) for name in counted} == counted
    foreach = contenders.find_contender("torch-foreach", "cuda")
    assert foreach.count_memory(work) == (8 * 5 * 4 * 10**6, 4 * 10**6)
    work = device_work("1e6", slot="element", state="float64", momentum=True)
    assert contenders.find_contender("amos_ref", "cuda").count_array_bytes(work) == 8 * 10**6 + 3 * 8 * 10**6
