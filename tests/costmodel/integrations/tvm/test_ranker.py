"""The ranking network learns an order, and its file holds all of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed; pip install 'ledg-cost[tvm]'")

from costmodel.errors import BundleVersionError, CorruptBundleError
from costmodel.integrations.tvm.loops import LoopGraph, read
from costmodel.integrations.tvm.memory import Task
from costmodel.integrations.tvm.ranker import Ranker, RankerConfig
from costmodel.loopwords import loop_language
from tests.costmodel.integrations.tvm.loop_graphs import matmul

HERE = np.zeros(8, np.float32)
VECTORS = {s: np.random.default_rng(i).normal(size=16).astype(np.float32) for i, s in enumerate(loop_language())}
SMALL = RankerConfig(width=16, layers=1, heads=2, members=2, hidden=16, text_width=16)


def schedules() -> list[LoopGraph]:
    """Eighteen schedules of one product."""
    orders = ("ijk", "ikj", "jik", "jki", "kij", "kji")
    kinds = (("parallel", "serial", "serial"), ("serial", "serial", "vectorized"), ("serial", "unrolled", "serial"))
    return read([matmul(order, kind) for order in orders for kind in kinds])


def seconds(count: int) -> np.ndarray:
    """Times that go against the baseline: nothing but the order of the loops matters."""
    return np.repeat([1.0, 2.0, 4.0, 8.0, 16.0, 32.0], 3)[:count] * 1e-3


def test_untrained_it_prefers_vector_and_parallel_loops() -> None:
    slow, wide = read([matmul("ikj", ("serial",) * 3), matmul("ikj", ("serial", "serial", "vectorized"))])
    out = Ranker(SMALL, VECTORS).predict([slow, wide], HERE)
    assert out.shape == (2, 2)
    assert (out[:, 0] - out[:, 1] > 2).all()


def test_it_learns_the_order_and_the_members_differ() -> None:
    graphs, ranker = schedules(), Ranker(SMALL, VECTORS)
    task = Task(HERE, graphs, list(np.log(seconds(18))))
    before = ranker.predict(graphs, HERE).mean(0)
    ranker.fit([task], steps=150, rate=5e-3)
    after = ranker.predict(graphs, HERE)
    truth = np.log(seconds(18))
    assert np.corrcoef(after.mean(0), truth)[0, 1] > 0.95
    assert np.corrcoef(before, truth)[0, 1] < 0.5
    assert after.std(0).max() > 0
    assert not np.allclose(after[0] - after[0].mean(), after[1] - after[1].mean(), atol=1e-3)


def test_one_candidate_scores_alike_in_any_company() -> None:
    graphs, ranker = schedules(), Ranker(SMALL, VECTORS)
    ranker.fit([Task(HERE, graphs, list(np.log(seconds(18))))], steps=10)
    together = ranker.predict(graphs, HERE)
    apart = np.concatenate([ranker.predict([g], HERE) for g in graphs], 1)
    np.testing.assert_allclose(together, apart, atol=1e-4)
    np.testing.assert_allclose(together, ranker.predict(graphs, HERE, chunk=5), atol=1e-4)
    assert ranker.predict([], HERE).shape == (2, 0)


def test_saved_and_loaded_it_answers_the_same(tmp_path: Path) -> None:
    graphs, ranker = schedules(), Ranker(SMALL, VECTORS)
    ranker.fit([Task(HERE, graphs, list(np.log(seconds(18))))], steps=5)
    ranker.summary = {"workloads": 1}
    ranker.save(tmp_path / "r.npz", extra=np.arange(3))
    again, more = Ranker.load(tmp_path / "r.npz")
    assert again.summary == {"workloads": 1}
    assert more["extra"].tolist() == [0, 1, 2]
    np.testing.assert_allclose(again.predict(graphs, HERE), ranker.predict(graphs, HERE), atol=2e-2)  # fp16 sentences


def test_files_that_are_not_a_ranker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(CorruptBundleError, match="retrain it"):
        Ranker.load(path)
    with pytest.raises(CorruptBundleError, match="retrain it"):
        Ranker.load(tmp_path / "missing.npz")
    Ranker(SMALL, VECTORS).save(path)
    monkeypatch.setattr("costmodel.integrations.tvm.ranker.LOOP_FEATURES", 1)
    with pytest.raises(BundleVersionError, match="other features"):
        Ranker.load(path)
