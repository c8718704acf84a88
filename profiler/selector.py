"""Which networks to measure first on a new device: those that tell most about all the others.

What measurements will correct is ln(measured / predicted). Before any is made it is taken for a Gaussian process over
the pool: a constant (how fast the device is as a whole), a slope in ln of the predicted time, a factor for each class
of operators in proportion to its share of that time, and a smooth remainder over graph vector and position. Each pick
lowers the variance summed over the whole pool most, given those before (active learning by expected variance, Cohn,
Ghahramani and Jordan 1996); so the first ten of fifty picks are the ten that alone would have been picked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SLOPE, SHARES, REMAINDER = 0.3, 2.0, 0.2
"""Standard deviations in ln of the slope (per standard deviation of the pool), class factors and smooth remainder. The
constant has 1."""

NOISE = 0.2
"""Standard deviation of a measurement in ln, with what no component explains."""

LIMITS = 3
"""What binds an operator: compute, memory, launch."""

COMPONENTS = 16
"""Principal components of the graph vectors that count."""

REFERENCE = 2000
"""Networks whose variance is summed; of larger pools a random part."""


def select(
    vectors: np.ndarray, positions: np.ndarray, count: int, seed: int = 0, measured: Sequence[int] = ()
) -> np.ndarray:
    """Indices (count,) of the networks to measure, the most telling first; all of them if there are no more.

    vectors    (n, d) graph vectors of the pool
    positions  (n, k) as from `positions`
    measured   indices known already; they are not picked again

    Deterministic; `seed` chooses the part of a pool above REFERENCE whose variance counts. Raises ValueError if the
    arrays do not match.
    """
    if vectors.ndim != 2 or positions.ndim != 2 or len(vectors) != len(positions):
        raise ValueError(f"vectors {vectors.shape} and positions {positions.shape} must be (n, d) and (n, k)")
    n = len(vectors)
    linear, smooth = _linear(positions.astype(np.float64)), _smooth(vectors.astype(np.float64), positions)
    reference = np.sort(np.random.default_rng(seed).permutation(n)[:REFERENCE])
    between = _covariance(linear, smooth, reference)
    variance = 1 + (linear**2).sum(1) + REMAINDER**2
    factors = np.zeros((0, n))
    known, picks = set(map(int, measured)), [int(i) for i in measured]
    while len(picks) < min(len(measured) + count, n):
        at = len(factors)
        if at < len(measured):
            best = picks[at]
        else:
            gain = (between**2).sum(0) / (variance + NOISE**2)
            gain[list(known)] = -1.0
            best = int(gain.argmax())
            known.add(best)
            picks.append(best)
        row = _covariance(linear, smooth, np.array([best]))[0] - factors[:, best] @ factors
        row /= np.sqrt(max(row[best], 0.0) + NOISE**2)
        factors = np.vstack([factors, row])
        between -= np.outer(row[reference], row)
        variance = np.maximum(variance - row**2, 0.0)
    return np.array(picks[len(measured) :], np.int64)


def positions(
    log_ms: np.ndarray, shares: np.ndarray, node_ms: np.ndarray, times: np.ndarray, start: np.ndarray
) -> np.ndarray:
    """(n, 1 + C + 3) where networks stand: ln of their predicted latency, shares of it by operator class, and shares by
    what binds the nodes.

    log_ms   (n,)    ln of predicted ms
    shares   (n, C)  share of that time in each operator class
    node_ms  (R,)    predicted time of each node, the nodes of a network together
    times    (R, 3)  roofline times of each node: compute, memory, launch (Williams et al. 2009)
    start    (n+1,)  first node of each network; none is without nodes
    """
    bound = node_ms[:, None] * (times.argmax(1)[:, None] == np.arange(LIMITS))
    by_limit = np.add.reduceat(bound, start[:-1])
    by_limit /= np.maximum(by_limit.sum(1, keepdims=True), 1e-300)
    return np.concatenate([log_ms[:, None], shares, by_limit], 1)


def _linear(positions: np.ndarray) -> np.ndarray:
    """(n, k) features whose inner product is the covariance of slope and class factors."""
    centred = positions - positions.mean(0)
    return np.concatenate([SLOPE * _unit(centred[:, :1]), SHARES * centred[:, 1:-LIMITS]], 1)


def _smooth(vectors: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(n, m) features in which the remainder is smooth."""
    size, shares, limits = positions[:, :1], np.sqrt(positions[:, 1:-LIMITS]), positions[:, -LIMITS:]
    parts = _unit(size - size.mean(0)), _unit(shares - shares.mean(0)), _unit(limits - limits.mean(0)) / 2
    return np.concatenate([*parts, _unit(_principal(vectors))], 1)


def _unit(centred: np.ndarray) -> np.ndarray:
    """Scaled to a mean square length of one."""
    length = np.sqrt((centred**2).sum(1).mean())
    return centred / length if length > 1e-12 else centred


def _principal(vectors: np.ndarray) -> np.ndarray:
    u, s, _ = np.linalg.svd(vectors - vectors.mean(0), full_matrices=False)
    return (u * s)[:, :COMPONENTS]


def _covariance(linear: np.ndarray, smooth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(len(rows), n) prior covariance of some networks with all."""
    near = smooth[rows]
    squared = (near**2).sum(1)[:, None] + (smooth**2).sum(1)[None] - 2 * near @ smooth.T
    return 1 + linear[rows] @ linear.T + REMAINDER**2 * np.exp(-np.maximum(squared, 0) / 2)
