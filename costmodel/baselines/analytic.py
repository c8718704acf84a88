"""The roofline as it is, and lines fitted to FLOPs and bytes."""

from __future__ import annotations

from functools import partial
from itertools import combinations

import numpy as np

from costmodel import aggregates
from costmodel.baselines import Predict
from costmodel.baselines.statistics import totals
from costmodel.features import platform_rates, rescale, roofline_times
from costmodel.platforms import resolve
from costmodel.training.corpus import Corpus

FLOPS, BYTES, CONSTANT = 0, 1, 2
ENOUGH, MOST = 10, 4000
"""Rows of a platform from which a line is fitted, and how many of them at most."""


def fit_roofline(corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int) -> Predict:
    """`roofline` as a baseline."""
    return partial(roofline, corpus)


def fit_flops(corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int) -> Predict:
    """`line` through FLOPs alone as a baseline."""
    return partial(line, corpus, train, terms=(FLOPS, CONSTANT))


def fit_flops_bytes(corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int) -> Predict:
    """`line` through FLOPs and bytes as a baseline."""
    return partial(line, corpus, train)


def roofline(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """(n,) latency in ms of each row: the sum of its nodes' roofline times."""
    rates = [platform_rates(resolve(*p)) for p in corpus.platforms]
    return np.array(
        [
            np.exp(roofline_times(_columns(corpus, r), rates[corpus.row_platform[r]])[:, -1]).sum(dtype=np.float64)
            for r in rows
        ]
    )


def _columns(corpus: Corpus, row: int) -> np.ndarray:
    g = corpus.row_graph[row]
    columns = corpus.columns[corpus.node_start[g] : corpus.node_start[g + 1]]
    return rescale(columns, corpus.row_batch[row] / corpus.batch[g])


def ideal_times(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """(n, 3): whole-graph FLOPs over peak and bytes over bandwidth, both in ms, and 1."""
    rates = np.stack([platform_rates(resolve(*p)) for p in corpus.platforms])[corpus.row_platform[rows]]
    total = totals(corpus, rows)
    return np.stack([*aggregates.ideal_times(total, rates).T[:2], np.ones(len(rows))], 1)


def fit_line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Non-negative coefficients (k,) of the least squared relative error Σ ((x·c − y) / y)²; exact, by active sets."""
    scaled = x / y[:, None]
    best, error = np.zeros(x.shape[1]), np.inf
    for size in range(1, x.shape[1] + 1):
        for chosen in combinations(range(x.shape[1]), size):
            part, *_ = np.linalg.lstsq(scaled[:, chosen], np.ones(len(y)), rcond=None)
            residual = float(((scaled[:, chosen] @ part - 1) ** 2).sum())
            if (part >= 0).all() and residual < error:
                best, error = np.zeros(x.shape[1]), residual
                best[list(chosen)] = part
    return best


def line(
    corpus: Corpus, train: np.ndarray, rows: np.ndarray, terms: tuple[int, ...] = (FLOPS, BYTES, CONSTANT)
) -> np.ndarray:
    """(n,) latency in ms by the line: fitted to the row's own platform and source where training has it.

    A platform that training lacks takes the line of its source over all platforms, or of everything, in units of the
    spec sheet's FLOPs and bandwidth, so that it transfers. `terms` are the columns of `ideal_times` that are used.
    """
    answer = np.full(len(rows), np.nan)
    pools = (
        corpus.row_source * len(corpus.platforms) + corpus.row_platform,
        corpus.row_source,
        np.zeros(len(corpus.row_source), np.int64),
    )
    left = np.ones(len(rows), bool)
    rng = np.random.default_rng(0)
    for keys in pools:
        for key in np.unique(keys[rows[left]]) if left.any() else ():
            own = train[keys[train] == key]
            here = left & (keys[rows] == key)
            if len(own) < ENOUGH:
                continue
            own = rng.permutation(own)[:MOST]
            coefficients = fit_line(ideal_times(corpus, own)[:, terms], corpus.row_ms[own])
            answer[here] = ideal_times(corpus, rows[here])[:, terms] @ coefficients
            left &= ~here
    return answer
