"""What the result tables compare LeDG-Former with, behind one interface.

A baseline is fitted to rows of a `costmodel.training.corpus.Corpus` and then predicts any rows of it:

    roofline     the sum of the nodes' roofline times; nothing is fitted
    FLOPs        latency = a · FLOPs + b, fitted per platform
    FLOPs+bytes  latency = a · FLOPs + b · bytes + c, fitted per platform
    trees        gradient-boosted trees on graph statistics and the spec sheet        (needs scikit-learn)
    NN-Former    a transformer whose attention is fixed by the adjacency              (needs torch)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from costmodel.training.corpus import Corpus

if TYPE_CHECKING:
    from costmodel.training.folds import Fold

Predict = Callable[[np.ndarray], np.ndarray]
"""Rows of the corpus (n,) → latency in ms (n,)."""
Fit = Callable[..., Predict]
"""(corpus, training rows, rows that select, seed, options by name) → predictor."""

_HOMES = {
    "roofline": ("analytic", "fit_roofline"),
    "FLOPs": ("analytic", "fit_flops"),
    "FLOPs+bytes": ("analytic", "fit_flops_bytes"),
    "trees": ("trees", "fit"),
    "NN-Former": ("nnformer_fit", "fit"),
}

BASELINES = tuple(_HOMES)


def fit(name: str, corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int = 0, **options: int) -> Predict:
    """The baseline of that name (one of `BASELINES`), fitted.

    train, select  row indices; what is chosen (number of trees, step of training) is chosen on `select`, on `train`
                   where that is empty
    options        of NN-Former: `steps` of training

    Raises KeyError for another name, DataError without training rows, BackendUnavailableError without its package.
    """
    module, function = _HOMES[name]
    fitter: Fit = getattr(importlib.import_module(f"costmodel.baselines.{module}"), function)
    return fitter(corpus, train, select, seed, **options)


def answer(name: str, corpus: Corpus, steps: int | None = None) -> Callable[[Fold, int], np.ndarray]:
    """The baseline as a model of the protocols' tables: (fold, seed) → predictions of `fold.rows.test`; `steps` are of
    NN-Former's training."""
    options = {"steps": steps} if name == "NN-Former" and steps else {}

    def predict(fold: Fold, seed: int) -> np.ndarray:
        return fit(name, corpus, fold.rows.train, fold.rows.val, seed, **options)(fold.rows.test)

    return predict
