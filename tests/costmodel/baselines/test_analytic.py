from __future__ import annotations

import numpy as np
import pytest

from costmodel.baselines import BASELINES, answer, fit
from costmodel.baselines.analytic import fit_line, ideal_times, line, roofline
from costmodel.estimates import Roofline
from costmodel.metrics import mape
from costmodel.platforms import resolve
from costmodel.training.corpus import Corpus
from tests.costmodel.baselines.conftest import PLATFORMS, network


def test_the_roofline_is_that_of_estimates(corpus: Corpus) -> None:
    rows = np.flatnonzero(corpus.row_batch == 1)[:6]
    for row, ms in zip(rows, roofline(corpus, rows), strict=True):
        width = int(corpus.names[corpus.row_graph[row]].removeprefix("net/"))
        platform = resolve(*PLATFORMS[corpus.row_platform[row]])
        assert ms == pytest.approx(Roofline().estimate(network(width, 1 + width % 5), platform).latency_ms, rel=1e-4)


def test_a_line_finds_its_coefficients_and_no_negative_ones() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(1, 9, (50, 2)), np.ones((50, 1))], 1)
    np.testing.assert_allclose(fit_line(x, x @ [2.0, 0.5, 3.0]), [2.0, 0.5, 3.0], rtol=1e-6)
    assert (fit_line(x, 20 - x[:, 0]) >= 0).all()
    np.testing.assert_allclose(fit_line(x[:, [0, 2]], x @ [2.0, 0.0, 3.0]), [2.0, 3.0], rtol=1e-6)


def test_ideal_times_grow_with_the_batch_but_for_weights(corpus: Corpus) -> None:
    one, many = ideal_times(corpus, np.array([0])), ideal_times(corpus, np.array([1]))
    assert (corpus.row_batch[0], corpus.row_batch[1]) == (1, 16)
    assert many[0, 0] == pytest.approx(16 * one[0, 0], rel=1e-5)
    assert one[0, 1] < many[0, 1] < 16 * one[0, 1]


def test_more_terms_fit_no_worse(corpus: Corpus) -> None:
    rows = np.arange(len(corpus.row_ms))
    errors = [
        float((((fit(name, corpus, rows, rows)(rows) - corpus.row_ms) / corpus.row_ms) ** 2).mean())
        for name in ("FLOPs", "FLOPs+bytes")
    ]
    assert errors[1] <= errors[0] * (1 + 1e-9)
    assert mape(corpus.row_ms, line(corpus, rows, rows)) < 60


def test_a_platform_that_training_lacks_takes_the_line_of_the_others(corpus: Corpus) -> None:
    train, rows = (np.flatnonzero((corpus.row_platform == 1) == out) for out in (False, True))
    for name in ("FLOPs", "FLOPs+bytes"):
        p = fit(name, corpus, train, train)(rows)
        assert np.isfinite(p).all()
        assert (p > 0).all()


def test_a_baseline_answers_folds(corpus: Corpus) -> None:
    pytest.importorskip("torch", reason="folds belong to training, which needs torch")
    from costmodel.training.folds import in_domain

    fold = in_domain(corpus)
    p = answer("FLOPs", corpus)(fold, 0)
    np.testing.assert_array_equal(p, line(corpus, fold.rows.train, fold.rows.test, (0, 2)))


def test_every_name_is_a_baseline() -> None:
    assert BASELINES == ("roofline", "FLOPs", "FLOPs+bytes", "trees", "NN-Former")
    with pytest.raises(KeyError):
        fit("oracle", None, np.zeros(0), np.zeros(0))  # type: ignore[arg-type]
