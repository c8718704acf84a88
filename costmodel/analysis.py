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
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from costmodel.arithmetic import DENSE, is_known, operations
from costmodel.errors import InputError
from costmodel.ir import DType, Graph, Node, TensorSpec
from costmodel.learnable import learnable_elements
from costmodel.rates import PARTIAL_READS, VIEWS

_COMPLEX = (DType.COMPLEX64, DType.COMPLEX128)
_FOLLOWING = frozenset(d for d in DType if d.is_float or d.is_quantized) | frozenset(_COMPLEX)
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
        table = zip(*self.nodes, strict=True) if self.nodes else ([] for _ in NodeCost._fields)
        return {
            name: np.asarray(values, dtype=np.float64)
            for name, values in zip(NodeCost._fields, table, strict=True)
            if name not in ("kind", "known")
        }


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


def storage_roots(graph: Graph) -> dict[str, str]:
    """Tensor name → the tensor whose memory it shares, through views; itself if it has its own."""
    root = {name: name for name in graph.tensors}
    for node in graph.nodes:
        if node.inputs and node.inputs[0] and is_view(node, graph):
            for tensor in node.outputs[:1]:
                root[tensor] = root[node.inputs[0]]
    return root


def analyze(graph: Graph) -> Analysis:
    """Costs of every node and of the whole graph.

    Raises InputError if a node's inputs do not fit its operator.
    """
    sizes = _Sizes(graph)
    costs, read_bytes, write_bytes = [], 0.0, 0.0
    for node in graph.nodes:
        try:
            cost, read, written = _node_cost(node, graph, sizes)
        except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"graph '{graph.name}': inputs and attributes of node '{node.name or node.op}' ({node.op}) do not fit"
                f" the operator ({type(error).__name__}: {error}); compare them with its ONNX definition"
            ) from error
        costs.append(cost)
        read_bytes += read
        write_bytes += written
    param_bytes = sum(c.param_bytes for c in costs)
    return Analysis(
        nodes=tuple(costs),
        flops=sum(c.flops for c in costs),
        macs=sum(c.macs for c in costs),
        params=sum(c.params for c in costs),
        param_bytes=param_bytes,
        read_bytes=round(read_bytes),
        write_bytes=round(write_bytes),
        peak_memory_bytes=param_bytes + peak_activation_bytes(graph),
        coverage=_coverage(graph, costs),
    )


def _coverage(graph: Graph, costs: Sequence[NodeCost]) -> float:
    known = sum(c.known and trip_count(node) > 0 for node, c in zip(graph.nodes, costs, strict=True))
    return known / len(costs) if costs else 1.0


class _Sizes:
    """Element counts and types of all tensors, looked up once."""

    def __init__(self, graph: Graph) -> None:
        self.shape: dict[str, tuple[int, ...]] = {name: spec.shape for name, spec in graph.tensors.items()}
        self.shape[""] = ()
        self.numel: dict[str, int] = {name: math.prod(shape) for name, shape in self.shape.items()}
        follows = {d: d in _FOLLOWING for d in DType}
        self.follows: dict[str, bool] = {name: follows[spec.dtype] for name, spec in graph.tensors.items()}
        for name, spec in graph.tensors.items():
            if spec.dtype in _COMPLEX:
                self.numel[name] *= 2


def _node_cost(node: Node, graph: Graph, sizes: _Sizes) -> tuple[NodeCost, float, float]:
    """Cost of a node, and the bytes it reads and writes at the graph's types."""
    numel, outputs = sizes.numel, [t for t in node.outputs if t]
    params, param_bytes, param_read, storage_read = _weights(node, graph, sizes)
    parallel = sum(numel[t] for t in outputs)
    known = not node.opaque and is_known(node.op)
    if known and is_view(node, graph):
        return NodeCost(0.0, 0.0, params, param_bytes, 0, 0, 0, 0, "view", parallel, True), 0.0, 0.0
    macs, other = 0.0, 0.0
    if known:
        shape = sizes.shape
        macs, other = operations(node, [shape[t] for t in node.inputs], [shape[t] for t in node.outputs])
    reads, writes, index, read_bytes, write_bytes = 0, 0, 0.0, storage_read, 0.0
    for position, tensor in enumerate(node.inputs):
        if not tensor:
            continue
        if tensor in graph.params:
            if not sizes.follows[tensor]:
                index += graph.tensors[tensor].bytes
            continue
        elements = elements_read(node, position, numel)
        stored = elements * _width(graph.tensors[tensor])
        read_bytes += stored
        if sizes.follows[tensor]:
            reads += elements
        else:
            index += stored
    for tensor in outputs:
        stored = numel[tensor] * _width(graph.tensors[tensor])
        write_bytes += stored
        if sizes.follows[tensor]:
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


def _weights(node: Node, graph: Graph, sizes: _Sizes) -> tuple[int, int, int, float]:
    """Learnable elements, bytes in storage, elements read, and bytes read at the graph's types."""
    learnable, stored, read, read_bytes = 0, 0, 0, 0.0
    for position, tensor in enumerate(node.inputs):
        if tensor not in graph.params:
            continue
        spec = graph.tensors[tensor]
        stored += spec.bytes
        taken = elements_read(node, position, sizes.numel)
        read_bytes += taken * _width(spec)
        if sizes.follows[tensor]:
            read += taken
        learnable += learnable_elements(graph, node, position)
    return learnable, stored, read, read_bytes


def peak_activation_bytes(graph: Graph, width: float | None = None) -> int:
    """Largest sum of activation bytes alive while one node runs.

    A tensor lives from the node that makes it (inputs of the graph from the start) to its last reader; results live to
    the end; views keep what they look into alive. `width` gives bytes per element for tensors that follow the
    precision (2 for fp16), in place of their own type's.
    """
    root = storage_roots(graph)
    last = dict.fromkeys((root[t] for t in graph.inputs), -1)
    born: dict[str, int] = dict.fromkeys((root[t] for t in graph.inputs), 0)
    for i, node in enumerate(graph.nodes):
        for tensor in node.inputs:
            if tensor:
                last[root[tensor]] = i
        for tensor in node.outputs:
            if tensor:
                born.setdefault(root[tensor], i)
                last[root[tensor]] = max(i, last.get(root[tensor], i))
    for tensor in graph.outputs:
        last[root[tensor]] = len(graph.nodes)
    change = np.zeros(len(graph.nodes) + 2)
    for tensor, start in born.items():
        if tensor in graph.params:
            continue
        spec = graph.tensors[tensor]
        size = spec.bytes if width is None or spec.dtype not in _FOLLOWING else math.ceil(spec.numel * width)
        change[start] += size
        change[max(last[tensor], start) + 1] -= size
    return int(np.cumsum(change).max()) if len(change) else 0


def peak_memory_bytes(graph: Graph, width: float) -> int:
    """Parameters and `peak_activation_bytes`, everything that follows the precision stored at `width` bytes."""
    params = 0.0
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor in graph.params:
                spec = graph.tensors[tensor]
                params += spec.numel * width if spec.dtype in _FOLLOWING else spec.bytes
    return math.ceil(params) + peak_activation_bytes(graph, width)
