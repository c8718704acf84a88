"""Fits a run's `Correction`: what its network leaves over on the platforms that it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from costmodel.baselines.analytic import roofline
from costmodel.baselines.statistics import Statistics
from costmodel.baselines.trees import grow
from costmodel.bundle import ENOUGH
from costmodel.correction import FILE, Correction, Trees, with_answers
from costmodel.training.corpus import Corpus
from costmodel.training.loop import network_rows, predict_rows

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

    from costmodel.training.run import Run


def correction(run: Run) -> Correction | None:
    """Trees grown on a run's training rows, as many as do best on its validation rows; None where none help, and for a
    network without node times. Kept in the run's folder."""
    path = run.trainer.folder / FILE
    if path.exists():
        raw = path.read_bytes()
        return Correction.from_bytes(raw) if raw else None
    found = _fit(run) if run.trainer.config.model.head == "roofline" else None
    path.with_suffix(".new").write_bytes(found.to_bytes() if found else b"")
    path.with_suffix(".new").replace(path)
    return found


def corrected(run: Run, rows: np.ndarray, p: np.ndarray) -> np.ndarray:
    """(n,) the network's answers in ms to rows with the correction, where their platform was measured."""
    at = np.flatnonzero(correctable(run, rows))
    trees = run.correction if len(at) else None
    if trees is None:
        return p
    found = p.copy()
    found[at] *= np.exp(trees.trees(_Features.of(run, trees.sentences)(rows[at], p[at])))
    return found


def correctable(run: Run, rows: np.ndarray) -> np.ndarray:
    """(n,) whether the correction speaks for each row."""
    corpus = run.corpus
    operator = ~np.isin(rows, network_rows(corpus, rows))
    return correctable_platforms(corpus, run.rows.train)[operator.astype(int), corpus.row_platform[rows]]


def correctable_platforms(corpus: Corpus, train: np.ndarray) -> np.ndarray:
    """(2, platforms) whether training has `ENOUGH` networks of each platform, and `ENOUGH` single operators."""
    networks = network_rows(corpus, train)
    counts = [
        np.bincount(corpus.row_platform[own], minlength=len(corpus.platforms))
        for own in (networks, np.setdiff1d(train, networks))
    ]
    return np.stack(counts) >= ENOUGH


def _fit(run: Run) -> Correction | None:
    corpus = run.corpus
    train, val = (rows[correctable(run, rows)] for rows in (run.rows.train, run.rows.val))
    if not len(train) or not len(val):
        return None
    ms = np.zeros(len(corpus.row_ms))
    for rows in (train, val):
        _, p, r = predict_rows(run.network, run.trainer.batches, rows)
        ms[r] = p
    statistics = Statistics.of(corpus, train)
    features = _Features(statistics)
    trees, count = grow(
        corpus, train, val, lambda rows: features(rows, ms[rows]),
        lambda rows: np.log(corpus.row_ms[rows] / ms[rows]), run.trainer.config.seed,
    )  # fmt: skip
    return Correction(tuple(corpus.sentences[i] for i in statistics.sentences), arrays(trees, count)) if count else None


class _Features:
    """What the trees see of rows."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics

    @classmethod
    def of(cls, run: Run, sentences: tuple[str, ...]) -> _Features:
        place = {sentence: i for i, sentence in enumerate(run.corpus.sentences)}
        return cls(Statistics(run.corpus, np.array([place[s] for s in sentences], np.int64)))

    def __call__(self, rows: np.ndarray, ms: np.ndarray) -> np.ndarray:
        bound = roofline(self.statistics.corpus, rows)
        return with_answers(self.statistics(rows), np.log(ms), np.log(bound))


def arrays(trees: HistGradientBoostingRegressor, count: int) -> Trees:
    """The first `count` trees as plain arrays."""
    parts = [iteration[0].nodes for iteration in trees._predictors[:count]]
    nodes = np.concatenate(parts)
    roots = np.cumsum([0, *(len(p) for p in parts[:-1])])
    first, own = np.repeat(roots, [len(p) for p in parts]), np.arange(len(nodes))
    leaf = nodes["is_leaf"].astype(bool)
    return Trees(
        roots.astype(np.int32), np.where(leaf, 0, nodes["feature_idx"]).astype(np.int16),
        np.where(leaf, np.inf, nodes["num_threshold"]).astype(np.float32),
        np.where(leaf, own, first + nodes["left"]).astype(np.int32),
        np.where(leaf, own, first + nodes["right"]).astype(np.int32),
        np.where(leaf, nodes["value"], 0).astype(np.float32), float(np.ravel(trees._baseline_prediction)[0]),
    )  # fmt: skip
