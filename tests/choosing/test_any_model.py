"""choose on any names and shapes: it has an answer for each leaf, which the optimizer can take."""

import math

from hypothesis import given
from hypothesis import strategies as st

import amos_ref
from amos_ref.dtypes import broadcasts
from amos_ref.errors import TreeError

PARTS = st.sampled_from([
    "weight", "kernel", "bias", "w", "b", "scale", "w1", "b1", "layers", "0", "1", "attn", "query", "out", "mlp", "wi",
    "wo", "experts", "norm", "conv1", "up", "decoder", "lstm", "weight_hh_l0", "weight_hr_l0", "weight_ih_l0", "core",
    "cell", "embed", "cls", "att_src", "gating_einsum", "qkv_w", "weight_g", "weight_v", "gcn", "time_maa_w1", "w_h",
    "w_i", "relpos_embed", "dw", "conv2d_transpose", "recurrent_kernel", "user_factors", "",
])  # fmt: skip
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 8, 12, 64]), max_size=5).map(tuple)


@given(shapes=st.dictionaries(NAMES, SHAPES, min_size=1, max_size=10), data=st.data())
def test_every_leaf_has_an_answer(shapes, data):
    options = data.draw(
        st.fixed_dictionaries({}, optional={"layout": st.sampled_from(["torch", "flax"]), "family": st.just("t5")})
    )
    try:
        choice = amos_ref.choose(shapes, **options)
    except TreeError:  # nothing but empty containers
        assert all(shape == () for shape in shapes.values())
        return
    assert set(choice) == set(shapes)
    for name, entry in choice.items():
        assert entry.shape == shapes[name]
        assert "\n" not in entry.why
        if entry.eta is None:
            assert entry.source in ("unknown", "buffer")
        else:
            assert 0 < entry.eta < math.inf
            assert broadcasts(entry.slot_shape, entry.shape), (name, entry)
    assert amos_ref.choosing.Choice.from_dict(choice.to_dict()) == choice
