"""Trees for what a trained network leaves over, on a tiny made-up corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch; install the dev extra")
pytest.importorskip("sklearn", reason="the trees are grown by scikit-learn")

from costmodel.baselines.analytic import roofline
from costmodel.correction import FILE
from costmodel.features import extract, platform_channel, platform_rates
from costmodel.metrics import mape
from costmodel.platforms import resolve
from costmodel.training.batches import Batches
from costmodel.training.calibration import AS_TOLD, unseen_answers
from costmodel.training.corpus import Corpus
from costmodel.training.correct import correctable, corrected
from costmodel.training.loop import Trainer
from costmodel.training.run import Run
from costmodel.training.tables import in_order
from tests.costmodel.training.test_loop import TINY, batches, corpus, net, quiet  # noqa: F401


@pytest.fixture
def run(batches: Batches, tmp_path: Path) -> Run:  # noqa: F811
    trainer = Trainer(replace(TINY, steps=2, evaluate_every=1), batches, tmp_path, quiet)
    return Run(trainer, trainer.run(), batches.corpus)


def test_measured_platforms_are_corrected_and_others_stay(run: Run, corpus: Corpus) -> None:  # noqa: F811
    known = correctable(run, run.rows.test)
    assert known.all()
    assert len(known)
    assert len(run.rows.test_device)
    assert not correctable(run, run.rows.test_device).any()
    y, plain = corpus.row_ms[run.rows.test], unseen_answers(run, run.rows.test, AS_TOLD)
    assert mape(y, in_order(run, run.rows.test)) < 0.7 * mape(y, plain)
    device = unseen_answers(run, run.rows.test_device, AS_TOLD)
    np.testing.assert_array_equal(in_order(run, run.rows.test_device), device)
    np.testing.assert_array_equal(in_order(replace(run, corrects=False), run.rows.test), plain)


def test_trees_are_kept_beside_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = in_order(run, run.rows.test)
    assert (run.trainer.folder / FILE).exists()
    monkeypatch.setattr("costmodel.training.correct.grow", None)  # growing again would fail
    np.testing.assert_allclose(in_order(replace(run), run.rows.test), first, rtol=1e-6)


def test_trees_of_other_weights_are_not_kept(run: Run, batches: Batches) -> None:  # noqa: F811
    assert run.correction is not None
    kept = run.trainer.folder / FILE
    assert kept.exists()
    Trainer(replace(TINY, steps=3, evaluate_every=1), batches, run.trainer.folder, quiet).run()
    assert not kept.exists()


def test_where_trees_do_not_help_nothing_changes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from costmodel.training import correct

    grow = correct.grow
    monkeypatch.setattr(correct, "grow", lambda *args: (grow(*args)[0], 0))
    assert run.correction is None
    assert replace(run).correction is None
    np.testing.assert_array_equal(in_order(run, run.rows.test), unseen_answers(run, run.rows.test, AS_TOLD))


def test_inference_tells_the_trees_what_training_told_them(run: Run, corpus: Corpus) -> None:  # noqa: F811
    rows = run.rows.test[:12]
    plain = unseen_answers(run, rows, AS_TOLD)
    expected = np.log(corrected(run, rows, plain) / plain)
    assert np.abs(expected).max() > 0.01
    found = []
    for row, ms, bound in zip(rows, plain, roofline(corpus, rows), strict=True):
        width = int(corpus.names[corpus.row_graph[row]].split("/")[1])
        features = extract(net(width, 1 + width % 5, int(corpus.row_batch[row])))
        platform = resolve(*corpus.platforms[corpus.row_platform[row]])
        whole = run.correction.whole(features)
        found += run.correction(
            [whole], platform_rates(platform)[None], platform_channel(platform)[None], np.log([ms]), np.log([bound])
        ).tolist()
    np.testing.assert_allclose(found, expected, atol=1e-5)
