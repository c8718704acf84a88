"""A transformer with static adjacency, in the manner of NN-Former (Xu et al. 2025, arXiv 2507.00880).

Operators are one-hot codes beside numbers; attention is restricted by the graph, one group of heads for each of four
relations (children, parents, nodes that share a parent, nodes that share a child); the feed-forward layer mixes each
node with its neighbours; nodes are summed, and graph statistics joined before the head. The relations are the same for
every node and layer, which is what LeDG-Former's dynamic weights replace.

Where the publication has one head per device, this one reads the spec sheet, so that it answers any platform.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from costmodel.features import NODE_FEATURES, PLATFORM_FEATURES
from costmodel.model import Batch, segment_sum

GROUPS = 4
STATISTICS = 4


@dataclass(frozen=True)
class NNFormerConfig:
    """Shape of the network; `codes` is the number of operator codes, which follows from the data."""

    codes: int = 0
    width: int = 128
    layers: int = 2
    heads: int = 4
    ffn_ratio: float = 4.0
    dropout: float = 0.05


def relatives(src: np.ndarray, seg: np.ndarray, nodes: int) -> list[tuple[Tensor, Tensor]]:
    """Four edge lists (source, target) for attention, each with self-loops, and for the last two without repeats.

    src, seg  edges as in `model.Batch`, of which relation 0 lists every node's children
    """
    own = np.arange(nodes)
    first = seg < nodes
    child, parent = src[first], seg[first]
    found = [(child, parent), (parent, child), _sharing(parent, child, nodes), _sharing(child, parent, nodes)]
    return [(torch.from_numpy(np.concatenate([own, s])), torch.from_numpy(np.concatenate([own, t]))) for s, t in found]


def _sharing(key: np.ndarray, member: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs of different members that stand with the same key, each once."""
    order = np.argsort(key, kind="stable")
    key, member = key[order], member[order]
    counts = np.bincount(key, minlength=nodes)
    starts = np.cumsum(counts) - counts
    partners = counts[key]
    left = np.repeat(member, partners)
    offset = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
    right = member[np.repeat(starts[key], partners) + offset]
    pairs = np.unique(left[left != right] * nodes + right[left != right])
    return pairs // max(nodes, 1), pairs % max(nodes, 1)


class AdjacencyAttention(nn.Module):
    """Self-attention whose head groups each see one relation."""

    def __init__(self, config: NNFormerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, edges: list[tuple[Tensor, Tensor]]) -> Tensor:
        n, d = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, GROUPS, self.heads // GROUPS, -1).unbind(1)  # (N, 4, heads/4, d/heads)
        mixed = []
        for group, (src, target) in enumerate(edges):
            score = (q[target, group] * k[src, group]).sum(-1) * (d // self.heads) ** -0.5  # (E, heads/4)
            weight = torch.exp(score.clamp(-30, 30)).unsqueeze(-1)
            total = segment_sum(torch.cat([weight * v[src, group], weight], -1), target, n)
            mixed.append(total[..., :-1] / total[..., -1:])  # (N, heads/4, d/heads)
        return self.out(torch.cat(mixed, 1).reshape(n, d))


class NeighbourFFN(nn.Module):
    """Feed-forward layer whose hidden half adds what the children, and half what the parents, have."""

    def __init__(self, config: NNFormerConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.ffn_ratio) // 2 * 2
        self.own = nn.Linear(config.width, hidden)
        self.near = nn.Linear(config.width, hidden)
        self.out = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor, edges: list[tuple[Tensor, Tensor]]) -> Tensor:
        n = x.shape[0]
        halves = self.near(x).chunk(2, 1)
        near = [segment_sum(h[src[n:]], target[n:], n) for h, (src, target) in zip(halves, edges[:2], strict=True)]
        return self.out(torch.nn.functional.gelu(self.own(x) + torch.cat(near, 1)))


class NNFormer(nn.Module):
    """Log-latency in ms of pairs of a graph and a platform."""

    def __init__(self, config: NNFormerConfig) -> None:
        super().__init__()
        if config.heads % GROUPS:
            raise ValueError(f"heads must be a multiple of {GROUPS}, not {config.heads}")
        width = config.width
        self.embed = nn.Linear(config.codes + NODE_FEATURES, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * config.layers + 1))
        self.attention = nn.ModuleList(AdjacencyAttention(config) for _ in range(config.layers))
        self.ffn = nn.ModuleList(NeighbourFFN(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.pool = nn.Linear(width, width)
        self.head = nn.Sequential(nn.Linear(width + STATISTICS + PLATFORM_FEATURES, width), nn.GELU())
        self.answer = nn.Linear(width, 1)

    def forward(
        self, batch: Batch, edges: list[tuple[Tensor, Tensor]], pair_graph: Tensor, platforms: Tensor
    ) -> Tensor:
        """(P,) of pairs; batch.text holds one-hot codes (N, codes), platforms spec-sheet numbers (P, features)."""
        x = self.embed(torch.cat([batch.text, batch.numeric], 1))
        for i, (attention, ffn) in enumerate(zip(self.attention, self.ffn, strict=True)):
            x = x + self.dropout(attention(self.norms[2 * i](x), edges))
            x = x + self.dropout(ffn(self.norms[2 * i + 1](x), edges))
        graphs = segment_sum(self.pool(self.norms[-1](x)), batch.graph, batch.stats.shape[0] + 1)[pair_graph]
        graphs = torch.sign(graphs) * torch.log1p(graphs.abs())  # sums grow with the graph: deep and wide in one range
        return self.answer(self.head(torch.cat([graphs, batch.stats[pair_graph], platforms], 1))).squeeze(1)
