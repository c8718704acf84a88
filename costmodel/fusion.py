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
from typing import NamedTuple

import numpy as np

from costmodel.analysis import elements_read, follows_precision, is_view, storage_roots, views
from costmodel.ir import Graph, Node
from costmodel.kinds import Key, per_node
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


Axes = tuple[object, ...]


class _Traits(NamedTuple):
    """What decides whether a node of a kind may join a group.

    role   "anchor", "pointwise", "reduction", "view" or "" for one that stays alone
    size   elements of the first result
    axes   what a reduction runs over, counted from the last axis; None for a node that reduces nothing
    seeds  whether it may start a group
    """

    role: str
    size: int
    axes: Axes | None
    seeds: bool


_known_traits: dict[Key, _Traits] = {}


def _traits(graph: Graph, node: Node) -> _Traits:
    sets = {"anchor": ANCHORS, "pointwise": POINTWISE, "reduction": REDUCTIONS}
    role = next((name for name, operators in sets.items() if node.op in operators), "")
    seeds = bool(role)
    if node.opaque:
        role = ""
    elif is_view(node, graph):
        role = "view"
    return _Traits(role, graph.tensors[node.outputs[0]].numel, _axes(graph, node), seeds)


def fusion_groups(graph: Graph) -> tuple[int, ...]:
    """Group id per node, numbered in order of first member.

    Groups are convex: replacing each by one node leaves an acyclic graph.
    """
    group = [-1] * len(graph)
    grower = _Grower(graph, group)
    count = 0
    for seed, traits in enumerate(grower.traits):
        if group[seed] < 0:
            group[seed] = count
            if traits.seeds:
                grower.extend(seed, count)
            count += 1
    return tuple(group)


class _Grower:
    """Extends one group after another along its last node."""

    def __init__(self, graph: Graph, group: list[int]) -> None:
        self.graph, self.group = graph, group
        self.results = frozenset(graph.outputs)
        self.traits = per_node(graph, _known_traits, lambda index: _traits(graph, graph.nodes[index]))

    def extend(self, tail: int, number: int) -> None:
        """Lets the group `number`, so far only `tail`, grow as far as it can."""
        seed = self.graph.nodes[tail]
        size, axes = (self.traits[tail].size, None) if seed.op in ANCHORS else (0, self.traits[tail].axes)
        while True:
            region, axes = self._next_region(tail, size, axes)
            if not region:
                return
            for member in region:
                self.group[member] = number
            tail = region[-1]

    def _next_region(self, tail: int, size: int, axes: Axes | None) -> tuple[list[int], Axes | None]:
        """The fewest following nodes that close on a single last node, or none."""
        waiting = self._readers(tail)
        if len(waiting) == 1:
            fits, axes_then = self._fits(waiting[0], size, axes)
            return (waiting, axes_then) if fits else ([], axes)
        region: list[int] = []
        heapq.heapify(waiting)
        seen = set(waiting)
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
        outputs, consumers = self.graph.nodes[index].outputs, self.graph.consumers
        if len(outputs) == 1:
            return [] if outputs[0] in self.results else list(consumers.get(outputs[0], ()))
        if any(t in self.results for t in outputs):
            return []
        return list(dict.fromkeys(i for t in outputs for i in consumers.get(t, ())))

    def _fits(self, index: int, size: int, axes: Axes | None) -> tuple[bool, Axes | None]:
        """Whether a node may join, and the reduced axes of the group if it does. `size` is 0 without an anchor."""
        role, own_size, own_axes, _ = self.traits[index]
        if self.group[index] >= 0:
            return False, axes
        if role == "view":
            return True, axes
        if role == "pointwise":
            return not size or own_size == size, axes
        if role == "reduction" and not size:
            return axes is None or axes == own_axes, own_axes
        return False, axes


def _axes(graph: Graph, node: Node) -> Axes | None:
    """What a reduction runs over, counted from the last axis; None for a node that reduces nothing."""
    if node.op not in REDUCTIONS:
        return None
    rank = len(graph.tensors[node.inputs[0]].shape)
    if node.op.startswith("Reduce"):
        axes = node.attrs.get("axes", tuple(range(rank)))
        return tuple(sorted(int(a) % rank - rank for a in axes)) if rank else ()  # type: ignore[union-attr]
    if node.op == "GlobalAveragePool":
        return tuple(range(2 - rank, 0))
    if node.op.endswith("Softmax") or node.op in ("LpNormalization", "Hardmax"):
        return (int(node.attrs.get("axis", -1)) % max(rank, 1) - rank,)  # type: ignore[arg-type]
    first = int(node.attrs.get("axis", -1)) % max(rank, 1)  # type: ignore[arg-type]
    return tuple(range(first - rank, 0))


class _Moved(NamedTuple):
    """Elements that a node of a kind reads of each input and writes of each output, run alone; -1 where the tensor does
    not follow the precision."""

    reads: tuple[int, ...]
    writes: tuple[int, ...]


_known_moves: dict[Key, _Moved] = {}


def _moved(graph: Graph, node: Node) -> _Moved:
    tensors = graph.tensors
    numel = {t: tensors[t].numel for t in (*node.inputs, *node.outputs) if t}
    follows = {t: follows_precision(tensors[t].dtype) for t in numel}
    return _Moved(
        tuple(elements_read(node, i, numel) if t and follows[t] else -1 for i, t in enumerate(node.inputs)),
        tuple(numel[t] if t and follows[t] else -1 for t in node.outputs),
    )


def fused_traffic(graph: Graph, groups: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Elements that each node still reads and writes when every group is one kernel: two int64 arrays over nodes.

    Only tensors that follow the precision count, as in `NodeCost.read_elems` and `write_elems`. A tensor that stays
    inside its group counts nothing; one that several members read counts at the first. Views are looked through.
    """
    root, params = storage_roots(graph), graph.params
    moves = per_node(graph, _known_moves, lambda index: _moved(graph, graph.nodes[index]))
    made_in = {t: group for node, group in zip(graph.nodes, groups, strict=True) for t in node.outputs}
    reads, writes = [0] * len(graph), [0] * len(graph)
    taken: dict[tuple[int, str], int] = {}
    leaving = {root[t] for t in graph.outputs}
    running = [i for i, view in enumerate(views(graph)) if not view]
    for i in running:
        group = groups[i]
        for tensor, elements in zip(graph.nodes[i].inputs, moves[i].reads, strict=True):
            if not tensor or tensor in params:
                continue
            source = root[tensor]
            if made_in.get(source) == group:
                continue
            leaving.add(source)
            if elements < 0 or source in params:
                continue
            before = taken.get((group, source), 0)
            if elements > before:
                reads[i] += elements - before
                taken[group, source] = elements
    for i in running:
        for tensor, elements in zip(graph.nodes[i].outputs, moves[i].writes, strict=True):
            if elements > 0 and tensor in leaving:
                writes[i] += elements
    return np.array(reads, np.int64), np.array(writes, np.int64)
