"""Which adapter: repeated cross-validation on the samples. The best one, unless the model as it is, or but for one
factor, is as good."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from costmodel.finetune import adapters
from costmodel.finetune.adapters import Adapter
from costmodel.finetune.head import Head
from costmodel.finetune.readings import Readings

Say = Callable[[str], None]

FOLDS = 5
MANY = 100
"""Samples from which one round of folds is enough, and hyperparameters are those of all samples."""

SIMPLE = ("none", "scale")
"""Kinds that stand where no other is surely better."""

COVERAGE = 0.9
UNEXPLAINED = 0.7
"""Median |ln(measured / predicted)|, a factor of two, beyond which no adapter is believed."""


@dataclass(frozen=True)
class Score:
    """Cross-validated errors of one kind: `mape` in %, `residual` (N,) mean ln(measured / predicted) of each sample."""

    kind: str
    mape: float
    residual: np.ndarray

    @property
    def error(self) -> np.ndarray:
        """(N,) |ln(measured / predicted)|."""
        return np.abs(self.residual)


@dataclass(frozen=True)
class Choice:
    """The chosen adapter, its score and all scores, and the half-width of its interval in ln."""

    adapter: Adapter
    score: Score
    scores: tuple[Score, ...]
    half_width: float


def choose(
    readings: Readings,
    log_measured: np.ndarray,
    kinds: Sequence[str] = adapters.KINDS,
    released: Head | None = None,
    say: Say = lambda line: None,
) -> Choice:
    """Fits and compares adapters of `kinds`, simplest first, for ln of measured ms (N,); `released` is the bundle's
    head, from which `head` starts."""
    fitted: dict[str, Adapter] = {}
    scores: list[Score] = []
    for kind in kinds:
        fitted[kind] = adapters.fit(kind, readings, log_measured, released=released)
        scores.append(_validate(kind, readings, log_measured, fitted[kind], released))
        say(f"{kind}: cross-validated MAPE {scores[-1].mape:.1f} %")
    score = pick(scores)
    return Choice(fitted[score.kind], score, tuple(scores), conformal(score.error))


def pick(scores: Sequence[Score]) -> Score:
    """The score with the least mean error, or the first of `SIMPLE` that is within one standard error of it.

    The standard error is that of the difference on the same samples (Breiman et al. 1984 for the rule). Where even the
    best is off by a factor of two at the median, the samples follow no adapter and the first score stands.
    """
    best = min(scores, key=lambda s: float(s.error.mean()))
    if np.median(best.error) > UNEXPLAINED:
        return scores[0]
    for score in (s for s in scores if s.kind in SIMPLE):
        excess = score.error - best.error
        if excess.mean() <= excess.std(ddof=1) / np.sqrt(len(excess)):
            return score
    return best


def conformal(error: np.ndarray, coverage: float = COVERAGE) -> float:
    """The ⌈(n+1)·coverage⌉-th smallest of the errors (N,), as for a split-conformal interval (Lei et al. 2018); the
    largest where there are too few."""
    ordered = np.sort(error)
    return float(ordered[min(int(np.ceil((len(ordered) + 1) * coverage)), len(ordered)) - 1])


def _validate(kind: str, readings: Readings, log_measured: np.ndarray, whole: Adapter, released: Head | None) -> Score:
    n = len(readings)
    rounds = 1 if n >= MANY or n <= FOLDS else 3
    total = np.zeros(n)
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(n)
        for held in np.array_split(order, min(FOLDS, n)):
            rest = np.setdiff1d(order, held)
            like = whole if n >= MANY else None
            part = adapters.fit(kind, readings.take(rest), log_measured[rest], like, released)
            total[held] += log_measured[held] - part.log_ms(readings.take(held))
    residual = total / rounds
    return Score(kind, float(np.mean(np.abs(np.expm1(-residual))) * 100), residual)
