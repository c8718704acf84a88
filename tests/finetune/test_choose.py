from __future__ import annotations

import numpy as np
import pytest

from costmodel.finetune.choose import Score, choose, conformal, pick
from costmodel.finetune.readings import Readings
from tests.finetune.networks import skewed


def score(kind: str, residual: np.ndarray) -> Score:
    return Score(kind, float(np.mean(np.abs(residual)) * 100), residual)


def test_the_simpler_wins_unless_clearly_worse() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 40)
    simple, better = score("scale", noise + rng.normal(0, 0.01, 40)), score("operators", noise)
    assert pick([simple, better]).kind == "scale"
    assert pick([score("scale", noise * 2), better]).kind == "operators"
    assert pick([score("scale", noise * 2), score("line", noise * 1.01), better]).kind == "operators"


def test_samples_that_nothing_explains_change_nothing() -> None:
    wild = np.random.default_rng(0).normal(0, 2, 40)
    assert pick([score("none", wild * 3), score("scale", wild)]).kind == "none"


def test_a_known_distortion_is_undone_and_its_interval_holds(readings: Readings) -> None:
    truth = np.log(skewed(readings, noise=0.03))
    train, test = np.arange(40), np.arange(40, 70)
    choice = choose(readings.take(train), truth[train])
    error = np.abs(choice.adapter.log_ms(readings.take(test)) - truth[test])
    before = np.abs(readings.log_ms[test] - truth[test])
    assert choice.adapter.kind in ("operators", "residual")
    assert error.mean() < before.mean() / 4
    assert np.mean(error <= choice.half_width) >= 0.75
    assert choice.half_width < 0.3


def test_a_slower_device_of_the_same_kind_needs_only_a_factor(readings: Readings) -> None:
    few = readings.take(np.arange(20))
    noise = np.random.default_rng(1).normal(0, 0.03, 20)
    choice = choose(few, few.log_ms + 0.8 + noise)
    assert choice.adapter.kind == "scale"
    assert choice.adapter.log_ms(few) == pytest.approx(few.log_ms + 0.8, abs=0.05)


def test_a_device_the_model_knows_stays_as_it_is(readings: Readings) -> None:
    few = readings.take(np.arange(20))
    choice = choose(few, few.log_ms + np.random.default_rng(2).normal(0, 0.05, 20))
    assert choice.adapter.kind == "none"


@pytest.mark.parametrize("count", [10, 40])
@pytest.mark.parametrize("seed", range(3))
def test_random_latencies_change_nothing(readings: Readings, count: int, seed: int) -> None:
    some = readings.take(np.arange(count))
    assert choose(some, np.random.default_rng(seed).uniform(-6, 6, count)).adapter.kind == "none"


def test_shuffled_latencies_change_nothing_much(readings: Readings) -> None:
    """Latencies of other networks: the right level, but no relation to the graph."""
    some = readings.take(np.arange(40))
    shuffled = np.random.default_rng(0).permutation(some.log_ms)
    choice = choose(some, shuffled)
    none = next(s for s in choice.scores if s.kind == "none")
    assert choice.score.error.mean() <= none.error.mean()


def test_conformal_takes_the_right_rank() -> None:
    assert conformal(np.arange(1.0, 20.0)) == 18  # ⌈20 · 0.9⌉
    assert conformal(np.array([0.1, 0.5, 0.2])) == 0.5
