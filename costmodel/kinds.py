"""Nodes of one kind: same operator, attributes, and operand and result specs.

Networks repeat their layers, so a graph of a thousand nodes has some dozens of kinds. Whatever depends on nothing but a
node itself (its cost, its sentence, whether it is a view) is worked out once per kind and kept for the next graph;
what depends on the whole graph, once per graph.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from costmodel.ir import Graph

Key = tuple[object, ...]
T = TypeVar("T")
_LIMIT = 200_000


def once_per_graph(function: Callable[[Graph], T]) -> Callable[[Graph], T]:
    """Keeps a function's answer with the graph, which does not change. Callers must not change the answer either."""
    slot = f"_{function.__module__}.{function.__name__}"

    @wraps(function)
    def kept(graph: Graph) -> T:
        found: dict[str, Any] = graph.__dict__
        if slot not in found:
            found[slot] = function(graph)
        return found[slot]

    return kept


class NodeKinds(NamedTuple):
    """of (n) is the kind of each node; first (k) the first node of each kind, ascending; keys (k) name the kinds across
    graphs: equal keys mean equal operators, attributes, specs, and origins of constants."""

    of: list[int]
    first: list[int]
    keys: list[Key]


@once_per_graph
def node_kinds(graph: Graph) -> NodeKinds:
    """The kinds of a graph's nodes."""
    tensors, params, sources = graph.tensors, graph.params, graph.sources
    number: dict[Key, int] = {}
    of: list[int] = []
    first: list[int] = []
    for i, node in enumerate(graph.nodes):
        key: list[object] = [node.op, node.opaque]
        for name in node.inputs:
            if name:
                spec = tensors[name]
                key += (spec.shape, id(spec.dtype), name in params)
                if name in sources:
                    key.append(sources[name])
            else:
                key.append(None)
        key.append(0)
        for name in node.outputs:
            if name:
                spec = tensors[name]
                key += (spec.shape, id(spec.dtype))
            else:
                key.append(None)
        attrs = node.attrs
        if attrs:
            key += attrs
            key += attrs.values()
        fixed = tuple(key)
        try:
            kind = number.setdefault(fixed, len(number))
        except TypeError:  # a list among the attributes
            fixed = (*key[: -len(attrs)], repr(list(attrs.values())))
            kind = number.setdefault(fixed, len(number))
        if kind == len(first):
            first.append(i)
        of.append(kind)
    return NodeKinds(of, first, list(number))


@once_per_graph
def kind_counts(graph: Graph) -> list[int]:
    """How many nodes there are of each kind."""
    counts = [0] * len(node_kinds(graph).keys)
    for kind in node_kinds(graph).of:
        counts[kind] += 1
    return counts


def per_kind(graph: Graph, known: dict[Key, T], work_out: Callable[[int], T]) -> list[T]:
    """What `work_out` says of the first node of each kind, given its index; `known` keeps answers across graphs."""
    if len(known) > _LIMIT:
        known.clear()
    kinds = node_kinds(graph)
    found = []
    for key, index in zip(kinds.keys, kinds.first, strict=True):
        answer = known.get(key)
        if answer is None:
            answer = known[key] = work_out(index)
        found.append(answer)
    return found


def per_node(graph: Graph, known: dict[Key, T], work_out: Callable[[int], T]) -> list[T]:
    """`per_kind`, given to every node."""
    answers = per_kind(graph, known, work_out)
    return [answers[kind] for kind in node_kinds(graph).of]
