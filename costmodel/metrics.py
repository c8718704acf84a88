"""Error measures, as the field defines them. All take measured `y` and predicted `p`, both (n,) and positive."""

from __future__ import annotations

import numpy as np


def mape(y: np.ndarray, p: np.ndarray) -> float:
    """Mean absolute percentage error: mean(|p − y| / y), in %."""
    return float(np.mean(np.abs(p - y) / y) * 100)


def accuracy(y: np.ndarray, p: np.ndarray, delta: float = 0.10) -> float:
    """Acc(δ): share of samples whose relative error is at most δ, in %."""
    return float(np.mean(np.abs(p - y) / y <= delta) * 100)


def spearman(y: np.ndarray, p: np.ndarray) -> float:
    """Spearman's rank correlation; ties share their mean rank. NaN when either side is constant."""
    ry, rp = _ranks(y), _ranks(p)
    if ry.std() == 0 or rp.std() == 0:
        return float("nan")
    return float(np.corrcoef(ry, rp)[0, 1])


def _ranks(x: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def summary(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """MAPE, Acc(10 %) and Spearman with the number of samples, rounded for tables."""
    return {
        "n": len(y),
        "mape": round(mape(y, p), 2),
        "acc10": round(accuracy(y, p), 2),
        "spearman": round(spearman(y, p), 4),
    }
