"""One way to write a network down: the same network from any language becomes the same graph, in the same order.

Frontends end with `canonical`, and whatever reads a graph for an estimate starts with it. Only what differs between
exporters without any difference in the work is rewritten:

- a change of shape without data movement is a Reshape (for Flatten, Squeeze, Unsqueeze);
- the mean or maximum over all spatial axes of an image, kept, is a GlobalAveragePool or GlobalMaxPool, also where it is
  written as a reduction or as a pool with one window;
- pools say with `pads` alone which windows they have (for ceil_mode; what padding counts as costs nothing);
- nodes stand depth first from the outputs, operands in order, so that a stable topological order needs no names.
"""

from __future__ import annotations

from dataclasses import replace

from costmodel.ir import AttrValue, Graph, Node

_RESHAPES = frozenset(("Flatten", "Squeeze", "Unsqueeze"))
_GLOBAL_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}
_POOLS = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def canonical(graph: Graph) -> Graph:
    """The same network in one spelling and one node order; the graph itself where it is so already."""
    order = node_order(graph)
    nodes = [_spelled(graph, graph.nodes[i]) for i in order]
    if all(new is old for new, old in zip(nodes, graph.nodes, strict=True)):
        return graph
    return replace(graph, nodes=tuple(nodes))


def node_order(graph: Graph) -> list[int]:
    """Indices of the nodes depth first from the outputs, operands before users; nodes that reach no output follow."""
    producer, nodes = graph.producer, graph.nodes
    pending = [iter([producer[t] for t in node.inputs if t in producer]) for node in nodes]
    order: list[int] = []
    placed = [False] * len(nodes)
    roots = [producer[t] for t in graph.outputs if t in producer]
    for root in (*roots, *range(len(nodes))):
        waiting = [root]
        while waiting:
            node = waiting[-1]
            operand = next((i for i in pending[node] if not placed[i]), None)
            if operand is not None:
                waiting.append(operand)
                continue
            waiting.pop()
            if not placed[node]:
                placed[node] = True
                order.append(node)
    return order


def _spelled(graph: Graph, node: Node) -> Node:
    if node.op in _RESHAPES:
        return replace(node, op="Reshape", attrs={}, inputs=node.inputs[:1])
    if node.op in _GLOBAL_POOLS and node.attrs.get("keepdims") == 1:
        rank = len(graph.tensors[node.inputs[0]].shape)
        if rank > 3 and node.attrs.get("axes") == tuple(range(2, rank)):
            return replace(node, op=_GLOBAL_POOLS[node.op], attrs={}, inputs=node.inputs[:1])
    if node.op in _POOLS and len(node.outputs) == 1 and _one_window(graph, node):
        return replace(node, op=_POOLS[node.op], attrs={})
    if node.op in _POOLS and _ROUNDING & node.attrs.keys():
        return replace(node, attrs=_windows(graph, node))
    return node


_ROUNDING = frozenset(("ceil_mode", "count_include_pad"))


def _one_window(graph: Graph, node: Node) -> bool:
    """Whether a pool's only window is the whole image."""
    size = graph.tensors[node.inputs[0]].shape[2:]
    return (
        node.attrs.get("kernel_shape") == size
        and not any(_ints(node.attrs.get("pads"), 2 * len(size), 0))
        and all(d == 1 for d in graph.tensors[node.outputs[0]].shape[2:])
    )


def _windows(graph: Graph, node: Node) -> dict[str, AttrValue]:
    """A pool's attributes with the padding at each end that its windows reach into, and no rounding."""
    attrs = {k: v for k, v in node.attrs.items() if k not in _ROUNDING}
    before_size, after_size = (graph.tensors[t].shape[2:] for t in (node.inputs[0], node.outputs[0]))
    rank = len(before_size)
    kernel, strides, dilations = (_ints(attrs.get(k), rank) for k in ("kernel_shape", "strides", "dilations"))
    pads = _ints(attrs.get("pads"), 2 * rank, 0)
    ends = [
        max((after_size[i] - 1) * strides[i] + dilations[i] * (kernel[i] - 1) + 1 - before_size[i] - pads[i], 0)
        for i in range(rank)
    ]
    return {**attrs, "pads": (*pads[:rank], *ends)}


def _ints(value: AttrValue | None, count: int, default: int = 1) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, tuple) else (default,) * count
