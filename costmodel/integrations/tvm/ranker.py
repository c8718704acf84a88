"""The network that ranks schedules: LeDG-Former's encoder over loop graphs, and a head per block.

log-latency = ln Σ_blocks exp(baseline_i + r_i), r_i = head(node vector, graph vector, platform vector)

The baseline is the block's work in vector operations per core, so an untrained network already prefers schedules that
vectorise and run in parallel. Several heads, each trained on its own resampling of the measurements, share the
encoder; how far they disagree says where more should be measured. Only differences between schedules of one task
matter, so the loss looks at nothing else. Needs torch.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from costmodel.errors import BundleVersionError, CorruptBundleError
from costmodel.integrations.tvm.loops import LOOP_FEATURES, LoopGraph, Packed, pack
from costmodel.integrations.tvm.memory import Task
from costmodel.integrations.tvm.targets import PLATFORM_NUMBERS
from costmodel.model import Batch, Block, ModelConfig, segment_sum

FORMAT = 1
_LOWEST = -30.0  # ln of a baseline that adds nothing


@dataclass(frozen=True)
class RankerConfig:
    """Shape of the network; stored beside its weights."""

    width: int = 48
    layers: int = 2
    heads: int = 4
    members: int = 4
    hidden: int = 48
    window: int = 32
    dropout: float = 0.0
    text_width: int = 384
    loop_features: int = LOOP_FEATURES
    platform_numbers: int = PLATFORM_NUMBERS


class RankNet(nn.Module):
    """Packed loop graphs and their platforms → ln latency (members, B), up to a constant per task."""

    def __init__(self, config: RankerConfig) -> None:
        super().__init__()
        self.config = config
        shape = ModelConfig(
            width=config.width, layers=config.layers, heads=config.heads, dropout=config.dropout, window=config.window,
            text_width=config.text_width, node_features=config.loop_features,
        )  # fmt: skip
        width, hidden = config.width, config.hidden
        self.text = nn.Linear(config.text_width, width)
        self.numeric = nn.Sequential(nn.Linear(config.loop_features, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.node_in = nn.Linear(width, config.members * hidden)
        self.graph_in = nn.Linear(width, config.members * hidden, bias=False)
        self.platform_in = nn.Linear(config.platform_numbers, config.members * hidden, bias=False)
        nn.init.zeros_(self.platform_in.weight)  # what no measurement varied says nothing
        self.out = nn.Parameter(torch.zeros(config.members, hidden))

    def forward(self, batch: Batch, sentence: Tensor, baseline: Tensor, platforms: Tensor) -> Tensor:
        """batch.text (S, t): one row per distinct sentence; sentence (N,); baseline (N,); platforms (B, p)."""
        graphs = platforms.shape[0]
        x = self.text(batch.text).index_select(0, sentence) + self.numeric(batch.numeric)  # (N, d)
        for block in self.blocks:
            x = block(x, batch)
        x = self.norm(x)
        total = segment_sum(torch.cat([x, torch.ones_like(x[:, :1])], 1), batch.graph, graphs + 1)[:graphs]
        context = self.graph_in(total[:, :-1] / total[:, -1:].clamp(min=1)) + self.platform_in(platforms)
        own = torch.isfinite(baseline) & (batch.graph < graphs)
        graph = batch.graph[own]
        hidden = F.gelu(self.node_in(x[own]) + context.index_select(0, graph))  # (blocks, members · hidden)
        ratio = (hidden.reshape(len(graph), *self.out.shape) * self.out).sum(-1)  # (blocks, members)
        ratio = 8 * torch.tanh(ratio / 8) + baseline[own].unsqueeze(1)
        highest = torch.full((graphs, ratio.shape[1]), _LOWEST).scatter_reduce(
            0, graph.unsqueeze(1).expand_as(ratio), ratio.detach(), "amax"
        )
        share = torch.exp(ratio - highest.index_select(0, graph))
        return (torch.log(segment_sum(share, graph, graphs).clamp(min=1e-9)) + highest).T


class Ranker:
    """A ranking network, the vectors of its sentences, and its training."""

    def __init__(self, config: RankerConfig, sentences: dict[str, NDArray[np.float32]], seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.config = config
        self.net = RankNet(config).eval()
        self.sentences = sentences
        self.summary: dict[str, Any] = {}

    def predict(
        self, graphs: Sequence[LoopGraph], platform: NDArray[np.float32], chunk: int = 256
    ) -> NDArray[np.float32]:
        """ln latency (members, n) up to a constant per task, shorter is better."""
        found = []
        with torch.inference_mode():
            for start in range(0, len(graphs), chunk):
                part = graphs[start : start + chunk]
                found.append(self._run(part, np.tile(platform, (len(part), 1))).numpy())
        return np.concatenate(found, 1) if found else np.zeros((self.config.members, 0), np.float32)

    def fit(self, tasks: Sequence[Task], steps: int, rate: float = 2e-3, batch: int = 128, seed: int = 0,
            focus: int | None = None) -> float:  # fmt: skip
        """Trains on measured tasks; `focus` is the index of a task that makes half of every batch. Last loss.

        A step takes schedules of a few tasks. The loss is a Huber loss of ln latency relative to the task's mean in
        the batch, plus a logistic loss on pairs of a task, weighted by how fast the faster one is.
        """
        tasks = [t for t in tasks if len(t.graphs) > 1]
        if not tasks:
            return 0.0
        rng = np.random.default_rng(seed)
        targets = [t.targets() for t in tasks]
        weights = [_resampled(rng, len(t), self.config.members) for t in targets]
        optimiser = torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=1e-2)
        self.net.train()
        last = 0.0
        for step in range(steps):
            for group in optimiser.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 5) * (1 - step / steps)
            drawn = _draw(rng, [len(t) for t in targets], batch, focus)
            graphs = [tasks[t].graphs[i] for t, rows in drawn for i in rows]
            platforms = np.stack([tasks[t].platform for t, rows in drawn for _ in rows])
            out = self._run(graphs, platforms)
            losses, start = [], 0
            for t, rows in drawn:
                part = slice(start, start := start + len(rows))
                losses.append(
                    _loss(out[:, part], torch.from_numpy(targets[t][rows]), torch.from_numpy(weights[t][:, rows]))
                )
            loss = torch.stack(losses).mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            optimiser.step()
            last = float(loss.detach())
        self.net.eval()
        return last

    def save(self, path: str | os.PathLike[str], **more: NDArray[Any]) -> None:
        """Writes everything to one `.npz` file; `more` are arrays to keep beside it."""
        config = {"format": FORMAT, "network": asdict(self.config), "summary": self.summary, "said": [*self.sentences]}
        arrays = {f"net.{k}": v.numpy() for k, v in self.net.state_dict().items()}
        arrays["sentences"] = np.stack([*self.sentences.values()]).astype(np.float16)
        arrays["config"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
        raw = io.BytesIO()
        np.savez_compressed(raw, **arrays, **more)  # type: ignore[arg-type]
        Path(path).write_bytes(raw.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple[Ranker, dict[str, NDArray[Any]]]:
        """A saved ranker and the further arrays of the file.

        Raises CorruptBundleError if the file cannot be read, BundleVersionError if it was made for other features.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            config = json.loads(arrays.pop("config").tobytes())
            shape = RankerConfig(**config["network"])
            current = (config["format"], shape.loop_features, shape.platform_numbers)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise CorruptBundleError(f"ranking model {path} cannot be read; retrain it") from error
        if current != (FORMAT, LOOP_FEATURES, PLATFORM_NUMBERS):
            raise BundleVersionError(f"ranking model {path} was trained on other features; retrain it")
        vectors = arrays.pop("sentences").astype(np.float32)
        ranker = cls(shape, dict(zip(config["said"], vectors, strict=True)))
        ranker.summary = config["summary"]
        state = {k.removeprefix("net."): torch.from_numpy(arrays.pop(k)) for k in [*arrays] if k.startswith("net.")}
        try:
            ranker.net.load_state_dict(state)
        except RuntimeError as error:
            raise BundleVersionError(f"ranking model {path} holds another network; retrain it") from error
        return ranker, arrays

    def _run(self, graphs: Sequence[LoopGraph], platforms: NDArray[np.float32]) -> Tensor:
        packed = pack(graphs, self.config.window)
        found: Tensor = self.net(
            self._batch(packed), torch.from_numpy(packed.sentence), torch.from_numpy(packed.baseline),
            torch.from_numpy(platforms),
        )  # fmt: skip
        return found

    def _batch(self, packed: Packed) -> Batch:
        silent = np.zeros(self.config.text_width, np.float32)
        text = np.stack([self.sentences.get(s, silent) for s in packed.sentences])
        stats = torch.zeros(packed.size, 4)
        return Batch(
            torch.from_numpy(text), torch.from_numpy(packed.numbers), torch.from_numpy(packed.graph),
            torch.from_numpy(packed.src), torch.from_numpy(packed.seg), stats,
        )  # fmt: skip


def _resampled(rng: np.random.Generator, count: int, members: int) -> NDArray[np.float32]:
    """Weights (members, count) of a Bayesian bootstrap, kept above zero so that no member is blind to a schedule."""
    return (0.25 + 0.75 * rng.exponential(size=(members, count))).astype(np.float32)


def _draw(
    rng: np.random.Generator, sizes: Sequence[int], batch: int, focus: int | None
) -> list[tuple[int, NDArray[np.int64]]]:
    """Task and rows of each part of a batch: up to four tasks, or the focus and up to two others."""
    if focus is None:
        chosen = rng.choice(len(sizes), min(4, len(sizes)), replace=False)
        parts = [(int(t), batch // len(chosen)) for t in chosen]
    else:
        others = rng.permutation([t for t in range(len(sizes)) if t != focus])[:2]
        parts = [(focus, batch if not len(others) else batch // 2)]
        parts += [(int(t), batch // 2 // len(others)) for t in others]
    return [(t, rng.permutation(sizes[t])[: max(n, 2)]) for t, n in parts]


def _loss(out: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """out (members, n), target (n,), weight (members, n): see `Ranker.fit`."""
    total = weight.sum(1, keepdim=True)
    error = out - target
    error = error - (error * weight).sum(1, keepdim=True) / total
    fit = (F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=0.5) * weight).sum(1) / total[:, 0]
    gap = target.unsqueeze(0) - target.unsqueeze(1)  # (n, n): positive where the row is faster
    first, second = torch.nonzero(gap > 0.05, as_tuple=True)
    if not len(first):
        return fit.mean()
    speed = torch.exp(target.min() - target)  # 1 for the fastest
    pair = speed[first] * weight[:, first] * weight[:, second]  # (members, pairs)
    losing = F.softplus(2 * (out[:, first] - out[:, second]))
    return (fit + (losing * pair).sum(1) / pair.sum(1).clamp(min=1e-6)).mean()
