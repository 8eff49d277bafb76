"""How a port's names for options are matched to ours, and what it does not know is switched off."""

import numpy as np
import pytest
from helpers.toy_port import ToyPort

from amos_ref.conformance import table
from amos_ref.conformance.judging import judge
from amos_ref.conformance.ports.target import as_port
from amos_ref.errors import TargetError


def test_options_with_defaults_of_their_own_are_switched_off():
    class Clipped(ToyPort):
        def init(self, params, hyper):
            super().init(params, {"clip_value": 1.0, "extra_l2": 0.5, "c_coef": 1.0, "d_coef": 1.0} | hyper)

    def factory(learning_rate, eta, clip_value=1.0, extra_l2=0.5, momentum=0.9):
        raise AssertionError

    off = as_port(factory).signature.keywords({"learning_rate": 1.0})
    assert off == {"learning_rate": 1.0, "clip_value": np.inf, "extra_l2": 0.0, "momentum": 0.0}
    assert judge.judge(Clipped(), table()[0])[0].verdict == "departs"  # a Port itself must heed what is not in hyper


def test_names_of_options_are_mapped():
    def factory(rate, eta_fn, weight_decay=0.1, momentum=0.9, **ignored):
        raise AssertionError

    port = as_port(factory, {"learning_rate": "rate", "extra_l2": "weight_decay"})
    assert port.options == {"learning_rate", "eta", "extra_l2", "momentum"}
    assert port.signature.keywords({"learning_rate": 1.0}) == {"rate": 1.0, "momentum": 0.0, "weight_decay": 0.0}
    with pytest.raises(TargetError, match="the port has no parameter 'nope'"):
        as_port(factory, {"learning_rate": "nope"})
    with pytest.raises(TargetError, match="'speed' is not one of learning_rate"):
        as_port(factory, {"speed": "rate"})
