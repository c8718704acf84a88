"""Training batches: draws (graph, batch size) items by source, packs their nodes and their measured platforms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from costmodel.features import (
    PLATFORM_FEATURES,
    PLATFORM_NUMBERS,
    generic,
    hide_runtime,
    identities,
    numeric_channel,
    placed_edges,
    platform_channel,
    platform_rates,
    rescale,
    roofline_times,
    statistics,
)
from costmodel.model import Batch
from costmodel.platforms import Platform, resolve
from costmodel.training.corpus import Corpus

LADDER_NODES = 1500
"""Nodes of a training step that also stand on unlabelled ladders."""


@dataclass(frozen=True)
class Augmentation:
    """How training steps blur platforms: share of pairs whose platform is not told to be a known one, of sentences
    dropped, of graphs that see generic devices, of graphs that see unnamed runtimes, and the standard deviation added
    to the spec sheet's logs. Where a known platform stays known, it is not blurred."""

    anonymous: float = 0.35
    text_dropout: float = 0.4
    generic: float = 0.2
    unnamed: float = 0.15
    jitter: float = 0.06


@dataclass
class Step:
    """One packed batch with its targets. P pairs (graph, platform), the first L measured; R rows (node, pair)."""

    batch: Batch
    pair_graph: Tensor  # (P,) graph within the batch
    platform_text: Tensor  # (P, t)
    platform_numeric: Tensor  # (P, f)
    node: Tensor  # (R,)
    pair: Tensor  # (R,)
    times: Tensor  # (R, 4)
    target: Tensor  # (L,) log ms
    scale: Tensor | None  # (R,) log of the row's own roofline time over the one it is read with, where they differ
    roofline: Tensor  # (P,) log of the summed roofline times in ms
    ordered: Tensor  # (M, 2) pairs of which the first cannot be faster than the second
    group: np.ndarray  # (L,) source of the row
    row: np.ndarray  # (L,) row of the corpus


@dataclass(frozen=True)
class Pool:
    """Items of one source and how many of them a training step expects: a part of one is one now and then, so that a
    source of few large networks takes no more than its share."""

    items: Sequence[np.ndarray]
    expected: float


class Batches:
    """Items of a corpus and how to pack them.

    Platforms that training measures often (`know`) are told apart by their identity, behind the channel. Training steps
    hide it now and then, and with it jitter the spec sheet's numbers, drop platform sentences, or hide everything that
    tells one device from another (`generic`), so that roofline times must carry what a new device needs. `ladders` are
    unlabelled platforms of one device and runtime from wide to narrow precision: a compiler that may pick the faster
    kernel is never slower at the narrower one, and no platform strays far from its roofline.
    `platforms` are the sentences and embeddings of each platform of the corpus, then of the ladders. Outside training,
    runtimes that are not in `named` are read without their name (`features.hide_runtime`); None names all.
    """

    def __init__(
        self,
        corpus: Corpus,
        embeddings: np.ndarray,
        platforms: tuple[Sequence[str], np.ndarray],
        template: str = "default",
        window: int = 64,
        ladders: Sequence[Sequence[Platform]] = (),
        augmentation: Augmentation = Augmentation(),
    ) -> None:
        self.corpus = corpus
        self.sentence = corpus.paper if template == "paper" else corpus.sentence
        self.embeddings = torch.from_numpy(embeddings.astype(np.float32))
        self.platform_sentences, vectors = platforms
        self.platform_embeddings = vectors.astype(np.float32)
        known = [resolve(*p) for p in corpus.platforms]
        self.ladders: list[np.ndarray] = []
        for ladder in ladders:
            self.ladders.append(np.arange(len(known), len(known) + len(ladder)))
            known += ladder
        self.rates = np.stack([platform_rates(p) for p in known])
        self.channels = np.stack([platform_channel(p) for p in known])
        self.window, self.augmentation = window, augmentation
        self.runtimes = np.array([p.runtime for p in known])
        self.named: frozenset[str] | None = None
        self.know(())

    def know(self, platforms: Sequence[str]) -> None:
        """Names the known platforms, as `device|precision|runtime`; none are known before."""
        keys = ["|".join(p) for p in self.corpus.platforms]
        keys += [""] * (len(self.channels) - len(keys))  # ladders
        self.channels = np.concatenate([self.channels[:, :PLATFORM_FEATURES], identities(keys, platforms)], 1)

    def items(self, rows: np.ndarray) -> list[np.ndarray]:
        """Row indices grouped by (source, graph, batch)."""
        c = self.corpus
        key = (c.row_source[rows].astype(np.int64) * len(c.names) + c.row_graph[rows]) * 100_000 + c.row_batch[
            rows
        ].astype(np.int64)
        order = np.argsort(key, kind="stable")
        cuts = np.flatnonzero(np.diff(key[order])) + 1
        return [rows[part] for part in np.split(order, cuts)] if len(rows) else []

    def sweep(
        self, rows: np.ndarray, as_generic: bool = False, read_as: np.ndarray | None = None, nodes: int = 6000
    ) -> Iterator[Step]:
        """Every row once, in packs of about `nodes` nodes; `as_generic` hides the devices (see `features.generic`),
        `read_as` (platforms,) names the platform that each is read as (see `kin`)."""
        pack: list[np.ndarray] = []
        size = 0
        for item in self.items(rows):
            n = self._nodes(item)
            if pack and size + n > nodes:
                yield self.pack(pack, None, as_generic, read_as)
                pack, size = [], 0
            pack.append(item)
            size += n
        if pack:
            yield self.pack(pack, None, as_generic, read_as)

    def pools(self, rows: np.ndarray, shares: Mapping[str, float], nodes: int) -> dict[str, Pool]:
        """Source → its items among `rows`, and how many of them make its share of a step of about `nodes` nodes."""
        items: dict[str, list[np.ndarray]] = {}
        for item in self.items(rows):
            items.setdefault(self.corpus.sources[self.corpus.row_source[item[0]]], []).append(item)
        return {
            source: Pool(own, shares[source] * nodes / float(np.mean([self._nodes(item) for item in own])))
            for source, own in items.items()
            if source in shares
        }

    def draw(self, pools: Mapping[str, Pool], pairs: int, rng: np.random.Generator) -> Step:
        """One random training step of at most `pairs` pairs of an item."""
        counts = {source: int(pool.expected + rng.random()) for source, pool in pools.items()}
        if not any(counts.values()):
            counts[str(rng.choice(list(pools)))] = 1
        chosen: list[np.ndarray] = []
        for source, count in counts.items():
            items = pools[source].items
            for i in rng.integers(len(items), size=count):
                item = items[i]
                chosen.append(rng.choice(item, pairs, replace=False) if len(item) > pairs else item)
        return self.pack(chosen, rng)

    def _nodes(self, item: np.ndarray) -> int:
        graph = self.corpus.row_graph[item[0]]
        return int(self.corpus.node_start[graph + 1] - self.corpus.node_start[graph])

    def pack(
        self, items: Sequence[np.ndarray], rng: np.random.Generator | None = None, as_generic: bool = False,
        read_as: np.ndarray | None = None,
    ) -> Step:  # fmt: skip
        """Packs items into one step; `rng` switches the augmentation on."""
        c = self.corpus
        graphs = np.array([c.row_graph[item[0]] for item in items])
        batch = np.array([c.row_batch[item[0]] for item in items], np.float32)
        counts = c.node_start[graphs + 1] - c.node_start[graphs]
        first = np.cumsum(counts) - counts
        spans = [slice(c.node_start[g], c.node_start[g + 1]) for g in graphs]
        n = int(counts.sum())
        padded = -(-n // self.window) * self.window if self.window else n
        owner = np.repeat(np.arange(len(graphs)), counts)
        columns = np.concatenate([c.columns[s] for s in spans])
        columns = rescale(columns, (batch / c.batch[graphs])[owner])
        stats = np.stack([statistics(columns[f : f + k], b) for f, k, b in zip(first, counts, batch, strict=False)])
        src, seg = self._edges(graphs, counts, first, padded)
        text = torch.from_numpy(np.concatenate([self.sentence[s] for s in spans]).astype(np.int64))
        numeric = np.zeros((padded, numeric_channel(columns[:1]).shape[1]), np.float32)
        numeric[:n] = numeric_channel(columns)
        node_text = torch.zeros(padded, self.embeddings.shape[1])
        node_text[:n] = self.embeddings[text]
        packed = Batch(
            node_text, torch.from_numpy(numeric),
            torch.from_numpy(np.concatenate([owner, np.full(padded - n, len(graphs))]).astype(np.int64)),
            torch.from_numpy(src), torch.from_numpy(seg), torch.from_numpy(stats),
        )  # fmt: skip
        rows = np.concatenate(items)
        pair_graph = np.repeat(np.arange(len(items)), [len(item) for item in items])
        platform = c.row_platform[rows]
        ordered = np.zeros((0, 2), np.int64)
        if rng is not None and self.ladders:
            more_graphs, more_platforms, ordered = self._rungs(counts, len(rows), rng)
            pair_graph = np.concatenate([pair_graph, more_graphs])
            platform = np.concatenate([platform, more_platforms])
        pair_counts = counts[pair_graph]
        pair = np.repeat(np.arange(len(platform)), pair_counts)
        node = (
            np.arange(len(pair))
            - np.repeat(np.cumsum(pair_counts) - pair_counts, pair_counts)
            + first[pair_graph][pair]
        )
        own, scale = platform, None
        if read_as is not None:
            platform = read_as[own]
        text_p, channel = self._platforms(platform, pair_graph, len(rows), rng)
        if as_generic:
            text_p, channel = generic(text_p, channel)
        times = roofline_times(columns[node], self.rates[platform][pair])
        if read_as is not None:
            scale = torch.from_numpy(roofline_times(columns[node], self.rates[own][pair])[:, -1] - times[:, -1])
        roofline = np.log(np.bincount(pair, np.exp(times[:, -1].astype(np.float64)), len(platform)))
        return Step(
            packed, torch.from_numpy(pair_graph), torch.from_numpy(text_p), torch.from_numpy(channel),
            torch.from_numpy(node), torch.from_numpy(pair),
            torch.from_numpy(times), torch.from_numpy(np.log(c.row_ms[rows]).astype(np.float32)),
            scale, torch.from_numpy(roofline.astype(np.float32)), torch.from_numpy(ordered),
            c.row_source[rows], rows,
        )  # fmt: skip

    def _rungs(
        self, counts: np.ndarray, first_pair: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Graphs and platforms of unlabelled pairs on random ladders, and which pair must not be faster than which."""
        graphs: list[int] = []
        platforms: list[int] = []
        ordered: list[tuple[int, int]] = []
        budget = LADDER_NODES
        for graph in rng.permutation(len(counts)):
            if counts[graph] > budget:
                break
            budget -= int(counts[graph])
            ladder = self.ladders[rng.integers(len(self.ladders))]
            start = first_pair + len(graphs)
            ordered += [(start + k, start + k + 1) for k in range(len(ladder) - 1)]
            graphs += [int(graph)] * len(ladder)
            platforms += ladder.tolist()
        shape = (len(ordered), 2)
        return np.array(graphs, np.int64), np.array(platforms, np.int64), np.array(ordered, np.int64).reshape(shape)

    def _edges(
        self, graphs: np.ndarray, counts: np.ndarray, first: np.ndarray, padded: int
    ) -> tuple[np.ndarray, np.ndarray]:
        c = self.corpus
        spans = [slice(c.edge_start[g], c.edge_start[g + 1]) for g in graphs]
        parts = [
            placed_edges(c.src[span], c.seg[span], n, offset, padded)
            for span, n, offset in zip(spans, counts, first, strict=True)
        ]
        src, seg = zip(*parts, strict=True)
        return np.concatenate(src), np.concatenate(seg)

    def _platforms(
        self, platform: np.ndarray, graph: np.ndarray, measured: int, rng: np.random.Generator | None
    ) -> tuple[np.ndarray, np.ndarray]:
        text, channel = self.platform_embeddings[platform], self.channels[platform]
        if rng is not None:
            channel[rng.random(len(platform)) < self.augmentation.anonymous, PLATFORM_FEATURES:] = 0
            known = channel[:, PLATFORM_FEATURES:].any(1, keepdims=True)
            dropped = rng.random((len(platform), 1)) < self.augmentation.text_dropout
            text = text * (known | ~dropped).astype(np.float32)
            noise = rng.normal(0, self.augmentation.jitter, (len(platform), PLATFORM_NUMBERS)).astype(np.float32)
            noise[measured:] = 0  # the rungs of a ladder must stay comparable
            channel[:, :PLATFORM_NUMBERS] += noise * ~known
            hidden = (rng.random(graph.max() + 1) < self.augmentation.generic)[graph]  # all pairs of a graph alike
            text[hidden], channel[hidden] = generic(text[hidden], channel[hidden])
            unnamed = (rng.random(graph.max() + 1) < self.augmentation.unnamed)[graph]
        else:
            named = self.runtimes if self.named is None else list(self.named)
            unnamed = ~np.isin(self.runtimes[platform], named)
        text[unnamed], channel[unnamed] = hide_runtime(text[unnamed], channel[unnamed])
        return text, channel
