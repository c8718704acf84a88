"""The result table of the split: unseen graphs, and unseen graphs on unseen devices, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.baselines import fit
from costmodel.baselines.analytic import line, roofline
from costmodel.metrics import summary
from costmodel.training.calibration import AS_TOLD, UnseenReading, calibrate, half_widths, roofline_shares
from costmodel.training.corpus import Corpus
from costmodel.training.loop import Rows, thin
from costmodel.training.run import Run
from costmodel.training.tables import in_order, interval, spread
from costmodel.training.tables import markdown as rows_of

MOST_ROWS = 3000
"""Test rows of each source (all rows of graphs drawn by a fixed seed); keeps the evaluation on two cores short."""


def groups(corpus: Corpus, rows: np.ndarray, by_device: bool) -> Iterator[tuple[str, np.ndarray]]:
    """(name, positions in `rows`) of each source, or each device and source."""
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform[rows]]
    source = np.array(corpus.sources)[corpus.row_source[rows]]
    keys = np.char.add(np.char.add(device, " · "), source) if by_device else source
    for key in np.unique(keys):
        yield str(key), np.flatnonzero(keys == key)


def split_table(runs: Mapping[str, Sequence[Run]], elsewhere: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Figures per source for every model; learned models with the mean and spread over their seeds.

    elsewhere  what other protocols measured, as in `calibrate`
    """
    first = next(iter(runs.values()))[0]
    corpus, rows = first.corpus, first.rows
    calibrated = {name: [(run, calibrate(run, elsewhere)) for run in seeds] for name, seeds in runs.items()}
    trees = fit("trees", corpus, rows.train, rows.val)
    table: dict[str, Any] = {}
    for part, chosen, by_device in _parts(corpus, rows):
        y = corpus.row_ms[chosen]
        answers: dict[str, list[tuple[np.ndarray, np.ndarray | None]]] = {
            "roofline": [(roofline(corpus, chosen), None)],
            "line": [(line(corpus, rows.train, chosen), None)],
            "trees": [(trees(chosen), None)],
        }
        for name, learned in calibrated.items():
            answers[name] = [_answers(run, chosen, by_device, found) for run, found in learned]
        table[part] = {
            group: {
                name: spread(
                    [
                        summary(y[at], p[at]) | interval(y[at], p[at], None if half is None else half[at])
                        for p, half in seeds
                    ]
                )
                for name, seeds in answers.items()
            }
            for group, at in groups(corpus, chosen, by_device)
        }
    return table


def _parts(corpus: Corpus, rows: Rows) -> Iterator[tuple[str, np.ndarray, bool]]:
    yield "unseen graphs", thin(corpus, rows.test, MOST_ROWS), False
    yield "unseen graphs on unseen devices", thin(corpus, rows.test_device, MOST_ROWS), True


def _answers(run: Run, rows: np.ndarray, unseen: bool, found: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (n,) of rows and the half-widths (n,) of their intervals; unseen platforms are read as validation
    read them best, which the calibration `found`."""
    hidden = run.trainer.config.augmentation.generic > 0
    reading = UnseenReading.of(found) if unseen and hidden else AS_TOLD
    share = roofline_shares(run, found) if hidden else None
    return in_order(run, rows, reading, share), half_widths(run, found, rows)


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown: MAPE / Acc(10 %) / Spearman per model."""
    return "\n".join(line for part, rows in table.items() for line in (f"**{part}**", "", *rows_of(rows, "source"), ""))
