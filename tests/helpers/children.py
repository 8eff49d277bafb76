"""What the tests of ports that are commands share."""

from amos_ref.conformance import table
from amos_ref.conformance.judging import judge

PLAIN = table()[0]


def judge_one(port, case):
    """Return the result of one case."""
    return judge.judge(port, case)[0]


def has_ended(process):
    """Whether the child has ended and been waited for."""
    return process.returncode is not None
