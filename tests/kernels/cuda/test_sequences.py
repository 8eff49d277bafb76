"""The sequences of tests/helpers/sequences.py with arrays on a GPU, or in Numba's simulator."""

import os

import pytest
from helpers.placed import to_device
from helpers.sequences import ANYWHERE, Life, burst, transitions

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
MEMBERS = ("amos", "amos with momentum", "closed form", "closed form, sign", "closed form, adam")


def fill(a, numbers):
    a.copy_to_device(numbers)


def life(member, names):
    return Life(member, "cuda", names, place=to_device, back=lambda a: a.copy_to_host(), fill=fill)


@pytest.mark.parametrize("member", MEMBERS)
def test_every_transition_between_missing_gradients(member):
    transitions(life(member, ("a", "h") if SIMULATED else ("a", "b/d", "b/e", "h")))


@pytest.mark.parametrize("member", MEMBERS)
def test_long_sequences_have_the_bits_of_fresh_optimizers_on_the_page(member):
    one = life(member, ("a", "b/c", "b/d", "b/e", "f", "g", "h"))
    burst(one, 3, 20 if SIMULATED else 3000, ANYWHERE)
