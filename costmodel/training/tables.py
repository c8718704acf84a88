"""Runs the folds of a protocol and tabulates them: MAPE, Acc(10 %) and Spearman per model, mean and spread over seeds.

What takes long to answer is kept in the folder of the runs, so that a stopped evaluation goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from costmodel.baselines.analytic import roofline
from costmodel.metrics import summary
from costmodel.training.batches import Batches
from costmodel.training.calibration import AS_TOLD, UnseenReading, choose_unseen, mixed, roofline_shares, unseen_answers
from costmodel.training.corpus import Corpus
from costmodel.training.correct import corrected
from costmodel.training.folds import Fold
from costmodel.training.loop import TrainConfig
from costmodel.training.run import Run, Say, train

DIGITS = {"spearman": 4, "half_width": 4}

Answer = Callable[[Fold, int], np.ndarray]
"""(fold, seed) → predictions in ms, one per row of `fold.rows.test`."""


@dataclass(frozen=True)
class Learned:
    """LeDG-Former under one configuration as a model of the tables; without `corrects` the network alone; `change` as
    `train`."""

    corpus: Corpus
    config: TrainConfig
    cache: Path
    folder: Path
    encoder: str
    say: Say
    corrects: bool = True
    change: Callable[[Batches], None] | None = None

    def __call__(self, fold: Fold, seed: int) -> np.ndarray:
        """Trains the fold, and answers it."""
        folder = _place(self.folder, fold, seed)
        self.say(f"{folder.relative_to(self.folder.parent)}: {len(fold.rows.train)} rows train")
        config = replace(self.config, seed=seed)
        run = train(
            self.corpus, config, self.cache, folder, self.encoder, self.say, fold.rows, fold.left_out, self.change
        )
        run = replace(run, corrects=self.corrects)
        reading, share = AS_TOLD, None
        if fold.left_out and len(fold.rows.val_device):
            reading, _, of_roofline, _ = choose_unseen(run)
            share = roofline_shares(run, {"roofline_share": {"new_platform": of_roofline, "new_runtime": None}})
        return in_order(run, fold.rows.test, reading, share)


@dataclass(frozen=True)
class Kept:
    """A model whose answers stay in `folder`, and are read from there for the same rows, seed and `settings`; a changed
    program needs another folder."""

    model: Answer
    folder: Path
    settings: object

    def __call__(self, fold: Fold, seed: int) -> np.ndarray:
        """The model's answers."""
        told, rows = hashlib.sha256(repr(self.settings).encode()), fold.rows
        for part in (rows.train, rows.val, rows.val_device, rows.test):
            told.update(len(part).to_bytes(8, "big") + part.tobytes())
        path = _place(self.folder, fold, seed) / f"answers-{told.hexdigest()[:12]}.npy"
        if not path.exists():
            answers = self.model(fold, seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".new.npy")
            np.save(partial, answers)
            partial.replace(path)
        return np.asarray(np.load(path))


def learned(
    corpus: Corpus, config: TrainConfig, cache: Path, folder: Path, encoder: str, say: Say, corrects: bool = True
) -> Answer:
    """LeDG-Former as `Learned`, its answers kept beside its runs."""
    model = Learned(corpus, config, cache, folder, encoder, say, corrects)
    return Kept(model, folder, (config, corrects, encoder))


def _place(folder: Path, fold: Fold, seed: int) -> Path:
    return folder / fold.name.replace(" ", "-") / str(seed)


def in_order(
    run: Run, rows: np.ndarray, reading: UnseenReading = AS_TOLD, share: np.ndarray | None = None
) -> np.ndarray:
    """(n,) predictions in ms of rows, in their order; `share` (platforms,) as `roofline_shares`."""
    p = corrected(run, rows, unseen_answers(run, rows, reading))
    weight = np.zeros(len(rows)) if share is None else share[run.corpus.row_platform[rows]]
    at = np.flatnonzero(weight)
    p[at] = mixed(p[at], roofline(run.corpus, rows[at]), weight[at])
    return p


def tabulate(
    corpus: Corpus, folds: Iterable[Fold], models: Mapping[str, Answer], seeds: Mapping[str, int],
    label: Callable[[Fold], np.ndarray],
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Group → model → figures; `label` names the group of each tested row, models without `seeds` run once."""
    found: dict[str, dict[str, Any]] = {}
    for fold in folds:
        y, groups = corpus.row_ms[fold.rows.test], label(fold)
        for name, model in models.items():
            answers = [model(fold, seed) for seed in range(seeds.get(name, 1))]
            for group in dict.fromkeys(groups.tolist()):
                at = groups == group
                found.setdefault(group, {})[name] = spread([summary(y[at], p[at]) for p in answers])
    return found


def average(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Model → mean figures over groups, as PAPER.md's tables end."""
    models = next(iter(rows.values()))
    result: dict[str, dict[str, float]] = {}
    for model in models:
        figures = [row[model] for row in rows.values()]
        result[model] = {"n": sum(f["n"] for f in figures)}
        for key in ("mape", "acc10", "spearman"):
            result[model][key] = round(float(np.mean([f[key] for f in figures])), DIGITS.get(key, 2))
    return result


def spread(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """One seed as it is; several as mean with the standard deviation beside it."""
    if len(figures) == 1:
        return figures[0]
    result: dict[str, float] = {"n": figures[0]["n"], "seeds": len(figures)}
    for key in (k for k in figures[0] if k != "n"):
        values = np.array([f[key] for f in figures])
        result[key] = round(float(values.mean()), DIGITS.get(key, 2))
        result[f"{key}_sd"] = round(float(values.std(ddof=1)), DIGITS.get(key, 2))
    return result


def interval(y: np.ndarray, p: np.ndarray, half: np.ndarray | float | None) -> dict[str, float]:
    """Share in % of measurements within a factor e^half of the prediction, and the mean half-width; nothing without."""
    if half is None:
        return {}
    covered = np.abs(np.log(y / p)) <= half
    return {"coverage": round(float(covered.mean() * 100), 1), "half_width": round(float(np.mean(half)), 4)}


def markdown(rows: Mapping[str, Mapping[str, Mapping[str, float]]], head: str) -> list[str]:
    """Lines of a Markdown table: MAPE ± spread / Acc(10 %) / Spearman per model."""
    models = list(next(iter(rows.values())))
    lines = [f"| {head} | rows | {' | '.join(models)} |", "|---|---:|" + "---|" * len(models)]
    for group, figures in rows.items():
        lines.append(f"| {group} | {figures[models[0]]['n']} | {' | '.join(cell(figures[m]) for m in models)} |")
    return lines


def cell(f: Mapping[str, float | None]) -> str:
    """MAPE ± spread / Acc(10 %) / Spearman, a dash where one side is constant."""
    deviation = f" ± {f['mape_sd']:.1f}" if "mape_sd" in f else ""
    rank = f["spearman"]
    shown = "–" if rank is None or np.isnan(rank) else f"{rank:.2f}"
    return f"{f['mape']:.1f}{deviation} / {f['acc10']:.0f} / {shown}"
