from __future__ import annotations

import sys

import numpy as np
import pytest

from costmodel.baselines import fit
from costmodel.baselines.analytic import roofline
from costmodel.baselines.statistics import Statistics, totals
from costmodel.errors import BackendUnavailableError, DataError
from costmodel.metrics import mape
from costmodel.training.corpus import Corpus


def halves(corpus: Corpus) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every other network."""
    odd = corpus.row_graph % 2 == 1
    return np.flatnonzero(odd), np.flatnonzero(~odd)


def test_totals_are_sums_at_the_rows_batch(corpus: Corpus) -> None:
    rows = np.arange(12)
    for row, total in zip(rows, totals(corpus, rows), strict=True):
        g = corpus.row_graph[row]
        own = corpus.columns[corpus.node_start[g] : corpus.node_start[g + 1]].sum(0, dtype=np.float64)
        assert total[0] == pytest.approx(own[0] * corpus.row_batch[row], rel=1e-6)  # flops
        assert total[7] == pytest.approx(own[7], rel=1e-6)  # weights


def test_statistics_tell_networks_batches_and_platforms_apart(corpus: Corpus) -> None:
    rows = np.arange(24)
    x = Statistics.of(corpus, rows)(rows)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    assert len(np.unique(x, axis=0)) == len(rows)
    np.testing.assert_array_equal(Statistics.of(corpus, rows)(rows[::-1]), x[::-1])


def test_operators_that_training_lacks_share_one_count(corpus: Corpus) -> None:
    rows = np.arange(6)
    statistics = Statistics.of(corpus, rows)
    _, _, counts = statistics._graphs(np.array([0]))
    assert counts[0, -1] == 0
    none = Statistics(corpus, statistics.sentences[:1])
    _, _, counts = none._graphs(np.array([0]))
    assert counts[0].sum() == corpus.node_start[1] - corpus.node_start[0]
    assert counts[0, -1] > 0


def test_trees_learn_what_the_roofline_misses(corpus: Corpus) -> None:
    pytest.importorskip("sklearn", reason="the trees need scikit-learn")
    train, rows = halves(corpus)
    y = corpus.row_ms[rows]
    trees = fit("trees", corpus, train, rows[:30])
    p = trees(rows)
    assert mape(y, p) < 15
    assert mape(y, p) < mape(y, roofline(corpus, rows)) / 2
    np.testing.assert_array_equal(trees(rows[::-1]), p[::-1])
    np.testing.assert_array_equal(fit("trees", corpus, train, rows[:30])(rows), p)
    assert trees(rows[:0]).shape == (0,)


def test_what_is_missing_is_named(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.zeros(0, np.int64)
    if "sklearn" in sys.modules:
        with pytest.raises(DataError, match="no rows"):
            fit("trees", corpus, none, none)
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(BackendUnavailableError, match=r"ledg-cost\[train\]"):
        fit("trees", corpus, none, none)
