"""What the network reads: sentences, the numeric channel, edges by relation, and roofline times. NumPy only.

A graph becomes one table of `COLUMNS` per node. The columns describe the graph at its own batch; `rescale` carries them
to another batch, so a corpus is lowered once and used at any batch. Precision and runtime enter in `roofline_times`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costmodel.analysis import Analysis, NodeCost, analyze, trip_count
from costmodel.fusion import fused_traffic, fusion_groups
from costmodel.ir import Graph, Node
from costmodel.kinds import Key, node_kinds, per_kind
from costmodel.platforms import RUNTIMES, Platform, Precision
from costmodel.prompts import node_sentences

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# fmt: off
COLUMNS = (
    "flops",        # multiply-add = 2
    "read",         # activation elements read
    "write",        # elements written
    "fused_read",   # the same without what stays inside a fusion group
    "fused_write",
    "index",        # bytes whose width does not follow the precision
    "parallel",     # independent output elements
    "weights",      # weight elements read
    "matrix",       # 1: matrix units apply
    "conv",         # 1: convolution
    "launch",       # kernels started when every node runs alone
    "fused_launch", # kernels started when groups are fused
    "channels_in", "channels_out",
    "int8",         # 1: the graph itself says int8
)
# fmt: on
_AT = {name: i for i, name in enumerate(COLUMNS)}
_BATCHED = np.array(
    [c in ("flops", "read", "write", "fused_read", "fused_write", "index", "parallel") for c in COLUMNS]
)
_LOGGED = [_AT[c] for c in COLUMNS[:8]]
NODE_FEATURES = len(_LOGGED) + 12
FUSING_RUNTIMES = frozenset(RUNTIMES) - {"pytorch-eager", "unknown"}
EAGER_VIEW_LAUNCH = 0.25  # a view still costs an eager framework's host some dispatch


@dataclass(frozen=True)
class GraphFeatures:
    """One graph as arrays: `sentences` (n), `columns` (n, COLUMNS), fusion `groups` (n), edges `src`, `seg` (E) as in
    `model.Batch`."""

    sentences: Sequence[str]
    columns: Floats
    groups: Sequence[int]
    src: Ints
    seg: Ints
    batch: int

    def __len__(self) -> int:
        return len(self.columns)


def extract(graph: Graph, template: str = "default", analysis: Analysis | None = None) -> GraphFeatures:
    """Features of a graph at the batch it was lowered with (the leading axis of its first input)."""
    analysis = analysis or analyze(graph)
    groups = fusion_groups(graph)
    rows = per_kind(graph, _known_rows, lambda index: _row(graph, graph.nodes[index], analysis.nodes[index]))
    table = np.array(rows, np.float64).reshape(-1, len(COLUMNS) + 1)[np.array(node_kinds(graph).of, np.int64)]
    table, trips = table[:, :-1], table[:, -1]
    for column, moved in zip(("fused_read", "fused_write"), fused_traffic(graph, groups), strict=True):
        table[:, _AT[column]] = moved * trips
    table[:, _AT["fused_launch"]] = _leaders(np.asarray(groups, np.int64), table[:, _AT["launch"]])
    src, seg = relation_edges(graph.edges, len(graph))
    return GraphFeatures(node_sentences(graph, template), table.astype(np.float32), groups, src, seg, batch_of(graph))


_known_rows: dict[Key, tuple[float, ...]] = {}


def _row(graph: Graph, node: Node, cost: NodeCost) -> tuple[float, ...]:
    """COLUMNS of a node, zero where its group decides, and how often it runs."""
    first, output = next((t for t in node.inputs if t), node.outputs[0]), graph.tensors[node.outputs[0]]
    trips = trip_count(node) or 1
    return (
        cost.flops, cost.read_elems, cost.write_elems, 0, 0, cost.index_bytes, cost.parallel, cost.param_read_elems,
        cost.kind == "matmul", node.op.startswith("Conv"), trips if cost.kind != "view" else 0, 0,
        _channels(graph.tensors[first].shape), _channels(output.shape), output.dtype.is_quantized, trips,
    )  # fmt: skip


def batch_of(graph: Graph) -> int:
    """The leading axis of the first input that has axes; 1 for a graph without one."""
    return next((graph.tensors[t].shape[0] for t in graph.inputs if graph.tensors[t].shape), 1)


def _channels(shape: tuple[int, ...]) -> int:
    if not shape:
        return 1
    return shape[1] if len(shape) >= 4 else shape[-1]


def _leaders(groups: NDArray[np.int64], launch: NDArray[np.float64]) -> NDArray[np.float64]:
    """The launches of the first node of each group that runs anything, else 0."""
    running = np.flatnonzero(launch)
    _, first = np.unique(groups[running], return_index=True)
    leaders = np.zeros(len(groups))
    leaders[running[first]] = launch[running[first]]
    return leaders


def relation_edges(edges: Sequence[tuple[int, int]], nodes: int) -> tuple[Ints, Ints]:
    """Edge lists of M_son, M_father and M_grand, as (source, relation · n + target), sorted by target.

    M_son = A, M_father = Aᵀ, M_grand = Bi(AᵀAᵀ); row i of M_r lists whom node i attends to.
    """
    pairs = np.asarray(edges, np.int64).reshape(-1, 2)
    parent, child = pairs[:, 0], pairs[:, 1]
    order = np.argsort(child, kind="stable")
    parents_sorted, starts = parent[order], np.searchsorted(child[order], np.arange(nodes + 1))
    # Grandparents: for each edge (p → c), every parent of p.
    counts = starts[parent + 1] - starts[parent]
    grandchild = np.repeat(child, counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    grandparent = parents_sorted[np.repeat(starts[parent], counts) + offsets]
    grand = np.unique(grandchild * nodes + grandparent) if nodes else grandchild
    src = np.concatenate([child, parent, grand % max(nodes, 1)])
    seg = np.concatenate([parent, child + nodes, grand // max(nodes, 1) + 2 * nodes])
    order = np.argsort(seg, kind="stable")
    return src[order], seg[order]


def placed_edges(src: Ints, seg: Ints, nodes: int, offset: int, padded: int) -> tuple[Ints, Ints]:
    """A graph's edges where its nodes stand in a pack: from `offset` on, in `padded` nodes in all."""
    relation, target = np.divmod(seg.astype(np.int64), nodes)
    return src.astype(np.int64) + offset, relation * padded + target + offset


def rescale(columns: Floats, factor: float | NDArray[np.float32]) -> Floats:
    """Columns at `factor` times the batch: activations and arithmetic grow with it, weights do not."""
    scale = np.asarray(factor, np.float32)
    grown = columns * (scale[:, None] if scale.ndim else scale)
    return np.where(_BATCHED, grown, columns).astype(np.float32)


def numeric_channel(columns: Floats) -> Floats:
    """(n, NODE_FEATURES) features of nodes, of order one."""

    def log(x: Floats) -> Floats:
        return np.asarray(np.log2(1 + x) / 10, np.float32)

    def column(name: str) -> Floats:
        return columns[:, _AT[name]]

    traffic = column("read") + column("write") + column("weights") + column("index")
    c_in, c_out = column("channels_in"), column("channels_out")
    extra = [
        np.log2((1 + column("flops")) / (1 + traffic)) / 10,
        np.log2((1 + column("flops")) / (1 + column("parallel"))) / 10,
        log(c_in), log(c_out), c_in % 8 == 0, c_out % 8 == 0, c_out % 64 == 0,
        column("matrix"), column("conv"), column("launch"), column("fused_launch"), column("int8"),
    ]  # fmt: skip
    return np.concatenate([log(columns[:, _LOGGED]), np.stack(extra, 1)], 1).astype(np.float32)


def statistics(columns: Floats, batch: float) -> Floats:
    """(4,) log of batch, FLOPs, weights and traffic of one graph, of order one."""
    total = columns.sum(0, dtype=np.float64)
    traffic = total[_AT["read"]] + total[_AT["write"]]
    return np.log2(1 + np.array([batch, total[_AT["flops"]], total[_AT["weights"]], traffic])).astype(np.float32) / 20


def platform_rates(platform: Platform) -> NDArray[np.float64]:
    """(7,) what `roofline_times` needs: FLOP per ms (matrix, conv, vector), bytes per ms, launch ms, bytes, fusing."""
    return np.array(
        [
            platform.matrix_tflops * 1e9,
            platform.conv_tflops * 1e9,
            platform.vector_tflops * 1e9,
            platform.device.bandwidth_gbs * 1e6,
            platform.launch_overhead_us / 1e3,
            platform.element_bytes,
            platform.runtime in FUSING_RUNTIMES,
        ]
    )


def roofline_times(columns: Floats, rates: NDArray[np.float64]) -> Floats:
    """(…, 4) log of compute, memory, launch and roofline time in ms of rows of nodes.

    columns (R, COLUMNS); rates (7,) for all rows, (R, 7) for each row its own, or (P, 1, 7) for all rows on each of P
    platforms, which gives (P, R, 4). Roofline time = max(compute, memory) + launch (Williams, Waterman and Patterson
    2009, with a fixed cost per kernel).
    """
    matrix, conv, vector, bandwidth, overhead, width, fusing = np.moveaxis(rates, -1, 0)

    def column(name: str) -> Floats:
        return columns[:, _AT[name]]

    fused = fusing > 0
    peak = np.where(column("conv") > 0, conv, np.where(column("matrix") > 0, matrix, vector))
    activations = np.where(fused, column("fused_read") + column("fused_write"), column("read") + column("write"))
    alone = np.maximum(column("launch"), EAGER_VIEW_LAUNCH)
    times = np.empty((*peak.shape, 4))
    compute, memory, launch, total = (times[..., i] for i in range(4))
    np.divide(column("flops"), peak, out=compute)
    np.divide((activations + column("weights")) * width + column("index"), bandwidth, out=memory)
    np.multiply(np.where(fused, column("fused_launch"), alone), overhead, out=launch)
    np.add(np.maximum(compute, memory), launch, out=total)
    return np.log(np.maximum(times, 1e-7)).astype(np.float32)


def platform_channel(platform: Platform) -> Floats:
    """(PLATFORM_FEATURES,) logs of the spec sheet's numbers and one-hot kind, runtime and precision."""
    device = platform.device
    numbers = [
        platform.matrix_tflops, platform.conv_tflops, platform.vector_tflops, device.bandwidth_gbs / 100,
        device.cores, device.lanes / 100, device.clock_mhz / 1000, device.cache_mb or 1, device.tdp_w or 1,
        platform.launch_overhead_us, platform.element_bytes,
    ]  # fmt: skip
    logs = np.log2(np.maximum(np.array(numbers, np.float64), 1e-3)) / 4
    ridge = np.log2(platform.matrix_tflops * 1e3 / device.bandwidth_gbs) / 4
    flags = [platform.runtime in FUSING_RUNTIMES, (device.year - 2018) / 5, *_version(platform)]
    kinds = [device.kind == k for k in KINDS]
    runtimes = [platform.runtime == r for r in RUNTIMES]
    precisions = [platform.precision == p for p in Precision]
    return np.concatenate([logs, [ridge], flags, kinds, runtimes, precisions]).astype(np.float32)


def identities(keys: Sequence[str], known: Sequence[str]) -> Floats:
    """(P, K) 1 where a platform is the K-th of those that training measured, which stands behind its channel; all 0 for
    a platform that it did not measure, or that is read as if it had not."""
    return np.array([[key == name for name in known] for key in keys], np.float32).reshape(len(keys), len(known))


def generic(text: Floats, channel: Floats) -> tuple[Floats, Floats]:
    """Platform sentences (P, t) and channels (P, f) without what tells one device from another.

    Kind, runtime, precision and version stay; the device's speed is left to the roofline times.
    """
    channel = channel.copy()
    channel[:, :PLATFORM_NUMBERS] = 0
    channel[:, PLATFORM_NUMBERS + 1] = 0  # year
    channel[:, PLATFORM_FEATURES:] = 0  # identity
    return np.zeros_like(text), channel


def hide_runtime(text: Floats, channel: Floats) -> tuple[Floats, Floats]:
    """Platform sentences (P, t) and channels (P, f) without the runtime's name and version: for runtimes that training
    never saw run a network. Whether it fuses stays, and its overhead is in the numbers."""
    channel = channel.copy()
    channel[:, _VERSION] = 0
    channel[:, _RUNTIME] = 0
    channel[:, PLATFORM_FEATURES:] = 0  # identity
    return np.zeros_like(text), channel


def _version(platform: Platform) -> tuple[float, float, float]:
    """Runtime version known (0/1), PyTorch's release relative to 2.0, and whether tensors are channels-last."""
    text = platform.runtime_version
    release = re.match(r"(\d+)\.(\d+)", text)
    if not release:
        return 0.0, 0.0, float(text.endswith("nhwc"))
    number = int(release[1]) + int(release[2]) / 10 - 2
    return 1.0, number if platform.runtime.startswith("pytorch") else 0.0, float(text.endswith("nhwc"))


KINDS = ("gpu", "cpu", "mobile", "fpga", "asic", "tpu")
PLATFORM_NUMBERS = 12  # leading entries of the platform channel that are continuous
_VERSION = slice(PLATFORM_NUMBERS + 2, PLATFORM_NUMBERS + 5)
_RUNTIME = slice(_VERSION.stop + len(KINDS), _VERSION.stop + len(KINDS) + len(RUNTIMES))
PLATFORM_FEATURES = _RUNTIME.stop + len(Precision)
