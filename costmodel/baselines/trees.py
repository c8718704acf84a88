"""Gradient-boosted trees on graph statistics (Friedman 2001), by scikit-learn's histogram implementation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from costmodel.baselines import Predict
from costmodel.baselines.analytic import roofline
from costmodel.baselines.statistics import Statistics
from costmodel.errors import BackendUnavailableError, DataError
from costmodel.training.corpus import Corpus

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

MOST_TREES, LEAVES, DEPTH, RATE = 500, 127, 12, 0.1
MOST_SELECTING = 5000
"""Rows of each source that select the number of trees."""


def fit(corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int) -> Predict:
    """Trees for the log-ratio of the latency to the roofline; how many is chosen on `select`.

    The ratio, not the latency: trees cannot reach beyond the latencies that they were fitted to.
    Raises BackendUnavailableError without scikit-learn, DataError without training rows.
    """
    statistics = Statistics.of(corpus, train)

    def ratios(rows: np.ndarray) -> np.ndarray:
        return np.log(corpus.row_ms[rows] / roofline(corpus, rows))

    trees, count = grow(corpus, train, select if len(select) else train, statistics, ratios, seed)

    def predict(rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.zeros(0)
        ratio = next(islice(trees.staged_predict(statistics(rows)), count - 1, None)) if count else 0.0
        return np.asarray(roofline(corpus, rows) * np.exp(ratio))

    return predict


def grow(
    corpus: Corpus, train: np.ndarray, select: np.ndarray, features: Callable[[np.ndarray], np.ndarray],
    target: Callable[[np.ndarray], np.ndarray], seed: int,
) -> tuple[HistGradientBoostingRegressor, int]:  # fmt: skip
    """Trees for the targets (n,) of rows from their features (n, f), and how many of them do best on `select`.

    A source weighs by the square root of its rows, so that the largest does not decide everything; errors are absolute,
    and on `select` every source counts alike. Raises BackendUnavailableError without scikit-learn, DataError without
    training rows.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise BackendUnavailableError("the trees need scikit-learn; pip install 'ledg-cost[train]'") from error
    if not len(train):
        raise DataError("no rows to fit trees to; measure some networks of the training side first")
    _, source, rows = np.unique(corpus.row_source[train], return_inverse=True, return_counts=True)
    weight = rows[source] ** -0.5
    trees = HistGradientBoostingRegressor(
        loss="absolute_error", max_iter=MOST_TREES, learning_rate=RATE, max_leaf_nodes=LEAVES, max_depth=DEPTH,
        min_samples_leaf=min(20, 1 + len(train) // 20), l2_regularization=1.0, early_stopping=False, random_state=seed,
    )  # fmt: skip
    trees.fit(features(train), target(train), sample_weight=weight / weight.mean())
    select = np.random.default_rng(seed).permutation(select)
    source = corpus.row_source[select]
    select = np.concatenate([select[source == s][:MOST_SELECTING] for s in np.unique(source)])
    source, wanted = corpus.row_source[select], target(select)

    def distance(found: np.ndarray) -> float:
        off = np.abs(found - wanted)
        return float(np.mean([off[source == s].mean() for s in np.unique(source)]))

    errors = [distance(np.zeros(len(select))), *(distance(p) for p in trees.staged_predict(features(select)))]
    return trees, int(np.argmin(errors))
