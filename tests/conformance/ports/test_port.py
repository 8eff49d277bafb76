"""How a port's names for options are matched to ours, and what it does not know is switched off."""

import numpy as np
import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.ports.port import by_leaf
from amos_ref.conformance.ports.target import as_port


def test_options_with_defaults_of_their_own_are_switched_off():
    class Clipped(ToyPort):
        def init(self, params, hyper):
            super().init(params, {"clip_value": 1.0, "extra_l2": 0.5, "c_coef": 1.0, "d_coef": 1.0} | hyper)

    def factory(learning_rate, eta, clip_value=1.0, extra_l2=0.5, momentum=0.9):
        raise AssertionError

    off = as_port(factory).signature.keywords({"learning_rate": 1.0})
    assert off == {"learning_rate": 1.0, "clip_value": np.inf, "extra_l2": 0.0, "momentum": 0.0}
    assert judge.judge(Clipped(), table()[0])[0].verdict == "departs"  # a Port itself must heed what is not in hyper


@pytest.mark.parametrize("called", ["", "parameter 0", None])
def test_a_leaf_that_is_asked_for_by_another_name_and_its_shape_is_found_by_the_shape(called):
    find = by_leaf({"w": 1.0, "x": 2.0}, {"w": np.zeros((5, 2)), "x": np.zeros(())})
    assert find(called, (5, 2)) == 1.0
    assert find(called, ()) == find(called, np.zeros(())) == 2.0
