"""Random choices: fixed by the key, in range, and in proportion."""

from __future__ import annotations

from collections import Counter

import pytest

from profiler.workloads.draw import Draw, Widths


def test_a_key_fixes_the_choices() -> None:
    assert [Draw("a").integer(0, 10**6) for _ in range(2)] == [Draw("a").integer(0, 10**6)] * 2
    assert Draw("a").integer(0, 10**6) != Draw("b").integer(0, 10**6)


def test_choices_stay_in_range_and_reach_its_ends() -> None:
    draw = Draw("range")
    assert {draw.integer(2, 4) for _ in range(100)} == {2, 3, 4}
    assert {draw.multiple(30, 70, 16) for _ in range(100)} == {32, 48, 64}
    assert all(3 <= draw.log_uniform(3, 4) < 4 for _ in range(100))


def test_weights_are_proportions() -> None:
    draw = Draw("weights")
    counts = Counter(draw.pick("abc", (0.7, 0.3, 0.0)) for _ in range(2000))
    assert counts["a"] / 2000 == pytest.approx(0.7, abs=0.04)
    assert "c" not in counts


def test_widths_share_a_granule_and_stay_near_the_reference() -> None:
    granules = set()
    for i in range(60):
        widths = Widths(Draw(f"widths {i}"), 0.1, 3.0)
        drawn = [widths(320) for _ in range(40)]
        assert all(0.2 * 320 - 8 <= w <= 1.8 * 320 + 8 for w in drawn)
        granules.add(next(g for g in (16, 8, 4, 1) if all(w % g == 0 for w in drawn)))
        assert widths(1) >= 1
    assert granules == {1, 4, 8, 16}
