"""The training loop: resumable, selected on validation data, the same for every configuration."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from costmodel.bundle import ENOUGH
from costmodel.correction import FILE as CORRECTION
from costmodel.features import NODE_FEATURES, PLATFORM_FEATURES
from costmodel.metrics import mape
from costmodel.model import LeDGFormer, ModelConfig, log_ratio_loss, segment_sum
from costmodel.platforms import parse_runtime
from costmodel.training.batches import Augmentation, Batches, Step
from costmodel.training.corpus import Corpus
from costmodel.training.split import TEST_DEVICES, VALIDATION_DEVICES

SHARES = {
    "timm": 0.34, "paddleclas": 0.04, "help/nasbench201": 0.17, "nnlqp/nasbench201": 0.06, "help/fbnet": 0.13,
    "help/ofa": 0.13, "neusight-e2e": 0.025, "mlperf": 0.005, "neusight-ops": 0.06, "tinynas-ops": 0.04,
}  # fmt: skip
MEASURED_SHARE = 0.08
"""Of samples of our own, where a run is given any."""
WEIGHTS = {
    "timm": 4.0,
    "paddleclas": 0.8,
    "help/fbnet": 3.0,
    "help/nasbench201": 1.5,
    "neusight-e2e": 0.5,
    "mlperf": 0.2,
}

ORDER_WEIGHT, ORDER_MARGIN = 4.0, 0.1
"""Of a compiler's precisions in the wrong order on an unlabelled device, and by how much in ln of latency the narrower
one shall be faster: what is learned in the mean must hold for networks unlike those of training, too."""

BAND_WEIGHT, BAND = 1.0, (0.7, 2.5)
"""How far an unlabelled platform may stray from its roofline without penalty, as a ratio: within it are 99 % of the
networks that training has of GPUs by PyTorch and TensorRT."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `hold_out` leaves the test and validation devices out of training, `ladders` adds the ordering
    of precisions on devices without labels (see `Batches`). `shares` are the parts of each source in a step's nodes,
    `weights` those of its mean loss (1 where not named)."""

    model: ModelConfig = field(default_factory=ModelConfig)
    steps: int = 24_000
    nodes: int = 5000
    pairs: int = 8
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.05
    ema: float = 0.998
    evaluate_every: int = 1000
    hold_out: bool = True
    ladders: bool = True
    augmentation: Augmentation = field(default_factory=Augmentation)
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    seed: int = 0


CONFIGS = {
    "default": TrainConfig(),
    "paper": TrainConfig(
        model=ModelConfig(
            numeric=False, head="direct", window=512, node_template="paper", platform_template="paper", ffn_ratio=4.0
        ),
        lr=1e-3,
        steps=6000,  # about a quarter of the time of the default
        ladders=False,
        augmentation=Augmentation(0.0, 0.0, 0.0, 0.0, 0.0),
    ),
}


@dataclass(frozen=True)
class Rows:
    """Row indices of a corpus by what they may be used for."""

    train: np.ndarray
    val: np.ndarray
    val_device: np.ndarray
    test: np.ndarray
    test_device: np.ndarray


def divide(corpus: Corpus, hold_out: bool) -> Rows:
    """Rows by split; with `hold_out` the rows of unseen devices stand apart, else every device trains."""
    split = corpus.graph_split[corpus.row_graph]
    device = np.array([p[0] for p in corpus.platforms])[corpus.row_platform]
    unseen = np.isin(device, list(TEST_DEVICES)) & hold_out
    probe = np.isin(device, list(VALIDATION_DEVICES)) & hold_out
    known = ~(unseen | probe)

    def pick(mask: np.ndarray) -> np.ndarray:
        return np.flatnonzero(mask)

    return Rows(
        pick(known & (split == "train")), pick(known & (split == "val")), pick(probe & (split == "val")),
        pick(known & (split == "test")), pick(unseen & (split == "test")),
    )  # fmt: skip


def network_rows(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Those of `rows` that measure whole networks, not single operators."""
    operators = np.array([s.endswith("-ops") for s in corpus.sources])
    return rows[~operators[corpus.row_source[rows]]]


def named_runtimes(corpus: Corpus, rows: np.ndarray) -> frozenset[str]:
    """Runtimes with at least `ENOUGH` measured networks among `rows`: the only ones whose name says anything."""
    runtimes = np.array([parse_runtime(p[2])[0] for p in corpus.platforms])
    names, counts = np.unique(runtimes[corpus.row_platform[network_rows(corpus, rows)]], return_counts=True)
    return frozenset(str(n) for n, count in zip(names, counts, strict=True) if count >= ENOUGH)


def known_platforms(corpus: Corpus, rows: np.ndarray) -> tuple[str, ...]:
    """Platforms with at least `ENOUGH` networks among `rows`, as `device|precision|runtime`: they have an identity."""
    used, counts = np.unique(corpus.row_platform[network_rows(corpus, rows)], return_counts=True)
    return tuple("|".join(corpus.platforms[p]) for p in used[counts >= ENOUGH])


def thin(corpus: Corpus, rows: np.ndarray, per_source: int, seed: int = 0) -> np.ndarray:
    """About `per_source` rows of each source: all rows of graphs drawn by a fixed seed."""
    rng = np.random.default_rng(seed)
    parts = []
    for source in np.unique(corpus.row_source[rows]):
        own = rows[corpus.row_source[rows] == source]
        rank = np.zeros(len(corpus.names), np.int64)
        graphs = np.unique(corpus.row_graph[own])
        rank[rng.permutation(graphs)] = np.arange(len(graphs))
        parts.append(own[np.argsort(rank[corpus.row_graph[own]], kind="stable")][:per_source])
    return np.sort(np.concatenate(parts)) if parts else rows


class Trainer:
    """Trains one configuration in `folder`, which also holds its checkpoint: call `run` again to resume.

    `rows` default to the split of `divide`.
    """

    def __init__(
        self, config: TrainConfig, batches: Batches, folder: Path, say: Callable[[str], None], rows: Rows | None = None
    ) -> None:
        self.batches, self.folder, self.say = batches, folder, say
        self.rows = rows or divide(batches.corpus, config.hold_out)
        self.known = known_platforms(batches.corpus, self.rows.train) if config.model.numeric else ()
        batches.know(self.known)
        platform_features = PLATFORM_FEATURES + len(self.known)
        model = replace(config.model, node_features=NODE_FEATURES, platform_features=platform_features)
        self.config = replace(config, model=model)
        folder.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        self.network = LeDGFormer(model)
        self.average = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.98)
        )
        self.step = 0
        self.history: list[dict[str, float]] = []
        corpus = batches.corpus
        batches.named = named_runtimes(corpus, self.rows.train) if config.augmentation.unnamed else None
        self.pools = batches.pools(self.rows.train, config.shares, config.nodes)
        self.weights = torch.tensor([config.weights.get(s, 1.0) for s in corpus.sources])
        self.probe = [thin(corpus, r, 500) for r in (self.rows.val, self.rows.val_device)]

    def run(self) -> LeDGFormer:
        """Trains to the last step, keeps the averaged weights that do best on validation, and returns that network."""
        self._resume()
        config, start, began = self.config, self.step, time.monotonic()
        while self.step < config.steps:
            rng = np.random.default_rng((config.seed, self.step))
            loss = self._update(self.batches.draw(self.pools, config.pairs, rng))
            self.step += 1
            if not math.isfinite(loss):
                raise FloatingPointError(f"loss is {loss} at step {self.step}")
            if self.step % 50 == 0:
                pace = (time.monotonic() - began) / (self.step - start)
                self.say(
                    f"step {self.step}/{config.steps} loss {loss:.3f} {pace:.2f} s/step,"
                    f" {pace * (config.steps - self.step) / 60:.0f} min left"
                )
            if self.step % config.evaluate_every == 0 or self.step == config.steps:
                self._evaluate()
                self._save()
        self.network.load_state_dict(load_file(self.folder / "best.safetensors"))
        return self.network.eval()

    def _update(self, step: Step) -> float:
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * self._schedule()
        loss = self._loss(step)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.network.state_dict().items():
                self.average[key].lerp_(value, 1 - decay)
        return float(loss.detach())

    def _schedule(self) -> float:
        warm = max(1, int(self.config.steps * self.config.warmup))
        if self.step < warm:
            return (self.step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm) / max(1, self.config.steps - warm))) + 1e-3

    def _loss(self, step: Step) -> torch.Tensor:
        """Mean loss of each source present, weighted, and how far ladders stand in the wrong order."""
        everything = forward(self.network, step)
        predicted = everything[: len(step.target)]
        group = torch.from_numpy(step.group.astype(np.int64))
        total, norm = torch.zeros(()), 0.0
        for source in torch.unique(group):
            mask = group == source
            weight = float(self.weights[source])
            total = total + weight * log_ratio_loss(predicted[mask], step.target[mask])
            norm += weight
        total = total / norm
        if len(step.ordered):
            wide, narrow = everything[step.ordered[:, 0]], everything[step.ordered[:, 1]]
            total = total + ORDER_WEIGHT * torch.relu(narrow - wide + ORDER_MARGIN).mean()
        if len(everything) > len(predicted):
            strayed = (everything - step.roofline)[len(predicted) :]
            low, high = math.log(BAND[0]), math.log(BAND[1])
            total = total + BAND_WEIGHT * (torch.relu(strayed - high) + torch.relu(low - strayed)).mean()
        return total

    def _evaluate(self) -> None:
        kept = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        corpus, report, score = self.batches.corpus, {"step": float(self.step)}, 0.0
        for name, weight, rows in zip(("val", "val_device"), (1.0, 0.3), self.probe, strict=True):
            y, p, r = predict_rows(self.network, self.batches, rows)
            score += weight * mape(y, p) if len(y) else 0.0  # a source counts by its rows, few of which are noise
            source = corpus.row_source[r]
            for s in np.unique(source):
                report[f"{name}/{corpus.sources[s]}"] = round(mape(y[source == s], p[source == s]), 2)
        report["score"] = round(score, 3)
        if not self.history or report["score"] < min(h["score"] for h in self.history):
            save_file({k: v.contiguous() for k, v in self.average.items()}, self.folder / "best.safetensors")
            (self.folder / CORRECTION).unlink(missing_ok=True)  # it was of other weights
        self.history.append(report)
        (self.folder / "history.json").write_text(json.dumps(self.history, indent=1))
        self.network.load_state_dict(kept)
        self.say("validation " + ", ".join(f"{k} {v:g}" for k, v in report.items()))

    def _save(self) -> None:
        """Writes the checkpoint beside the old one and swaps it in, so a cut loses at most one interval."""
        state = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        state |= {f"average.{k}": v for k, v in self.average.items()}
        for i, entry in self.optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{i}.{k}": v for k, v in entry.items()}
        path = self.folder / "checkpoint.safetensors"
        meta = {"step": str(self.step), "config": json.dumps(asdict(self.config), sort_keys=True)}
        save_file({k: v.contiguous().clone() for k, v in state.items()}, path.with_suffix(".new"), metadata=meta)
        path.with_suffix(".new").replace(path)

    def _resume(self) -> None:
        from safetensors import safe_open

        path = self.folder / "checkpoint.safetensors"
        if not path.exists():
            return
        with safe_open(path, "pt") as handle:
            meta = handle.metadata()
            if meta["config"] != json.dumps(asdict(self.config), sort_keys=True):
                self.say(f"{path} belongs to another configuration; starting anew")
                return
            state = {k: handle.get_tensor(k) for k in handle.keys()}  # noqa: SIM118 - not a dict
        self.network.load_state_dict({k[8:]: v for k, v in state.items() if k.startswith("network.")})
        self.average = {k[8:]: v for k, v in state.items() if k.startswith("average.")}
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                moments.setdefault(int(index), {})[name] = value
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": whole["param_groups"]})
        self.step = int(meta["step"])
        self.history = json.loads((self.folder / "history.json").read_text())
        self.say(f"resumed at step {self.step}")


def forward(network: LeDGFormer, step: Step) -> torch.Tensor:
    """Predicted log-latency (P,) of every pair of a step; training encodes in bfloat16, the head stays in float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=network.training):
        nodes, graphs = network.encode(step.batch)
    nodes, graphs = nodes.float(), graphs.float()
    platforms = network.embed_platform(step.platform_text, step.platform_numeric)
    log_latency, share = network.head(
        nodes, graphs[step.pair_graph], step.batch.stats[step.pair_graph], platforms, step.times, step.node, step.pair
    )
    if step.scale is None:
        return log_latency
    if network.config.head == "direct":
        raise ValueError("a network without node times cannot be read through kin")
    return torch.log(segment_sum(share * torch.exp(step.scale), step.pair, len(log_latency)))


def predict_rows(
    network: LeDGFormer, batches: Batches, rows: np.ndarray, as_generic: bool = False,
    read_as: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Measured and predicted latency in ms and the row of each, in the order of the sweep; options as there."""
    network.eval()
    y, p, r = [np.zeros(0)], [np.zeros(0)], [np.zeros(0, np.int64)]
    with torch.no_grad():
        for step in batches.sweep(rows, as_generic, read_as):
            y.append(step.target.numpy())
            p.append(forward(network, step).numpy())
            r.append(step.row)
    return np.exp(np.concatenate(y, dtype=np.float64)), np.exp(np.concatenate(p, dtype=np.float64)), np.concatenate(r)
