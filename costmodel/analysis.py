"""What a graph costs before any device is named: FLOPs, parameters, memory traffic and peak memory.

Conventions
-----------
FLOPs        a multiply-accumulate is 2; formulas in `costmodel.arithmetic`.
Parameters   learnable elements, once per use, which is what published parameter counts mean; `costmodel.learnable` has
             the rule. All constants, tables and masks included, take part in bytes and traffic.
Traffic      each node reads its inputs and writes its outputs once, as if alone (`costmodel.fusion` says what fused
             kernels save). Gather and Slice read the elements they give out. Nodes of kind "view" move nothing.
Width        elements of float and 8-bit types follow the precision a network runs at, so they are counted in elements;
             everything else (indices, masks, accumulators) is counted in bytes.
Loops        a node of a loop's body has the attribute `trip_count`, and computes and moves activations that often; its
             weights are read once, as those of an LSTM are. A count that only the run decides (0) is taken as 1 and
             lowers coverage.
Peak memory  all parameters, plus the largest sum of activations alive while one node runs; views share storage.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from costmodel.arithmetic import DENSE, is_known, operations
from costmodel.errors import InputError
from costmodel.ir import DType, Graph, Node, TensorSpec
from costmodel.kinds import Key, kind_counts, node_kinds, once_per_graph, per_kind, per_node
from costmodel.learnable import ADDITIVE, learnable_elements
from costmodel.rates import PARTIAL_READS, VIEWS

_COMPLEX = (DType.COMPLEX64, DType.COMPLEX128)
_FOLLOWING = frozenset(d for d in DType if d.is_float or d.is_quantized) | frozenset(_COMPLEX)
_FOLLOWING_IDS = frozenset(map(id, _FOLLOWING))  # hashing a member of an Enum is a call in Python
_SAMPLERS = frozenset(("Resize", "Upsample"))


class NodeCost(NamedTuple):
    """Cost of one node, run alone.

    flops             operations, a multiply-accumulate being 2
    macs              the multiply-accumulates among them (dense products only)
    params            learnable elements
    param_bytes       bytes of all weights and constants in storage, at the graph's types
    param_read_elems  weight elements really read: of a gathered table only the rows that come out
    read_elems        activation elements read whose width follows the precision
    write_elems       activation elements written whose width follows the precision
    index_bytes       bytes read and written of tensors whose width does not
    kind              "matmul", "vector", or "view" (nothing runs: no FLOPs and no bytes)
    parallel          output elements
    known             False for an operator whose arithmetic is unknown: bytes only
    """

    flops: float
    macs: float
    params: int
    param_bytes: int
    param_read_elems: int
    read_elems: int
    write_elems: int
    index_bytes: int
    kind: str
    parallel: int
    known: bool


@dataclass(frozen=True)
class Analysis:
    """Costs of a graph. Bytes are at the graph's own types; `coverage` is the share of nodes with known cost.

    The cost of a node is not known if its arithmetic is not, or how often the loop around it runs.
    """

    nodes: tuple[NodeCost, ...]
    flops: float
    macs: float
    params: int
    param_bytes: int
    read_bytes: int
    write_bytes: int
    peak_memory_bytes: int
    coverage: float

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Every numeric field of `NodeCost` as a float64 array over nodes."""
        distinct = {id(cost): cost for cost in self.nodes}  # nodes of one kind share one cost
        place = {key: i for i, key in enumerate(distinct)}
        names = [name for name in NodeCost._fields if name not in ("kind", "known")]
        rows = [[cost[i] for i, name in enumerate(NodeCost._fields) if name in names] for cost in distinct.values()]
        table = np.array(rows, np.float64).reshape(-1, len(names))
        table = table.T[:, [place[id(cost)] for cost in self.nodes]]
        return dict(zip(names, table, strict=True))


def follows_precision(dtype: DType) -> bool:
    """Whether tensors of this type are stored at the precision that a network runs at."""
    return dtype in _FOLLOWING


def is_view(node: Node, graph: Graph) -> bool:
    """Whether a node only renames memory: reshapes, and transposes or expansions that move nothing."""
    if node.op in VIEWS:
        return True
    if node.op == "Transpose":
        shape = graph.tensors[node.inputs[0]].shape
        perm = node.attrs.get("perm", tuple(reversed(range(len(shape)))))
        moved = [int(axis) for axis in perm if shape[int(axis)] != 1]  # type: ignore[union-attr]
        return moved == sorted(moved)
    if node.op in ("Expand", "Tile", "Cast"):
        return graph.tensors[node.inputs[0]] == graph.tensors[node.outputs[0]]
    if node.op == "Concat":
        return len(node.inputs) == 1
    return False


_known_views: dict[Key, bool] = {}


@once_per_graph
def views(graph: Graph) -> list[bool]:
    """`is_view` of every node."""
    return per_node(graph, _known_views, lambda index: is_view(graph.nodes[index], graph))


@once_per_graph
def storage_roots(graph: Graph) -> dict[str, str]:
    """Tensor name → the tensor whose memory it shares, through views; itself if it has its own."""
    root = {name: name for name in graph.tensors}
    for node, view in zip(graph.nodes, views(graph), strict=True):
        if view and node.inputs and node.inputs[0]:
            for tensor in node.outputs[:1]:
                root[tensor] = root[node.inputs[0]]
    return root


class _KindCost(NamedTuple):
    """Cost of a node of a kind, and at the graph's types the bytes it reads and writes.

    param_elems, param_bytes  constants, in elements where they follow the precision and in bytes where they do not
    trips                     how often it runs, 0 if that is unknown
    in_context                its learnable elements depend on the graph around it
    """

    cost: NodeCost
    read: float
    written: float
    param_elems: int
    param_bytes: int
    trips: int
    in_context: bool


_known_costs: dict[Key, _KindCost] = {}


def analyze(graph: Graph) -> Analysis:
    """Costs of every node and of the whole graph.

    Raises InputError if a node's inputs do not fit its operator.
    """
    of = node_kinds(graph).of
    kinds = _kind_costs(graph)
    costs = [kinds[k].cost for k in of]
    if any(kind.in_context for kind in kinds):
        for i, k in enumerate(of):
            if kinds[k].in_context:
                costs[i] = costs[i]._replace(params=_learnable(graph.nodes[i], graph))
    counted = list(zip(kind_counts(graph), kinds, strict=True))
    param_bytes = sum(n * kind.cost.param_bytes for n, kind in counted)
    known = sum(n for n, kind in counted if kind.cost.known and kind.trips)
    return Analysis(
        nodes=tuple(costs),
        flops=sum(n * kind.cost.flops for n, kind in counted),
        macs=sum(n * kind.cost.macs for n, kind in counted),
        params=sum(cost.params for cost in costs),
        param_bytes=param_bytes,
        read_bytes=round(sum(n * kind.read for n, kind in counted)),
        write_bytes=round(sum(n * kind.written for n, kind in counted)),
        peak_memory_bytes=param_bytes + peak_activation_bytes(graph),
        coverage=known / len(costs) if costs else 1.0,
    )


def _kind_costs(graph: Graph) -> list[_KindCost]:
    def work_out(index: int) -> _KindCost:
        node = graph.nodes[index]
        try:
            return _kind_cost(node, graph)
        except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"graph '{graph.name}': inputs and attributes of node '{node.name or node.op}' ({node.op}) do not fit"
                f" the operator ({type(error).__name__}: {error}); compare them with its ONNX definition"
            ) from error

    return per_kind(graph, _known_costs, work_out)


def _kind_cost(node: Node, graph: Graph) -> _KindCost:
    cost, read, written = _node_cost(node, graph)
    constants = [graph.tensors[t] for t in node.inputs if t in graph.params]
    following = sum(spec.numel for spec in constants if spec.dtype in _FOLLOWING)
    fixed = sum(spec.bytes for spec in constants if spec.dtype not in _FOLLOWING)
    tables = node.op in ADDITIVE and any(sum(length != 1 for length in spec.shape) > 1 for spec in constants)
    return _KindCost(cost, read, written, following, fixed, trip_count(node), tables)


def _learnable(node: Node, graph: Graph) -> int:
    return sum(learnable_elements(graph, node, i) for i, t in enumerate(node.inputs) if t in graph.params)


def _elements(spec: TensorSpec) -> int:
    """Elements that are counted: complex numbers are two."""
    return 2 * spec.numel if spec.dtype in _COMPLEX else spec.numel


def _node_cost(node: Node, graph: Graph) -> tuple[NodeCost, float, float]:
    """Cost of a node, and the bytes it reads and writes at the graph's types."""
    tensors, outputs = graph.tensors, [t for t in node.outputs if t]
    numel = {t: _elements(tensors[t]) for t in (*node.inputs, *outputs) if t}
    params = _learnable(node, graph)
    param_bytes, param_read, storage_read = _weights(node, graph, numel)
    parallel = sum(numel[t] for t in outputs)
    known = not node.opaque and is_known(node.op)
    if known and is_view(node, graph):
        return NodeCost(0.0, 0.0, params, param_bytes, 0, 0, 0, 0, "view", parallel, True), 0.0, 0.0
    macs, other = 0.0, 0.0
    if known:
        ins, outs = ([tensors[t].shape if t else () for t in names] for names in (node.inputs, node.outputs))
        macs, other = operations(node, ins, outs)
    reads, writes, index, read_bytes, write_bytes = 0, 0, 0.0, storage_read, 0.0
    for position, tensor in enumerate(node.inputs):
        if not tensor:
            continue
        spec = tensors[tensor]
        if tensor in graph.params:
            if spec.dtype not in _FOLLOWING:
                index += spec.bytes
            continue
        elements = elements_read(node, position, numel)
        stored = elements * _width(spec)
        read_bytes += stored
        if spec.dtype in _FOLLOWING:
            reads += elements
        else:
            index += stored
    for tensor in outputs:
        stored = numel[tensor] * _width(tensors[tensor])
        write_bytes += stored
        if tensors[tensor].dtype in _FOLLOWING:
            writes += numel[tensor]
        else:
            index += stored
    kind = "matmul" if node.op in DENSE else "vector"
    flops = 2.0 * macs + other
    cost = NodeCost(
        flops, float(macs), params, param_bytes, param_read, reads, writes, math.ceil(index), kind, parallel, known
    )
    trips = trip_count(node) or 1
    if trips == 1:
        return cost, read_bytes, write_bytes
    return _repeated(cost, trips), storage_read + trips * (read_bytes - storage_read), trips * write_bytes


def trip_count(node: Node) -> int:
    """How often a node runs: once, or as often as the loop around it; 0 if only the run decides."""
    return int(node.attrs.get("trip_count", 1))  # type: ignore[arg-type]


def _repeated(cost: NodeCost, trips: int) -> NodeCost:
    return cost._replace(
        flops=trips * cost.flops,
        macs=trips * cost.macs,
        read_elems=trips * cost.read_elems,
        write_elems=trips * cost.write_elems,
        index_bytes=trips * cost.index_bytes,
    )


def elements_read(node: Node, position: int, numel: dict[str, int]) -> int:
    """Elements that a node reads of its input at `position`; `numel` maps tensor name → elements."""
    whole = numel[node.inputs[position]]
    if position or not (node.op in PARTIAL_READS or (node.op in _SAMPLERS and node.attrs.get("mode") == "nearest")):
        return whole
    return min(whole, numel[node.outputs[0]])


def _width(spec: TensorSpec) -> float:
    """Bytes per counted element: complex numbers count as two."""
    return spec.dtype.bytes / 2 if spec.dtype in _COMPLEX else spec.dtype.bytes


def _weights(node: Node, graph: Graph, numel: dict[str, int]) -> tuple[int, int, float]:
    """Of a node's constants: bytes in storage, elements read, and bytes read at the graph's types."""
    stored, read, read_bytes = 0, 0, 0.0
    for position, tensor in enumerate(node.inputs):
        if tensor not in graph.params:
            continue
        spec = graph.tensors[tensor]
        stored += spec.bytes
        taken = elements_read(node, position, numel)
        read_bytes += taken * _width(spec)
        if spec.dtype in _FOLLOWING:
            read += taken
    return stored, read, read_bytes


class _Lifetimes(NamedTuple):
    """Activations with memory of their own: the first and last node (t) at which each is alive, its elements, its bytes
    at its own type, and whether it follows the precision."""

    born: np.ndarray
    last: np.ndarray
    elements: np.ndarray
    stored: np.ndarray
    follows: np.ndarray


@once_per_graph
def _lifetimes(graph: Graph) -> _Lifetimes:
    root, tensors = storage_roots(graph), graph.tensors
    born: dict[str, int] = dict.fromkeys((root[t] for t in graph.inputs), 0)
    last = dict.fromkeys(born, -1)
    for i, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            if tensor:
                last[root[tensor]] = i
        for tensor in node.outputs:
            if tensor:
                own = root[tensor]
                born.setdefault(own, i)
                last[own] = i
    for tensor in graph.outputs:
        last[root[tensor]] = len(graph.nodes)
    names = [t for t in born if t not in graph.params]
    specs = [tensors[t] for t in names]
    starts = [born[t] for t in names]
    elements = np.array([spec.numel for spec in specs], np.float64)
    widths = {id(d): d.bytes for d in DType}
    return _Lifetimes(
        np.array(starts, np.int64),
        np.array([max(last[t], start) for t, start in zip(names, starts, strict=True)], np.int64),
        elements,
        np.ceil(elements * np.array([widths[id(spec.dtype)] for spec in specs])),
        np.array([id(spec.dtype) in _FOLLOWING_IDS for spec in specs], bool),
    )


def peak_activation_bytes(graph: Graph, width: float | None = None) -> int:
    """Largest sum of activation bytes alive while one node runs.

    A tensor lives from the node that makes it (inputs of the graph from the start) to its last reader; results live to
    the end; views keep what they look into alive. `width` gives bytes per element for tensors that follow the
    precision (2 for fp16), in place of their own type's.
    """
    lives = _lifetimes(graph)
    size = lives.stored if width is None else np.where(lives.follows, np.ceil(lives.elements * width), lives.stored)
    steps = len(graph.nodes) + 2
    change = np.bincount(lives.born, size, steps) - np.bincount(lives.last + 1, size, steps)
    return int(np.cumsum(change).max())


def peak_memory_bytes(graph: Graph, width: float) -> int:
    """Parameters and `peak_activation_bytes`, everything that follows the precision stored at `width` bytes."""
    kinds = _kind_costs(graph)
    pairs = zip(kind_counts(graph), kinds, strict=True)
    params = sum(n * (kind.param_elems * width + kind.param_bytes) for n, kind in pairs)
    return math.ceil(params) + peak_activation_bytes(graph, width)
