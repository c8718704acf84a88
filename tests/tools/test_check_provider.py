"""What the provider check counts as right and as time lost."""

from __future__ import annotations

import pytest

from tools.check_provider import summary

LABELS = ["cpu:fp32", "openvino:fp32"]


def row(picked: str, cpu: float, vino: float) -> dict:
    measured = dict(zip(LABELS, (cpu, vino), strict=True))
    best = min(measured.values())
    return {
        "picked": picked, "right": measured[picked] <= best * 1.03, "tie": max(measured.values()) <= best * 1.03,
        "toss_up": False, "seen": False, "predicted_ms": measured, "measured_ms": measured,
    }  # fmt: skip


def test_time_lost_is_over_all_networks_together() -> None:
    found = summary([row("cpu:fp32", 1.0, 3.0), row("cpu:fp32", 4.0, 2.0), row("openvino:fp32", 2.0, 2.02)], LABELS)
    assert (found["right"], found["ties"], found["networks"]) == (2, 1, 3)
    assert found["time_lost"]["picked"] == pytest.approx((1 + 4 + 2.02) / 5 - 1)
    assert found["time_lost"]["always cpu:fp32"] == pytest.approx(7 / 5 - 1)
    assert found["time_lost"]["always openvino:fp32"] == pytest.approx(7.02 / 5 - 1)
    assert found["mean_time_lost_per_network"] == pytest.approx((1 + 2 + 1.01) / 3 - 1)
    assert found["faster"] == {"cpu:fp32": 2, "openvino:fp32": 1}


def test_no_rows_no_figures() -> None:
    assert summary([], LABELS) == {"networks": 0}
