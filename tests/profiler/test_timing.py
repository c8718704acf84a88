"""When repeating stops and which runs count."""

from __future__ import annotations

import random
import time

import pytest

from profiler import timing
from profiler.timing import Runs, drift, half_width, time_runs, warm_up


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draw = random.Random(1)
    covered = 0
    for _ in range(400):
        times = sorted(draw.lognormvariate(0, 0.3) for _ in range(41))
        width = half_width(times)
        low, high = times[14], times[26]  # 41/2 -+ 0.98 sqrt(41), as order statistics
        assert width == pytest.approx((high - low) / 2 / times[20])
        covered += low <= 1.0 <= high
    assert 0.92 <= covered / 400 <= 0.99


def test_equal_times_are_certain_and_none_are_not() -> None:
    assert half_width([2.0] * 10) == 0
    assert half_width([]) == float("inf")


def test_drift_compares_halves() -> None:
    assert drift([1, 1, 1, 1.1, 1.1, 1.1]) == pytest.approx(0.1)
    assert drift([3.0]) == 0


def test_a_steady_run_stops_early_and_a_wild_one_at_the_budget() -> None:
    draw = random.Random(0)
    start = time.perf_counter()
    runs = time_runs(lambda: time.sleep(draw.uniform(0.0005, 0.01)), 0.4)
    assert 0.3 < time.perf_counter() - start < 2
    assert len(runs.wall_ms) >= 10
    assert half_width(runs.wall_ms) > timing.ENOUGH_HALF_WIDTH


def test_a_slow_network_runs_three_times() -> None:
    assert len(time_runs(lambda: time.sleep(0.03), 0.01).wall_ms) == 3


def test_something_else_happens_between_runs_and_is_not_timed() -> None:
    called: list[int] = []

    def between() -> None:
        called.append(1)
        time.sleep(0.05)

    draw = random.Random(0)
    runs = time_runs(lambda: time.sleep(draw.uniform(0.001, 0.01)), 0.6, between)
    assert called
    assert max(runs.wall_ms) < 45


def test_only_clean_runs_count_while_there_are_enough() -> None:
    runs = Runs([1.0] * 10 + [9.0] * 5, [1.0] * 15, [True] * 10 + [False] * 5)
    assert runs.result(threads=1) == ([1.0] * 10, False)


def test_preemption_is_subtracted_where_hardly_a_run_is_clean() -> None:
    runs = Runs([5.0] * 9 + [1.0], [1.0] * 10, [False] * 9 + [True])
    assert runs.result(threads=1) == ([1.0] * 10, True)
    assert runs.result(threads=2) == ([5.0] * 9 + [1.0], True)


def test_warm_up_runs_at_least_twice() -> None:
    called: list[int] = []
    warm_up(lambda: called.append(1), 1e-9)
    assert len(called) == 2
