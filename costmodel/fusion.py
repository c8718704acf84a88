"""Which nodes an inference compiler runs as one kernel, and the memory traffic that is left.

A group is either a dense product (Conv, ConvTranspose, Gemm, MatMul) with the element-wise work that follows it
(BatchNormalization, bias, activation, residual Add), or a run of element-wise nodes and reductions. It grows along its
last node: the next nodes join if all results so far are read inside and exactly one node is again the last. So x times
Sigmoid(x), a decomposed Gelu or a decomposed LayerNormalization closes as one group, while a branch that leaves stops
it. Every member of a group leads to its last node and only that one is read outside; hence no cycle can run through two
groups. Linear in nodes and edges: each attempt to grow visits at most `REACH` nodes.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from costmodel.analysis import elements_read, follows_precision, is_view, storage_roots
from costmodel.ir import Graph, Node
from costmodel.rates import CONTRIB, PER_INPUT, PER_OUTPUT, names

REACH = 24

ANCHORS = frozenset(
    names("Conv ConvInteger QLinearConv ConvTranspose Gemm MatMul MatMulInteger QLinearMatMul Einsum")
) | {f"{CONTRIB}{op}" for op in ("FusedConv", "NhwcConv", "FusedGemm", "FusedMatMul", "MatMulNBits", "QGemm")}

REDUCTIONS = frozenset(op for op in PER_OUTPUT if op.endswith(("Normalization", "Softmax", "GroupNorm"))).difference(
    ("BatchNormalization",)
) | frozenset(op for op in PER_INPUT if op.startswith("Reduce") or op == "GlobalAveragePool")

POINTWISE = frozenset(PER_OUTPUT).difference(REDUCTIONS) - {"DynamicQuantizeLinear"} | {
    "Sum", "Max", "Min", "Mean", "Cast", "CastLike",
}  # fmt: skip


def fusion_groups(graph: Graph) -> tuple[int, ...]:
    """Group id per node, numbered in order of first member.

    Groups are convex: replacing each by one node leaves an acyclic graph.
    """
    group = [-1] * len(graph)
    grower = _Grower(graph, group)
    count = 0
    for seed, node in enumerate(graph.nodes):
        if group[seed] < 0:
            group[seed] = count
            if node.op in ANCHORS or node.op in POINTWISE or node.op in REDUCTIONS:
                grower.extend(seed, count)
            count += 1
    return tuple(group)


class _Grower:
    """Extends one group after another along its last node."""

    def __init__(self, graph: Graph, group: list[int]) -> None:
        self.graph, self.group = graph, group
        self.results = frozenset(graph.outputs)
        self.numel = {name: spec.numel for name, spec in graph.tensors.items()}
        self.views = [is_view(node, graph) for node in graph.nodes]

    def extend(self, tail: int, number: int) -> None:
        """Lets the group `number`, so far only `tail`, grow as far as it can."""
        seed = self.graph.nodes[tail]
        if seed.op in ANCHORS:
            size, axes = self.numel[seed.outputs[0]], None
        else:
            size, axes = 0, self._axes(seed)
        while True:
            region, axes = self._next_region(tail, size, axes)
            if not region:
                return
            for member in region:
                self.group[member] = number
            tail = region[-1]

    def _next_region(
        self, tail: int, size: int, axes: tuple[object, ...] | None
    ) -> tuple[list[int], tuple[object, ...] | None]:
        """The fewest following nodes that close on a single last node, or none."""
        region: list[int] = []
        seen: set[int] = set()
        waiting = self._readers(tail)
        heapq.heapify(waiting)
        seen.update(waiting)
        while waiting and len(region) < REACH:
            index = heapq.heappop(waiting)
            fits, axes_then = self._fits(index, size, axes)
            if not fits:
                return [], axes
            axes = axes_then
            region.append(index)
            if not waiting:
                return region, axes
            readers = self._readers(index)
            if not readers:
                return [], axes
            for reader in readers:
                if reader not in seen:
                    seen.add(reader)
                    heapq.heappush(waiting, reader)
        return [], axes

    def _readers(self, index: int) -> list[int]:
        """Nodes that read a node's outputs; none if the graph gives one of them out."""
        outputs = self.graph.nodes[index].outputs
        if any(t in self.results for t in outputs):
            return []
        consumers = self.graph.consumers
        return list(dict.fromkeys(i for t in outputs for i in consumers.get(t, ())))

    def _fits(self, index: int, size: int, axes: tuple[object, ...] | None) -> tuple[bool, tuple[object, ...] | None]:
        """Whether a node may join, and the reduced axes of the group if it does. `size` is 0 without an anchor."""
        node = self.graph.nodes[index]
        if self.group[index] >= 0 or node.opaque:
            return False, axes
        if self.views[index]:
            return True, axes
        if node.op in POINTWISE:
            return not size or self.numel[node.outputs[0]] == size, axes
        if node.op in REDUCTIONS and not size:
            own = self._axes(node)
            return axes is None or axes == own, own
        return False, axes

    def _axes(self, node: Node) -> tuple[object, ...] | None:
        """What a reduction runs over, counted from the last axis; None for a node that reduces nothing."""
        if node.op not in REDUCTIONS:
            return None
        rank = len(self.graph.tensors[node.inputs[0]].shape)
        if node.op.startswith("Reduce"):
            axes = node.attrs.get("axes", tuple(range(rank)))
            return tuple(sorted(int(a) % rank - rank for a in axes)) if rank else ()  # type: ignore[union-attr]
        if node.op == "GlobalAveragePool":
            return tuple(range(2 - rank, 0))
        if node.op.endswith("Softmax") or node.op in ("LpNormalization", "Hardmax"):
            return (int(node.attrs.get("axis", -1)) % max(rank, 1) - rank,)  # type: ignore[arg-type]
        first = int(node.attrs.get("axis", -1)) % max(rank, 1)  # type: ignore[arg-type]
        return tuple(range(first - rank, 0))


def fused_traffic(graph: Graph, groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Elements that each node still reads and writes when every group is one kernel: two int64 arrays over nodes.

    Only tensors that follow the precision count, as in `NodeCost.read_elems` and `write_elems`. A tensor that stays
    inside its group counts nothing; one that several members read counts at the first. Views are looked through.
    """
    root = storage_roots(graph)
    numel = {name: spec.numel for name, spec in graph.tensors.items()}
    views = [is_view(node, graph) for node in graph.nodes]
    follows = {name: follows_precision(spec.dtype) for name, spec in graph.tensors.items()}
    made_in = {t: groups[i] for t, i in graph.producer.items()}
    reads = np.zeros(len(graph), dtype=np.int64)
    writes = np.zeros(len(graph), dtype=np.int64)
    taken: dict[tuple[int, str], int] = {}
    leaving = {root[t] for t in graph.outputs}
    for i, node in enumerate(graph.nodes):
        if views[i]:
            continue
        for position, tensor in enumerate(node.inputs):
            if not tensor or tensor in graph.params:
                continue
            source = root[tensor]
            if made_in.get(source) == groups[i]:
                continue
            leaving.add(source)
            if source in graph.params or not follows[tensor]:
                continue
            elements = elements_read(node, position, numel)
            before = taken.get((groups[i], source), 0)
            if elements > before:
                reads[i] += elements - before
                taken[groups[i], source] = elements
    for i, node in enumerate(graph.nodes):
        if not views[i]:
            writes[i] = sum(numel[t] for t in node.outputs if t in leaving and follows[t])
    return reads, writes
