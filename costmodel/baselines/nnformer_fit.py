"""Training the static-adjacency transformer: AdamW, a tenth of warm-up and then linearly to zero, as published.

The loss is LeDG-Former's, on log-ratios. The published one, (predicted / measured − 1)², is equal to it near the
measured value, but hardly moves predictions that are far too short, which latencies over five decades need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from costmodel.baselines import Predict
from costmodel.baselines.nnformer import NNFormer, NNFormerConfig, relatives
from costmodel.errors import DataError
from costmodel.metrics import mape
from costmodel.model import log_ratio_loss
from costmodel.training.batches import Batches, Step
from costmodel.training.corpus import Corpus
from costmodel.training.loop import thin

MOST_CODES = 256
SELECTING = 500
"""Rows of each source that select the step of training."""


@dataclass(frozen=True)
class Recipe:
    """How it is trained; `nodes` and `pairs` bound a step: nodes in all, and platforms of one network."""

    network: NNFormerConfig = field(default_factory=NNFormerConfig)
    steps: int = 2000
    nodes: int = 3000
    pairs: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    evaluations: int = 8


def fit(
    corpus: Corpus, train: np.ndarray, select: np.ndarray, seed: int, recipe: Recipe = Recipe(),
    steps: int | None = None,
) -> Predict:  # fmt: skip
    """The network trained on `train`, at the step that did best on `select`; the last one where that is empty.

    steps  of training, in place of the recipe's

    Raises DataError without training rows.
    """
    if not len(train):
        raise DataError("no rows to train on; measure some networks of the training side first")
    recipe = replace(recipe, steps=steps or recipe.steps)
    torch.manual_seed(seed)
    codes = operator_codes(corpus, train)
    nothing = [""] * len(corpus.platforms), np.zeros((len(corpus.platforms), 1))
    batches = Batches(corpus, codes, nothing, window=0)
    network = NNFormer(replace(recipe.network, codes=codes.shape[1]))
    torch.nn.init.constant_(network.answer.bias, float(np.log(corpus.row_ms[train]).mean()))
    probe = thin(corpus, select, SELECTING)
    best, best_error = {k: v.clone() for k, v in network.state_dict().items()}, float("inf")
    for step in _training(network, batches, train, seed, recipe):
        if step % max(recipe.steps // recipe.evaluations, 1) and step != recipe.steps:
            continue
        error = mape(corpus.row_ms[probe], _predict(network, batches, probe)) if len(probe) else -float(step)
        if error < best_error:
            best, best_error = {k: v.clone() for k, v in network.state_dict().items()}, error
    network.load_state_dict(best)

    def predict(rows: np.ndarray) -> np.ndarray:
        return _predict(network, batches, rows)

    return predict


def operator_codes(corpus: Corpus, train: np.ndarray) -> np.ndarray:
    """(S, codes) one-hot code of each sentence: one for each of the commonest in training, one for all others."""
    seen = np.zeros(len(corpus.sentences), np.int64)
    for g in np.unique(corpus.row_graph[train]):
        np.add.at(seen, corpus.sentence[corpus.node_start[g] : corpus.node_start[g + 1]], 1)
    order = np.argsort(-seen, kind="stable")[: MOST_CODES - 1]
    order = order[seen[order] > 0]
    code = np.full(len(seen), len(order))
    code[order] = np.arange(len(order))
    return np.eye(len(order) + 1, dtype=np.float32)[code]


def _training(network: NNFormer, batches: Batches, train: np.ndarray, seed: int, recipe: Recipe) -> Iterator[int]:
    """Trains; yields the number of steps done after each."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}], lr=recipe.lr
    )
    warm = max(int(recipe.steps * recipe.warmup), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (recipe.steps - step) / max(recipe.steps - warm, 1))
    )
    rng = np.random.default_rng(seed)
    packs = _packs(batches, train, rng, recipe)
    for number in range(1, recipe.steps + 1):
        network.train()
        step = batches.pack(next(packs))
        loss = log_ratio_loss(_forward(network, step), step.target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        yield number


def _packs(batches: Batches, rows: np.ndarray, rng: np.random.Generator, recipe: Recipe) -> Iterator[list[np.ndarray]]:
    """Networks in random order, epoch after epoch, as many at a time as fit into `recipe.nodes`."""
    starts, items = batches.corpus.node_start, batches.items(rows)
    pack: list[np.ndarray] = []
    size = 0
    while True:
        for i in rng.permutation(len(items)):
            item = items[i]
            graph = batches.corpus.row_graph[item[0]]
            nodes = int(starts[graph + 1] - starts[graph])
            if pack and size + nodes > recipe.nodes:
                yield pack
                pack, size = [], 0
            pack.append(rng.choice(item, recipe.pairs, replace=False) if len(item) > recipe.pairs else item)
            size += nodes
        if pack:
            yield pack
            pack, size = [], 0


def _forward(network: NNFormer, step: Step) -> Tensor:
    batch = step.batch
    edges = relatives(batch.src.numpy(), batch.seg.numpy(), len(batch.text))
    return network(batch, edges, step.pair_graph, step.platform_numeric)


def _predict(network: NNFormer, batches: Batches, rows: np.ndarray) -> np.ndarray:
    """(n,) latency in ms of rows, in their order."""
    network.eval()
    place = np.zeros(len(batches.corpus.row_ms), np.int64)
    place[rows] = np.arange(len(rows))
    found = np.zeros(len(rows))
    with torch.no_grad():
        for step in batches.sweep(rows):
            found[place[step.row]] = np.exp(_forward(network, step).numpy().astype(np.float64))
    return found
