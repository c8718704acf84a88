"""Scores while tuning, and how measurements change them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; pip install 'ledg-cost[tvm]'")

from costmodel.integrations.tvm.memory import Task
from costmodel.integrations.tvm.online import ENOUGH, OnlineRanker
from costmodel.integrations.tvm.ranker import Ranker
from tests.costmodel.integrations.tvm.test_ranker import HERE, SMALL, VECTORS, schedules, seconds


def online(**options: float) -> OnlineRanker:
    return OnlineRanker(Ranker(SMALL, VECTORS), **options)  # type: ignore[arg-type]


def test_scores_are_positive_and_learn() -> None:
    model, graphs = online(explore=0, steps=150, rate=5e-3), schedules()
    first = model.score("t", graphs, HERE)
    assert (first > 0).all()
    assert first.max() == pytest.approx(1)
    model.observe("t", graphs, list(seconds(18)), HERE)
    after = model.score("t", graphs, HERE)
    assert np.corrcoef(np.log(after), -np.log(seconds(18)))[0, 1] > 0.95
    assert set(np.argsort(-after)[:3]) == {0, 1, 2}


def test_scores_of_one_round_compare_across_calls() -> None:
    model, graphs = online(explore=0), schedules()
    whole = model.score("t", graphs, HERE)
    np.testing.assert_allclose(model.score("t", graphs[5:9], HERE), whole[5:9], rtol=1e-3)


def test_a_candidate_that_cannot_be_read_ranks_low() -> None:
    model, graphs = online(explore=0), schedules()
    scores = model.score("t", [None, *graphs], HERE)
    assert scores[0] == pytest.approx(np.exp(np.quantile(np.log(scores[1:]), 0.25)), rel=1e-3)
    assert len(model.score("t", [None, None], HERE)) == 2
    assert model.score("t", [], HERE).shape == (0,)
    model.observe("t", [None], [1e-3], HERE)
    assert model.measured == 0


def test_without_pretraining_scores_are_random_until_enough_is_measured() -> None:
    model, graphs = OnlineRanker(steps=1), schedules()
    assert not model.warm
    assert not np.allclose(model.score("t", graphs, HERE), model.score("t", graphs, HERE))
    model.explore = 0
    model.observe("t", graphs[:ENOUGH], list(seconds(ENOUGH)), HERE)
    np.testing.assert_allclose(model.score("t", graphs, HERE), model.score("t", graphs, HERE))


def test_exploration_fades_with_measurements() -> None:
    model, graphs = online(explore=1.0, steps=1), schedules()
    model.ranker.net.out.data.normal_()

    def spread() -> float:
        scores = np.log([model.score("t", graphs, HERE) for _ in range(20)])
        return float(scores.std(0).mean())

    early = spread()
    model.tasks["t"] = Task(HERE, graphs * 5, [0.0] * len(graphs) * 5)
    assert spread() < early / 2


def test_failures_are_remembered_as_slow() -> None:
    model, graphs = online(explore=0, steps=150, rate=5e-3), schedules()
    model.observe("t", graphs, [None if i < 6 else s for i, s in enumerate(seconds(18))], HERE)
    scores = model.score("t", graphs, HERE)
    assert scores[:6].max() < scores[6:9].min()


def test_network_and_memory_survive_a_file(tmp_path: Path) -> None:
    model, graphs = online(explore=0, steps=5), schedules()
    model.observe("a", graphs, list(seconds(18)), HERE)
    model.observe("b", graphs[:4], [None, 1.0, 2.0, 3.0], HERE)
    model.save(tmp_path / "m.npz")
    again = OnlineRanker(Ranker(SMALL, VECTORS, seed=9), explore=0)
    again.load(tmp_path / "m.npz")
    assert again.measured == model.measured == 22
    np.testing.assert_allclose(again.score("a", graphs, HERE), model.score("a", graphs, HERE), rtol=0.05)
    np.testing.assert_array_equal(again.tasks["b"].log_seconds, model.tasks["b"].log_seconds)
    assert again.tasks["a"].graphs[7].sentences == graphs[7].sentences
    np.testing.assert_array_equal(again.tasks["a"].graphs[7].pairs, graphs[7].pairs)
