"""LeDG-Former: the whole network, read top to bottom (method: arXiv 2506.07735, restated in the README).

Graphs are packed flat: N nodes of B graphs one after the other, no padding between them, so one definition serves a
single graph, a training batch and an ONNX export. Shapes: N nodes, B graphs, E edges of all relations, P pairs
(graph, platform), R rows (one per node and pair), d width, t text width (384 for MiniLM).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELATIONS = 3  # son, father, grandparent


@dataclass(frozen=True)
class ModelConfig:
    """Everything that changes the network's shape or meaning; stored in the bundle.

    attention "dgsa": the paper's; "global": plain self-attention over the whole graph, quadratic, for the ablation
    mask      "softmax": −inf outside I + M_r; "multiply": the paper's formula as printed, scores times the 0/1 mask
    dynamic   weights of the relations per node by causal attention; False: one learned weight each
    window    nodes the causal attention looks back over; 0 means all (quadratic)
    numeric   quantities beside each sentence (nodes and platforms)
    language  sentence embeddings; False leaves the numeric channel alone
    head      "roofline": log-ratio to each node's roofline time, summed; "direct": log-latency from the graph vector
    """

    width: int = 128
    layers: int = 3
    heads: int = 4
    ffn_ratio: float = 2.0
    dropout: float = 0.05
    attention: str = "dgsa"
    mask: str = "softmax"
    dynamic: bool = True
    window: int = 64
    numeric: bool = True
    language: bool = True
    head: str = "roofline"
    text_width: int = 384
    node_features: int = 0
    platform_features: int = 0
    graph_features: int = 4
    platform_width: int = 64
    platform_text_width: int = 32
    head_width: int = 64
    node_template: str = "default"
    platform_template: str = "default"


@dataclass
class Batch:
    """Packed graphs. N must be a multiple of `window` when that is not 0: pad with nodes of graph B.

    text      (N, t) sentence embedding of each node
    numeric   (N, f) numeric channel of each node
    graph     (N,)   index of the node's graph, ascending; B marks padding
    src, seg  (E,)   source node, and relation · N + target node, of M_r alone; every node also sees itself
    stats     (B, 4) log of batch, FLOPs, parameters and memory traffic
    """

    text: Tensor
    numeric: Tensor
    graph: Tensor
    src: Tensor
    seg: Tensor
    stats: Tensor


class _RowSum(torch.autograd.Function):
    """`zeros` with rows added where their index says; in ONNX one ScatterND, which adds whole rows at a time."""

    @staticmethod
    def forward(ctx: Any, zeros: Tensor, index: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return zeros.index_add(0, index, values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor]:
        (index,) = ctx.saved_tensors
        return grads[0], None, grads[0].index_select(0, index)

    @staticmethod
    def symbolic(g: Any, zeros: Any, index: Any, values: Any) -> Any:
        column = g.op("Unsqueeze", index, g.op("Constant", value_t=torch.tensor([1])))
        return g.op("ScatterND", zeros, column, values, reduction_s="add")


def segment_sum(values: Tensor, index: Tensor, size: int | Tensor) -> Tensor:
    """Sums rows of `values` (M, …) that share an index (M,) into (size, …)."""
    shape: Any = (size, *values.shape[1:])  # under export the size is a tensor
    return _RowSum.apply(torch.zeros(shape, dtype=values.dtype, device=values.device), index, values)


class DynamicGraphAttention(nn.Module):
    """DGSA: three attention maps over shared Q, K, V, one per relation, mixed by per-node dynamic weights.

    X_r = σ((QKᵀ ∘ (I + M_r)) / √h) V;  output_i = Σ_r W_r(i) · X_r(i). Work is linear in nodes and edges.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.mask = config.mask
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)
        self.weights: nn.Module = DynamicWeights(config) if config.dynamic else FixedWeights()

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        n, d = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, -1).unbind(1)  # (N, heads, d/heads) each
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)  # (N, heads, d/heads + 1): the last column counts weights
        own = self._weight(q, k) * v  # the identity in I + M_r
        weight = self._weight(q.index_select(0, batch.seg % n), k.index_select(0, batch.src))  # (E, heads, 1)
        if self.mask == "multiply":
            # A pair outside the relation scores 0, so weighs exp(0) = 1: count it through the graph's totals.
            whole = segment_sum(v, batch.graph, batch.stats.shape[0] + 1).index_select(0, batch.graph)
            own, weight = own + whole - v, weight - 1
        total = segment_sum(weight * v.index_select(0, batch.src), batch.seg, RELATIONS * n)
        total = total + own.repeat(RELATIONS, 1, 1)  # (3N, heads, d/heads + 1)
        mixed = (total[..., :-1] / total[..., -1:].clamp(min=1e-9)).reshape(RELATIONS, n, d)  # X_r: (3, N, d)
        share = self.weights(x, batch.graph)  # (N, 3)
        return self.out((share.T.unsqueeze(-1) * mixed).sum(0))  # (N, d)

    def _weight(self, q: Tensor, k: Tensor) -> Tensor:
        """Unnormalised attention (…, heads, 1) of queries on the keys beside them, both (…, heads, d/heads)."""
        scores = (q * k).sum(-1, keepdim=True) * q.shape[-1] ** -0.5
        return torch.exp(scores.clamp(-40, 40))


class GlobalAttention(nn.Module):
    """The ablation without structure: every node attends to all nodes of its graph."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        counts = torch.bincount(batch.graph, minlength=batch.stats.shape[0] + 1)
        place = torch.arange(len(x)) - (counts.cumsum(0) - counts)[batch.graph]
        packed = x.new_zeros(len(counts), int(counts.max()), x.shape[1])
        packed[batch.graph, place] = x
        real = torch.arange(packed.shape[1]) < counts.unsqueeze(1)  # (B + 1, longest)
        real[:, 0] = True  # graphs without nodes: no softmax is empty
        q, k, v = self.qkv(packed).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, real[:, None, None]).transpose(1, 2).flatten(2)
        return self.out(mixed[batch.graph, place])  # (N, d)


class FixedWeights(nn.Module):
    """The ablation without dynamics: one learned weight per relation, the same for every node."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(RELATIONS))

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return torch.softmax(self.logits, 0).expand(x.shape[0], -1)  # (N, 3)


class DynamicWeights(nn.Module):
    """W_1, W_2, W_3 = Softmax(MLP(f_w)), f_w_i = Softmax(q_i · (k_1…k_i)) (v_1…v_i), per node.

    With a window w, node i looks back over the last w nodes of its graph; equal to the full form for graphs of at
    most w nodes. Blocks of w queries meet the keys of their own and the previous block, so memory is linear.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.window = config.window
        self.width = max(config.width // 4, 8)
        self.qkv = nn.Linear(config.width, 3 * self.width)
        self.mlp = nn.Linear(self.width, RELATIONS)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        w = self.window or x.shape[0]
        q, k, v = self.qkv(x).reshape(-1, w, 3, self.width).unbind(2)  # (N/w, w, width) each
        ids = graph.reshape(-1, w)  # (N/w, w)
        place = torch.arange(w, device=x.device)
        behind = place.unsqueeze(1) - place.unsqueeze(0)  # (w, w): how far key lies before query in the same block
        own = (ids.unsqueeze(2) == ids.unsqueeze(1)) & (behind >= 0)  # (N/w, w, w)
        if self.window:
            k, v = (torch.cat([_previous(t), t], 1) for t in (k, v))  # (N/w, 2w, width)
            before = (ids.unsqueeze(2) == _previous(ids, -1).unsqueeze(1)) & (behind < 0)
            own = torch.cat([before, own], 2)  # (N/w, w, 2w)
        scores = (q @ k.transpose(1, 2)) * self.width**-0.5
        f_w = torch.softmax(scores.masked_fill(~own, float("-inf")), -1) @ v  # (N/w, w, width)
        return torch.softmax(self.mlp(f_w).reshape(-1, RELATIONS), -1)  # (N, 3)


def _previous(blocks: Tensor, fill: int = 0) -> Tensor:
    """Each block's predecessor; the first gets `fill`. Shape kept."""
    return torch.cat([torch.full_like(blocks[:1], fill), blocks[:-1]], 0)


class Block(nn.Module):
    """Pre-norm transformer layer with DGSA in place of self-attention."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.ffn_ratio)
        self.norm1 = nn.LayerNorm(config.width)
        self.attention = (GlobalAttention if config.attention == "global" else DynamicGraphAttention)(config)
        self.norm2 = nn.LayerNorm(config.width)
        self.ffn = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, config.width))
        self.dropout = nn.Dropout1d(config.dropout)  # of a node's whole branch

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), batch))
        return x + self.dropout(self.ffn(self.norm2(x)))


class LeDGFormer(nn.Module):
    """Encodes graphs once (`encode`), then answers any number of platforms (`embed_platform`, `head`)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, config.head_width
        self.text = nn.Linear(config.text_width, width)
        self.numeric = nn.Sequential(nn.Linear(config.node_features, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.platform_text = nn.Linear(config.text_width, config.platform_text_width)
        self.platform = nn.Sequential(
            nn.Linear(config.platform_text_width + config.platform_features, config.platform_width),
            nn.GELU(),
            nn.Linear(config.platform_width, config.platform_width),
        )
        graph_in = width + config.graph_features + config.platform_width
        graph_in += TIME_TERMS if config.head == "roofline" else 0
        self.graph_head = nn.Sequential(
            nn.Linear(graph_in, 2 * hidden), nn.GELU(), nn.Linear(2 * hidden, hidden), nn.GELU(), nn.Linear(hidden, 1)
        )
        if config.head == "roofline":
            self.node_in = nn.Linear(width, hidden)
            self.platform_gate = nn.Linear(config.platform_width, hidden, bias=False)
            self.platform_in = nn.Linear(config.platform_width, hidden, bias=False)
            self.times_in = nn.Linear(TIME_TERMS, hidden, bias=False)
            self.node_head = nn.Sequential(nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))
            nn.init.zeros_(self.platform_gate.weight)
            for parameter in (*self.node_head[-1].parameters(), *self.graph_head[-1].parameters()):
                nn.init.zeros_(parameter)  # an untrained network is the roofline

    def encode(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Node vectors (N, d) and graph vectors (B, d): the mean of the graph's nodes."""
        x = self.text(batch.text) if self.config.language else self.text.bias.expand(batch.text.shape[0], -1)
        if self.config.numeric:
            x = x + self.numeric(batch.numeric)
        for block in self.blocks:
            x = block(x, batch)
        x = self.norm(x)
        graphs = batch.stats.shape[0]
        total = segment_sum(torch.cat([x, torch.ones_like(x[:, :1])], 1), batch.graph, graphs + 1)[:graphs]
        return x, total[:, :-1] / total[:, -1:].clamp(min=1)

    def embed_platform(self, text: Tensor, numeric: Tensor) -> Tensor:
        """Platform vectors (P, p) from sentence embeddings (P, t) and spec-sheet numbers (P, f)."""
        text = self.platform_text(text) if self.config.language else self.platform_text.bias.expand(text.shape[0], -1)
        return self.platform(torch.cat([text, numeric if self.config.numeric else torch.zeros_like(numeric)], 1))

    def head(
        self, nodes: Tensor, graphs: Tensor, stats: Tensor, platforms: Tensor, times: Tensor, node: Tensor, pair: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-latency in ms (P,) of each pair and each row's share of it in ms (R,).

        nodes (N, d); graphs (P, d), stats (P, 4), platforms (P, p): one row per pair; times (R, 4): log of the row's
        compute, memory, launch and roofline time in ms; node, pair (R,): the row's node and pair.
        """
        context = torch.cat([graphs, stats, platforms], 1)
        if self.config.head == "direct":
            return self.graph_head(context).squeeze(1), torch.zeros_like(times[:, 0])
        sums = torch.log(segment_sum(torch.exp(times), pair, platforms.shape[0]))  # (P, 4)
        context = torch.cat([context, (sums[:, :-1] - sums[:, -1:]).clamp(min=-6), sums[:, -1:]], 1)
        scale = _bounded(self.graph_head(context).squeeze(1), 3.0)  # (P,)
        gate, shift = 1 + self.platform_gate(platforms), self.platform_in(platforms)  # (P, hidden) each
        hidden = self.node_in(nodes).index_select(0, node) * gate.index_select(0, pair)
        hidden = hidden + shift.index_select(0, pair) + self.times_in(times)
        ratio = _bounded(self.node_head(hidden).squeeze(1), 6.0)  # (R,)
        share = torch.exp(times[:, -1] + ratio + scale.index_select(0, pair))
        return torch.log(segment_sum(share, pair, platforms.shape[0])), share


TIME_TERMS = 4


def _bounded(x: Tensor, limit: float) -> Tensor:
    return limit * torch.tanh(x / limit)


def log_ratio_loss(log_latency: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """Huber loss of the log-ratio, mean over pairs: near-quadratic below 10 % error, linear above."""
    return F.huber_loss(log_latency, target, delta=delta) / delta
