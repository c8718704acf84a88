"""Trees as plain arrays, and what they are told of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from costmodel.correction import BLOCK, Correction, Trees, with_answers
from costmodel.features import extract
from tests.costmodel.test_features import small_net


def some_trees(rng: np.random.Generator, features: int, trees: int = 7, depth: int = 4) -> Trees:
    """Full binary trees with random splits."""
    size = 2 ** (depth + 1) - 1
    place = np.arange(size)
    leaf = np.tile(2 * place + 2 >= size, trees)
    roots = np.arange(trees) * size
    own, base = np.arange(trees * size), np.repeat(roots, size)
    child = 2 * np.tile(place, trees) + 1
    return Trees(
        roots.astype(np.int32), rng.integers(0, features, len(own)).astype(np.int16),
        np.where(leaf, np.inf, rng.normal(size=len(own))).astype(np.float32),
        np.where(leaf, own, base + child).astype(np.int32), np.where(leaf, own, base + child + 1).astype(np.int32),
        np.where(leaf, rng.normal(size=len(own)), 0).astype(np.float32), 0.5,
    )  # fmt: skip


def descend(trees: Trees, row: np.ndarray) -> float:
    total = trees.base
    for node in trees.roots:
        while trees.left[node] != node:
            node = trees.left[node] if row[trees.feature[node]] <= trees.threshold[node] else trees.right[node]
        total += float(trees.value[node])
    return total


def test_rows_descend_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    trees, x = some_trees(rng, 5), rng.normal(size=(BLOCK + 3, 5)).astype(np.float32)
    np.testing.assert_allclose(trees(x), [descend(trees, row) for row in x], rtol=1e-6)
    assert trees(x[:0]).shape == (0,)


def test_scikit_learns_trees_survive_as_arrays_and_on_the_disk() -> None:
    ensemble = pytest.importorskip("sklearn.ensemble", reason="the trees are grown by scikit-learn")
    pytest.importorskip("torch", reason="training needs torch; install the dev extra")
    from costmodel.training.correct import arrays

    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + np.sign(x[:, 2])
    grown = ensemble.HistGradientBoostingRegressor(loss="absolute_error", max_iter=30, early_stopping=False).fit(x, y)
    staged = list(grown.staged_predict(x))
    for count in (1, 30):
        found = Correction.from_bytes(Correction(("Conv 3×3", "Relu"), arrays(grown, count)).to_bytes())
        np.testing.assert_allclose(found.trees(x), staged[count - 1], atol=1e-5)
        assert found.sentences == ("Conv 3×3", "Relu")


def test_a_graph_is_told_by_its_totals_and_operators() -> None:
    features = extract(small_net(4))
    named = features.sentences[0]
    whole = Correction((named, "nothing of the kind"), some_trees(np.random.default_rng(0), 3)).whole(features)
    assert whole.counts.tolist() == [
        features.sentences.count(named), 0, len(features) - features.sentences.count(named),
    ]  # fmt: skip
    np.testing.assert_allclose(whole.sums, features.columns.sum(0), rtol=1e-6)
    np.testing.assert_array_equal(whole.largest, features.columns.max(0))
    assert whole.batch == 4


def test_answers_stand_behind_what_is_told() -> None:
    found = with_answers(np.zeros((2, 3)), np.array([1.0, 2.0]), np.array([0.5, 4.0]))
    assert found.tolist() == [[0, 0, 0, 0.5, 1.0], [0, 0, 0, -2.0, 2.0]]
    assert found.dtype == np.float32
