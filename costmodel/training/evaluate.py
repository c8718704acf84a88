"""The result table of the split: unseen graphs, and unseen graphs on unseen devices, beside the baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from costmodel.metrics import summary
from costmodel.training.baselines import line, roofline
from costmodel.training.corpus import Corpus
from costmodel.training.loop import Rows, predict_rows, thin
from costmodel.training.run import Run, calibrate

MOST_ROWS = 3000
"""Test rows of each source (all rows of graphs drawn by a fixed seed); keeps the evaluation on two cores short."""


def groups(corpus: Corpus, rows: np.ndarray, by_device: bool) -> Iterator[tuple[str, np.ndarray]]:
    """(name, positions in `rows`) of each source, or each device and source."""
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform[rows]]
    source = np.array(corpus.sources)[corpus.row_source[rows]]
    keys = np.char.add(np.char.add(device, " · "), source) if by_device else source
    for key in np.unique(keys):
        yield str(key), np.flatnonzero(keys == key)


def split_table(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Figures per source for every model; learned models with the mean and spread over their seeds."""
    first = next(iter(runs.values()))[0]
    corpus, rows = first.corpus, first.rows
    table: dict[str, Any] = {}
    for part, chosen, by_device in _parts(corpus, rows):
        y = corpus.row_ms[chosen]
        answers: dict[str, list[np.ndarray]] = {
            "roofline": [roofline(corpus, chosen)],
            "line": [line(corpus, rows.train, chosen)],
        }
        for name, seeds in runs.items():
            answers[name] = [_in_order(run, chosen, by_device) for run in seeds]
        table[part] = {
            group: {name: _spread([summary(y[at], p[at]) for p in seeds]) for name, seeds in answers.items()}
            for group, at in groups(corpus, chosen, by_device)
        }
    return table


def _parts(corpus: Corpus, rows: Rows) -> Iterator[tuple[str, np.ndarray, bool]]:
    yield "unseen graphs", thin(corpus, rows.test, MOST_ROWS), False
    yield "unseen graphs on unseen devices", thin(corpus, rows.test_device, MOST_ROWS), True


def _in_order(run: Run, rows: np.ndarray, unseen: bool) -> np.ndarray:
    """Predictions (n,) of rows; unseen devices are read as validation devices were read best."""
    hidden = run.trainer.config.augmentation.generic > 0
    as_generic = unseen and hidden and calibrate(run)["unseen_devices"] == "generic"
    _, p, r = predict_rows(run.network, run.trainer.batches, rows, as_generic)
    place = {row: i for i, row in enumerate(r.tolist())}
    return p[[place[row] for row in rows.tolist()]]


def _spread(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """One seed as it is; several as mean with the standard deviation beside it."""
    if len(figures) == 1:
        return figures[0]
    result: dict[str, float] = {"n": figures[0]["n"], "seeds": len(figures)}
    for key in ("mape", "acc10", "spearman"):
        values = np.array([f[key] for f in figures])
        result[key] = round(float(values.mean()), 4 if key == "spearman" else 2)
        result[f"{key}_sd"] = round(float(values.std(ddof=1)), 4 if key == "spearman" else 2)
    return result


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown: MAPE / Acc(10 %) / Spearman per model."""
    lines = []
    for part, rows in table.items():
        models = list(next(iter(rows.values())))
        lines += [f"**{part}**", "", f"| source | rows | {' | '.join(models)} |", "|---|---:|" + "---|" * len(models)]
        for group, figures in rows.items():
            cells = [_cell(figures[m]) for m in models]
            lines.append(f"| {group} | {figures[models[0]]['n']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _cell(f: dict[str, float]) -> str:
    spread = f" ± {f['mape_sd']:.1f}" if "mape_sd" in f else ""
    return f"{f['mape']:.1f}{spread} / {f['acc10']:.0f} / {f['spearman']:.2f}"
