"""Gradient-boosted trees on graph statistics (Friedman 2001), by scikit-learn's histogram implementation."""

from __future__ import annotations

from itertools import islice

import numpy as np

from costmodel.baselines import Predict
from costmodel.baselines.analytic import roofline
from costmodel.baselines.statistics import Statistics
from costmodel.errors import BackendUnavailableError, DataError
from costmodel.training.corpus import Corpus

MOST_TREES, LEAVES, RATE = 600, 63, 0.08
MOST_SELECTING = 5000
MOST_PER_SOURCE = 10_000
"""Training rows of one source that trees are grown on."""


def fit(corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int) -> Predict:
    """Trees for the log-ratio of the latency to the roofline; how many is chosen on `select`.

    The ratio, not the latency: trees cannot reach beyond the latencies that they were fitted to.
    Raises BackendUnavailableError without scikit-learn, DataError without training rows.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise BackendUnavailableError("the trees need scikit-learn; pip install 'ledg-cost[train]'") from error
    if not len(train):
        raise DataError("no rows to fit trees to; measure some networks of the training side first")
    order = np.random.default_rng(seed).permutation(train)
    source = corpus.row_source[order]
    train = np.concatenate([order[source == s][:MOST_PER_SOURCE] for s in np.unique(source)])
    statistics = Statistics.of(corpus, train)
    trees = HistGradientBoostingRegressor(
        max_iter=MOST_TREES, learning_rate=RATE, max_leaf_nodes=LEAVES, min_samples_leaf=min(20, 1 + len(train) // 20),
        l2_regularization=1.0, early_stopping=False, random_state=seed,
    )  # fmt: skip
    trees.fit(*_pairs(corpus, statistics, train))
    rows = np.random.default_rng(seed).permutation(select if len(select) else train)[:MOST_SELECTING]
    x, y = _pairs(corpus, statistics, rows)
    errors = [float(np.abs(p - y).mean()) for p in trees.staged_predict(x)]
    best = int(np.argmin(errors))

    def predict(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0)
        ratio = next(islice(trees.staged_predict(statistics(rows)), best, None))
        return roofline(corpus, rows) * np.exp(ratio)

    return predict


def _pairs(corpus: Corpus, statistics: Statistics, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, f) and log-ratios of measured latency to roofline (n,)."""
    return statistics(rows), np.log(corpus.row_ms[rows] / roofline(corpus, rows))
