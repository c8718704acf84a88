"""What adapters see of graphs on one platform: the model's own answer, where its time goes, and the roofline's view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from costmodel.finetune.classes import CLASSES, TRAITS, classes_of, traits

if TYPE_CHECKING:
    from costmodel.predictor import Form

_NATS = 20 * np.log(2)  # `features.statistics` are log2 / 20
_NOTHING = 1.01e-7  # ms: the floor of `features.roofline_times`
_PER_GRAPH = ("log_ms", "shares", "size", "vectors", "stats")
_PER_NODE = ("node_ms", "log_times", "traits")


@dataclass(frozen=True)
class Readings:
    """G graphs on one platform, R nodes in all, those of a graph together.

    log_ms   (G,)   ln of the model's latency in ms
    shares   (G, C) share of that time in each operator class
    size     (G, 5) ln of latency, FLOPs, weights, traffic and nodes
    vectors  (G, d) graph vectors
    stats    (G, 4) `features.statistics`
    start    (G+1,) first node of each graph
    node_ms  (R,)   the model's time of each node
    log_times (R, 4) ln of roofline times in ms: compute, memory, launch, all
    traits   (R, TRAITS) of each node, see `classes.traits`
    nodes    (R, d) node vectors, where they were asked for
    """

    log_ms: np.ndarray
    shares: np.ndarray
    size: np.ndarray
    vectors: np.ndarray
    stats: np.ndarray
    start: np.ndarray
    node_ms: np.ndarray
    log_times: np.ndarray
    traits: np.ndarray
    nodes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.log_ms)

    @cached_property
    def times(self) -> np.ndarray:
        """(R, 3) roofline times in ms: compute, memory, launch; 0 where there is nothing to do."""
        times = np.exp(self.log_times[:, :3].astype(np.float64))
        return np.where(times > _NOTHING, times, 0)

    @property
    def owner(self) -> np.ndarray:
        """(R,) the graph of each node."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def rows(self, graphs: np.ndarray) -> np.ndarray:
        """Nodes of some graphs, in their order."""
        return np.concatenate([np.arange(self.start[g], self.start[g + 1]) for g in graphs])

    def take(self, graphs: np.ndarray) -> Readings:
        """Some of the graphs."""
        rows = self.rows(graphs)
        start = np.concatenate([[0], np.cumsum(np.diff(self.start)[graphs])])
        return Readings(
            self.log_ms[graphs], self.shares[graphs], self.size[graphs], self.vectors[graphs], self.stats[graphs],
            start, self.node_ms[rows], self.log_times[rows], self.traits[rows],
            None if self.nodes is None else self.nodes[rows],
        )  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence[Readings]) -> Readings:
        """Several readings of one platform as one."""

        def all_of(name: str) -> np.ndarray:
            return np.concatenate([getattr(p, name) for p in parts])

        counts = np.concatenate([np.diff(p.start) for p in parts])
        return cls(
            **{name: all_of(name) for name in _PER_GRAPH + _PER_NODE}, start=np.concatenate([[0], np.cumsum(counts)]),
            nodes=None if any(p.nodes is None for p in parts) else all_of("nodes"),
        )  # fmt: skip

    def rebased(self, log_ms: np.ndarray) -> Readings:
        """The same graphs with other latencies to start from."""
        return replace(self, log_ms=log_ms, size=np.concatenate([log_ms[:, None], self.size[:, 1:]], 1))


def read(
    forms: Sequence[Form], log_ms: np.ndarray, node_ms: np.ndarray, log_times: np.ndarray, nodes: bool = False
) -> Readings:
    """Readings of graphs with nodes: ln of their latency (G,), their nodes' parts of it (R,) and ln of the
    nodes' roofline times (R, 4), as the head gives them; `nodes` keeps the node vectors."""
    counts = [len(f.nodes) for f in forms]
    start = np.concatenate([[0], np.cumsum(counts)])
    owner = np.repeat(np.arange(len(forms)), counts)
    log_ms = log_ms.astype(np.float64)
    node_ms = np.maximum(node_ms.astype(np.float64), 1e-12)
    node_ms *= (np.exp(log_ms) / np.add.reduceat(node_ms, start[:-1]))[owner]
    klass = [classes_of(f.prepared.graph) for f in forms]
    shares = np.zeros((len(forms), len(CLASSES)))
    np.add.at(shares, (owner, np.concatenate(klass)), node_ms)
    shares /= np.exp(log_ms)[:, None]
    stats = np.concatenate([f.stats for f in forms])
    quantities = stats[:, 1:].astype(np.float64) * _NATS  # ln of FLOPs, weights, traffic
    size = np.concatenate([log_ms[:, None], quantities, np.log(np.array(counts, np.float64))[:, None]], 1)
    intensity = (log_times[:, 0] - log_times[:, 1]).astype(np.float64)
    table = np.empty((len(owner), TRAITS))
    for i, f in enumerate(forms):
        here = slice(start[i], start[i + 1])
        table[here] = traits(f.prepared.graph, f.prepared.features, klass[i], intensity[here])
    vectors = np.concatenate([f.graph for f in forms]).astype(np.float64)
    kept = np.concatenate([f.nodes for f in forms]) if nodes else None
    return Readings(log_ms, shares, size, vectors, stats, start, node_ms, log_times, table, kept)
