"""Expressions in SHAPE: what they may hold, and hostile ones."""

import ast
import concurrent.futures
import math
import time
import tracemalloc

import pytest

from amos_ref import rules
from amos_ref.errors import ExpressionError
from amos_ref.expressions import evaluate


def test_rules_have_the_function_as_well():
    assert rules.evaluate is evaluate


ALLOWED = {
    "0.5": 0.5,
    " 1 + 2 * 3 - 4 / 8 ": 6.5,
    "7 // 2 % 2": 1,
    "-2 ** 2": -4,
    "2 ** -1": 0.5,
    "+SHAPE[0]": 6,
    "SHAPE[-1]": 5,
    "SHAPE[1:]": (4, 5),
    "SHAPE[:-1]": (6, 4),
    "SHAPE[::2]": (6, 5),
    "(1, 2.5)[1]": 2.5,
    "(1, SHAPE[0] // 2)": (1, 3),
    "(1,) * 2 + SHAPE": (1, 1, 6, 4, 5),
    "()": (),
    "sqrt(1 / prod(SHAPE[:-1]))": math.sqrt(1 / 24),
    "min(SHAPE) + max(SHAPE) + min(7, 8)": 17,
    "log(exp(2.0))": 2.0,
    "len(SHAPE)": 3,
    "(2 * SHAPE[1]) ** -0.25": 8**-0.25,
    "2 ** 62": 2**62,
}


@pytest.mark.parametrize(("expression", "value"), ALLOWED.items())
def test_allowed_expressions(expression, value):
    assert evaluate(expression, (6, 4, 5)) == value


HOSTILE = """\
SHAPE.__class__
(1).__class__.__bases__
().__class__.__mro__[1].__subclasses__()
__import__('os').system('true')
eval('1')
open('x')
abs(-1)
sum(SHAPE)
pow(2, 3)
math.sqrt(2)
np.ones(3)
shape
x
sqrt
len
True
None
...
__name__
lambda: 1
(lambda: 1)()
[n for n in SHAPE]
(n for n in SHAPE)
{1: 2}
{1, 2}
[1, 2]
'a'
b'a'
'a' * 10
f'{SHAPE}'
(n := 3)
max(SHAPE, key=len)
sqrt(x=2)
sqrt(*SHAPE)
(*SHAPE, 1)
1 if SHAPE else 2
1 < 2
1 and 2
not 1
~1
1 << 60
1 | 2
1 @ 2
await x
yield
import os
x = 1
1; 2
1 +
)
1, ,2
9**9**9
9**9**9**9
2**64
2**63 + 1
-(2**63) - 1
2**62 * 4
10 * 10**19
99999999999999999999999999
10.0**400
9.0**9.0**9.0
exp(1000)
exp(exp(exp(10)))
prod((10**18, 10**18))
prod((2**63,) * 64)
(1,) * 65
(1,) * 10**9
(1,) * 2**63
SHAPE * 1000
10**9 * (1,)
((1,) * 64) + (1,)
((1,),)
SHAPE + 1
SHAPE * SHAPE
SHAPE * 1.5
-SHAPE
SHAPE ** 2
1 / 0
1 // 0
1 % 0
1.0 / 0.0
0 ** -1
log(0)
log(-1)
sqrt(-1)
(-1) ** 0.5
(-8) ** (1 / 3)
1j
2 + 1j
SHAPE[3]
SHAPE[-4]
SHAPE[0.5]
SHAPE[SHAPE]
SHAPE[::0]
SHAPE[0:0.5]
SHAPE[0, 1]
1[0]
SHAPE[0][0]
len(5)
len()
sqrt()
sqrt(SHAPE)
min()
min(1)
max(SHAPE, 1)
prod(3)""".splitlines()
HOSTILE += [
    "",
    " ",
    "\n",
    "1\n2",
    "\0",
    "1\0",
    "\ud800",
    "(" * 240 + "1" + ")" * 240,
    "SHAPE" + "[0]" * 150,
    "sqrt(" * 95 + "4" + ")" * 95 + "x",
    "1" * 499,
    "0x" + "f" * 400,
    "1" * 501,
    "+".join(["1"] * 300),
]


@pytest.mark.parametrize("expression", HOSTILE, ids=lambda text: ascii(text)[:40])
def test_hostile_expressions_are_refused_without_much_memory(expression):
    tracemalloc.start()
    try:
        with pytest.raises(ExpressionError) as error:
            evaluate(expression, (6, 4, 5))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "\n" not in str(error.value)
    assert peak < 4 * 2**20


def test_nesting_to_the_limit_ends_one_way_or_the_other():
    # 498 signs parse on some Python versions and recurse too deeply on others; both are fine, a crash is not.
    try:
        value = evaluate("-" * 498 + "1", ())
    except ExpressionError:
        value = 1
    assert value == 1


def test_one_thread_at_a_time_parses(monkeypatch):
    """CPython 3.11 raised "AST constructor recursion depth mismatch" for threads that parsed at once."""
    inside, most = [0], [0]

    def parse(*args, **how):
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.01)
        inside[0] -= 1
        return right(*args, **how)

    right = ast.parse
    monkeypatch.setattr(ast, "parse", parse)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda k: evaluate("2 * SHAPE[0]", (k,)), range(16))) == list(range(0, 32, 2))
    assert most == [1]
