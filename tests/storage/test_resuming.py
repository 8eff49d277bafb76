"""A training that goes on from disk has the bits of one that never stopped."""

import numpy as np
import optree
import pytest
from helpers import strategies as own
from helpers.checkpoints import state_bits
from helpers.trees import all_bits

import amos_ref
from amos_ref import Amos, ClosedFormAmos
from amos_ref.adamw import AdamW
from amos_ref.storage import checkpoint

EVERYTHING = dict(
    eta={"gain": 1.0, ".*kernel": "sqrt(1/SHAPE[0])", ".*": 0.5},
    slot_shape={"rows": "(SHAPE[0], 1)", "columns": (1, 3), "element": "element", ".*": "tensor"},
    beta=0.97,
    momentum=0.9,
    clip_value=1.5,
    extra_l2=1e-3,
    c_coef=0.3,
    d_coef=0.2,
    epsilon=1e-9,
    backend="numpy",
)


OPTIMIZERS = {
    "paper": Amos(0.1, momentum=0.5, slot_shape="element"),
    "paper without momentum": Amos(0.1, state_dtype="param"),
    "paper by its initial entries": Amos(0.1, eta="init", momentum=0.5),
    "paper in part, state like parameters": Amos(0.1, eta={"a": "init", ".*": 0.25}, state_dtype="param"),
    "closed form": ClosedFormAmos(alpha_0=0.1, half_life=9),
    "closed form, adam": ClosedFormAmos(alpha_0=0.1, half_life=9, direction="adam"),
    "AdamW": AdamW(0.1, weight_decay=0.5),
}


def test_the_table_above_has_every_optimizer_that_a_file_can_hold():
    assert {type(opt) for opt in OPTIMIZERS.values()} == set(checkpoint.OPTIMIZER_CLASSES.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_is_resumed_with_the_same_bits(name, tmp_path):
    opt, rng = OPTIMIZERS[name], np.random.default_rng(7)
    params = {"a": rng.standard_normal((2, 3)), "b": [rng.standard_normal(4).astype("f4")]}
    like, state = optree.tree_map(np.zeros_like, params), opt.init(params)
    for t in range(6):
        grads = optree.tree_map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), params)
        state = opt.step(params, grads, state)
        if t == 2:
            amos_ref.save(tmp_path / "all", params, state, opt)
            amos_ref.save_state(tmp_path / "state", state)
            resumed = amos_ref.load(tmp_path / "all", like)
            assert repr(resumed.opt) == repr(opt)
            assert all_bits(resumed.params) == all_bits(params)
            for alone in (amos_ref.load_state(tmp_path / name, like) for name in ("all", "state")):
                assert (type(alone), all_bits(alone)) == (type(state), all_bits(state))
            again, other = resumed.params, resumed.state
        elif t > 2:
            other = resumed.opt.step(again, grads, other)
    assert all_bits((again, other)) == all_bits((params, state))


def schedule(t):
    return 0.05 * min(t / 50, 1.0)


class Training:
    """A made-up training, the same every time: gradients depend on the parameters and on the step; some are None."""

    def __init__(self, state_dtype):
        rng = np.random.default_rng(11)
        bf16 = own.BFLOAT16
        self.params = {
            "rows": {"kernel": rng.standard_normal((4, 3)).astype("f4")},
            "columns": rng.standard_normal((2, 3)),
            "element": [rng.standard_normal((2, 2)).astype("f2"), rng.standard_normal(3).astype(bf16)],
            "gain": np.ones(()),
        }
        self.opt = Amos(schedule, state_dtype=state_dtype, **EVERYTHING)
        self.state = self.opt.init(self.params)

    def leaves(self):
        return [self.params["rows"]["kernel"], self.params["columns"], *self.params["element"], self.params["gain"]]

    def step(self):
        t = self.state.count + 1
        rng = np.random.default_rng([13, t])
        grads = [np.asarray(a + rng.standard_normal(a.shape)).astype(a.dtype) for a in self.leaves()]
        kernel, columns, *element, gain = (None if (t + 3 * i) % 7 == 0 else g for i, g in enumerate(grads))
        tree = {"rows": {"kernel": kernel}, "columns": columns, "element": element, "gain": gain}
        self.state = self.opt.step(self.params, tree, self.state)

    def bits(self):
        return state_bits(self.state), [own.bits(a) for a in self.leaves()]


@pytest.mark.parametrize("state_dtype", ["float64", "param"])
def test_resuming_from_disk_is_never_having_stopped(state_dtype, tmp_path):
    straight, resumed = Training(state_dtype), Training(state_dtype)
    for t in range(1, 1001):
        straight.step()
        resumed.step()
        if t % 89 == 0:
            amos_ref.save(tmp_path / "all", resumed.params, resumed.state, resumed.opt)
            like = Training(state_dtype).params
            resumed.params, resumed.state, resumed.opt = amos_ref.load(tmp_path / "all", like, learning_rate=schedule)
        if t % 101 == 0:
            amos_ref.save_state(tmp_path / "state", resumed.state)
            resumed.state = amos_ref.load_state(tmp_path / "state", like=resumed.params)
        if t % 50 == 0:
            assert resumed.bits() == straight.bits()
    assert resumed.state.count == 1000
    # A state that lost one part would have shown: b at 0 gives other bits at once.
    resumed.state = resumed.state._replace(b={name: np.zeros_like(a) for name, a in resumed.state.b.items()})
    straight.step()
    resumed.step()
    assert resumed.bits() != straight.bits()
