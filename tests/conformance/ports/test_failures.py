"""The ways in which a port can fail, and how they are told."""

from amos_ref.conformance.ports.failures import Crash, Garbage, Hang, PortError, PortFailure, Unsupported


def test_every_failure_has_a_verdict_and_none_passes():
    kinds = [PortError, Hang, Crash, Garbage, Unsupported]
    assert [kind.verdict for kind in kinds] == ["raises", "hangs", "crashes", "garbage", "not supported"]
    assert all(issubclass(kind, PortFailure) for kind in kinds)
