"""Test accuracy of a cell, predicted by LeDG-Former's encoder from few trained cells: PAPER.md's last table.

Graphs are those of `accuracy_data`. A network learns the place of a cell among the training cells, as the normal
quantile of its rank on each data set, by Huber's loss and by the order of all pairs of a step (Burges et al. 2005,
RankNet). The mean of `Recipe.members` initialisations answers, each with the averaged weights of the evaluation that
orders the validation cells best.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from costmodel.errors import BackendUnavailableError
from costmodel.model import Batch, LeDGFormer, ModelConfig
from costmodel.training.accuracy_data import DATASETS, WINDOW, Cells, Draw, draw, nb101_cells, nb201_cells

Say = Callable[[str], None]

NAMES = {"nb201": tuple(DATASETS), "nb101": ("cifar10",)}
"""Data sets of the accuracies, in the order of their columns."""
COUNTS = {"nb201": (469, 781, 1563), "nb101": (172, 424, 4326)}
PAPER = {
    "nb201": {"469": 0.864, "781": 0.881, "1563": 0.892},
    "nb101": {"172": 0.762, "424": 0.809, "4326": 0.880},
}
"""Kendall's tau of arXiv 2506.07735; on NAS-Bench-201 for CIFAR-10."""

SETS = {
    "unseen": "cells whose graph is neither a training nor a validation cell's",
    "rest": "all cells but those of training and validation; copies of training graphs among them",
    "all": "the whole benchmark, training cells included, as the paper reports",
}


@dataclass(frozen=True)
class Recipe:
    """How a cell predictor is built and trained. `ranking` weighs the pairs."""

    model: ModelConfig = field(
        default_factory=lambda: ModelConfig(width=64, layers=3, dropout=0.0, window=WINDOW, head="direct")
    )
    members: int = 1
    steps: int = 1500
    graphs: int = 64
    lr: float = 1e-2
    weight_decay: float = 0.02
    warmup: float = 0.1
    ema: float = 0.98
    evaluations: int = 10
    ranking: float = 2.0
    validation: int = 200


class CellNetwork(nn.Module):
    """LeDG-Former's encoder and a small head from the graph vector and statistics to K targets."""

    def __init__(self, config: ModelConfig, targets: int) -> None:
        super().__init__()
        self.encoder = LeDGFormer(config)
        self.head = nn.Sequential(
            nn.Linear(config.width + config.graph_features, config.head_width), nn.GELU(),
            nn.Dropout(config.dropout), nn.Linear(config.head_width, targets),
        )  # fmt: skip

    def forward(self, batch: Batch) -> Tensor:
        """(B, K) predicted targets."""
        _, graphs = self.encoder.encode(batch)
        scores: Tensor = self.head(torch.cat([graphs, batch.stats], 1))
        return scores


def kendall(y: np.ndarray, p: np.ndarray) -> float:
    """Kendall's tau-b of two (n,) arrays (Knight 1966, n log² n); NaN when either is constant."""
    n = len(y)
    order = np.lexsort((p, y))
    rank = np.unique(p[order], return_inverse=True)[1]
    swaps, width = 0, 1
    while width < n:
        block, right = np.arange(n) // (2 * width), np.arange(n) // width % 2 == 1
        order_in_block = np.lexsort((right, rank, block))
        left = (~right)[order_in_block]
        before = np.cumsum(left)
        total = np.cumsum(np.bincount(block, ~right))[block]  # of the left halves so far, each block's own included
        swaps += int((total - before)[~left].sum())
        width *= 2

    def tied(*keys: np.ndarray) -> int:
        counts = np.unique(np.stack(keys, 1), axis=0, return_counts=True)[1].astype(np.int64)
        return int((counts * (counts - 1) // 2).sum())

    pairs, in_y, in_p = n * (n - 1) // 2, tied(y), tied(p)
    scale = math.sqrt(pairs - in_y) * math.sqrt(pairs - in_p)
    return (pairs - in_y - in_p + tied(y, p) - 2 * swaps) / scale if scale else float("nan")


def normal_scores(accuracy: np.ndarray) -> np.ndarray:
    """(n, K) normal quantiles of the ranks in each column; ties share their mean rank."""
    columns = []
    for column in accuracy.T:
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - (counts - 1) / 2 - 0.5
        quantile = NormalDist().inv_cdf
        columns.append(np.array([quantile(float(m) / len(column)) for m in middle])[inverse])
    return np.stack(columns, 1)


def fit(cells: Cells, parts: Draw, recipe: Recipe, seed: int) -> tuple[np.ndarray, list[float]]:
    """Scores (G, K) of all graphs on each data set by the mean of the members, and tau on the validation cells."""
    scores = normal_scores(cells.accuracy[parts.train])
    graphs, own, counts = np.unique(cells.graph[parts.train], return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(own, s) / counts for s in scores.T], 1)
    labels = torch.from_numpy(means.astype(np.float32))
    weights = torch.from_numpy(np.sqrt(counts).astype(np.float32))
    total = np.zeros((len(cells.fingerprints), scores.shape[1]))
    for member in range(recipe.members):
        network = _train(cells, parts, recipe, seed * 1000 + member, (graphs, labels, weights))
        total += _answers(network, cells, np.arange(len(total)))
    return total / recipe.members, _kendalls(cells.accuracy[parts.val], total[cells.graph[parts.val]])


def _kendalls(y: np.ndarray, p: np.ndarray) -> list[float]:
    """Kendall's tau of each column."""
    return [kendall(one, other) for one, other in zip(y.T, p.T, strict=True)]


def _train(
    cells: Cells, parts: Draw, recipe: Recipe, seed: int, known: tuple[np.ndarray, Tensor, Tensor]
) -> CellNetwork:
    graphs, labels, weights = known
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = replace(
        recipe.model, node_features=cells.numeric.shape[1], graph_features=cells.stats.shape[1],
        text_width=cells.text.shape[1],
    )  # fmt: skip
    network = CellNetwork(config, labels.shape[1])
    average = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)
    best, best_tau = average, -math.inf
    order: list[int] = []
    for step in range(1, recipe.steps + 1):
        if len(order) < min(recipe.graphs, len(graphs)):
            order = order + rng.permutation(len(graphs)).tolist()
        chosen, order = order[: recipe.graphs], order[recipe.graphs :]
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * schedule(step / recipe.steps, recipe.warmup)
        loss = loss_of(network(cells.pack(graphs[chosen])), labels[chosen], weights[chosen], recipe)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay = min(recipe.ema, step / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(network.state_dict().values()), 1 - decay)
        due = step % max(1, recipe.steps // recipe.evaluations) == 0 and step >= 0.3 * recipe.steps
        if due or step == recipe.steps:
            kept = {k: v.clone() for k, v in network.state_dict().items()}
            network.load_state_dict(average)
            val = parts.val
            tau = float(np.mean(_kendalls(cells.accuracy[val], _answers(network, cells, cells.graph[val]))))
            if tau > best_tau:
                best, best_tau = {k: v.clone() for k, v in average.items()}, tau
            network.load_state_dict(kept)
            network.train()
    network.load_state_dict(best)
    return network


def schedule(progress: float, warmup: float) -> float:
    """Share of the learning rate at a progress in 0…1: linear warm-up, then cosine."""
    return (
        progress / warmup if progress < warmup else 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))
    )


def loss_of(predicted: Tensor, labels: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """Huber's loss and RankNet's loss over all pairs of (b, K) targets, summed over targets."""
    error = (weights @ F.huber_loss(predicted, labels, reduction="none") / weights.sum()).sum()
    gap = labels.unsqueeze(0) - labels.unsqueeze(1)  # (b, b, K)
    distance = predicted.unsqueeze(0) - predicted.unsqueeze(1)
    pair = (weights.unsqueeze(0) * weights.unsqueeze(1)).unsqueeze(2) * gap.abs().clamp(max=0.5)
    order = F.softplus(-4 * distance * gap.sign()) * pair
    return error + recipe.ranking * (order.sum((0, 1)) / pair.sum((0, 1)).clamp(min=1e-6)).sum()


@torch.no_grad()
def _answers(network: CellNetwork, cells: Cells, graphs: np.ndarray, most: int = 2048) -> np.ndarray:
    """(len(graphs), K) targets of each."""
    network.eval()
    parts = [network(cells.pack(graphs[i : i + most])).numpy() for i in range(0, len(graphs), most)]
    return np.concatenate(parts, dtype=np.float64)


# --- baselines --------------------------------------------------------------------------------------------------------


def trees(cells: Cells, parts: Draw, seed: int, target: int) -> np.ndarray:
    """Scores (G,) on one data set by gradient-boosted trees (Friedman 2001) on the graph statistics; how many is chosen
    on validation.

    Raises BackendUnavailableError without scikit-learn.
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise BackendUnavailableError("the trees need scikit-learn; pip install 'ledg-cost[train]'") from error
    known, val = cells.graph[parts.train], cells.graph[parts.val]
    model = HistGradientBoostingRegressor(
        max_iter=200, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=min(5, 1 + len(known) // 20),
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    model.fit(cells.stats[known], normal_scores(cells.accuracy[parts.train])[:, target])
    y = cells.accuracy[parts.val, target]
    taus = [kendall(y, p) for p in list(model.staged_predict(cells.stats[val]))[9::10]]
    stage = 10 * int(np.nanargmax(taus)) + 9 if np.isfinite(taus).any() else 199
    answers: np.ndarray = list(model.staged_predict(cells.stats))[stage]
    return answers


# --- tables -----------------------------------------------------------------------------------------------------------


def taus(cells: Cells, parts: Draw, scores: np.ndarray, target: int) -> dict[str, float]:
    """Kendall's tau of scores (G,) on each of SETS."""
    y, p = cells.accuracy[:, target], scores[cells.graph]
    rest = np.setdiff1d(np.arange(len(y)), np.concatenate([parts.train, parts.val]))
    at = {"unseen": parts.unseen, "rest": rest, "all": np.arange(len(y))}
    return {name: round(kendall(y[rows], p[rows]), 4) for name, rows in at.items()}


def accuracy_tables(
    data: Path, space: str, counts: Sequence[int] | None, seeds: int, cache: Path, folder: Path, encoder: str, say: Say,
    recipe: Recipe = Recipe(),
) -> dict[str, Any]:  # fmt: skip
    """Tau of each model on each data set after so many training cells, over `seeds` seeds, each of which draws cells
    and initialisation.

    space   "nb201" or "nb101"
    counts  training cells; by default those of the paper
    folder  keeps every seed's figures, so that a stopped evaluation goes on where it was

    Raises DataError.
    """
    counts = tuple(counts or COUNTS[space])
    settings = {**asdict(recipe), "encoder": encoder}
    places = {(n, s): folder / f"accuracy-{space}" / f"{n}-{s}.json" for s in range(seeds) for n in counts}
    kept = {at: record for at, path in places.items() if (record := _kept(path, settings))}
    if len(kept) < len(places):
        cells = (nb101_cells if space == "nb101" else nb201_cells)(data, cache, encoder, say)
        for (count, seed), path in places.items():
            if (count, seed) not in kept:
                kept[count, seed] = {"settings": settings, **_seed(cells, count, seed, recipe, NAMES[space])}
                path.parent.mkdir(parents=True, exist_ok=True)
                path.with_suffix(".new").write_text(json.dumps(kept[count, seed], indent=1) + "\n")
                path.with_suffix(".new").replace(path)
                told = {name: of["ledg-former"]["all"] for name, of in kept[count, seed]["datasets"].items()}
                say(f"{space}, {count} cells, seed {seed}: {told}")
    found = {}
    for at, name in enumerate(NAMES[space]):
        tables = {str(n): _summary([kept[n, s] for s in range(seeds)], name) for n in counts}
        found[name] = {"dataset": name, "tables": tables, "paper": {} if at else PAPER[space]}
    return {"sets": SETS, "settings": settings, "datasets": found}


def _kept(path: Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """A seed's figures, unless they were made with other settings."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record if record["settings"] == json.loads(json.dumps(settings)) else None


def _seed(cells: Cells, count: int, seed: int, recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    parts = draw(cells, count, seed, recipe.validation)
    scores, selected = fit(cells, parts, recipe, seed)
    sizes = {"train": len(parts.train), "val": len(parts.val), "unseen": len(parts.unseen)}
    sizes["graphs"] = len(np.unique(cells.graph[parts.train]))
    datasets = {}
    for target, name in enumerate(names):
        models = {
            "ledg-former": scores[:, target], "trees": trees(cells, parts, seed, target), "flops": cells.stats[:, 1],
            "parameters": cells.stats[:, 2],
        }  # fmt: skip
        datasets[name] = {model: taus(cells, parts, p, target) for model, p in models.items()}
    validation = {name: round(tau, 4) for name, tau in zip(names, selected, strict=True)}
    return {"cells": sizes, "validation": validation, "datasets": datasets}


def _summary(records: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any]:
    """Mean and standard deviation over seeds of every model's taus, and the mean sizes of the split."""
    cells = {k: round(float(np.mean([r["cells"][k] for r in records]))) for k in records[0]["cells"]}
    models: dict[str, Any] = {}
    for name in records[0]["datasets"][dataset]:
        models[name] = {}
        for key in SETS:
            values = np.array([r["datasets"][dataset][name][key] for r in records])
            models[name][key] = round(float(values.mean()), 4)
            models[name][f"{key}_sd"] = round(float(values.std(ddof=1)), 4) if len(values) > 1 else 0.0
    return {"seeds": len(records), "cells": cells, "models": models}


def markdown(record: Mapping[str, Any]) -> str:
    """A table for each data set: one line for each model and number of training cells."""
    lines: list[str] = []
    for name, found in record["datasets"].items():
        lines += [
            f"**{name}**: Kendall's tau ± standard deviation over seeds", "",
            "| training cells | model | unseen graphs | all other cells | whole benchmark | paper |",
            "|---:|---|---|---|---|---|",
        ]  # fmt: skip
        for count, table in found["tables"].items():
            for model, figures in table["models"].items():
                cells = " | ".join(f"{figures[key]:.3f} ± {figures[f'{key}_sd']:.3f}" for key in SETS)
                paper = found["paper"].get(count) if model == "ledg-former" else None
                lines.append(f"| {count} | {model} | {cells} | {f'{paper:.3f}' if paper else ''} |")
        lines.append("")
    return "\n".join(lines)
