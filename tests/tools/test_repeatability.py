"""When repeated measurements count as agreeing."""

from __future__ import annotations

from types import SimpleNamespace

from tools.repeatability import judge


def _samples(name, times, flags=None):
    flags = flags or [()] * len(times)
    return [SimpleNamespace(name=name, latency_ms=t, flags=f) for t, f in zip(times, flags, strict=True)]


def test_agreement_flags_and_neither_are_told_apart():
    found = judge(
        _samples("agrees", [10, 10.2, 10.29])
        + _samples("differs", [10, 10.4])
        + _samples("flagged", [10, 20, 30], [("noisy",), ("noisy",), ()])
        + _samples("one of three is flagged", [10, 20, 10.1], [(), ("noisy",), ()])
    )
    assert (found["agree"], found["neither"], found["flagged"]) == (2, 1, 1)
    assert found["largest_spread"] == 0.04
    assert found["flagged_measurements"] == 3
