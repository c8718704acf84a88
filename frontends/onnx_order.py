"""Order of nodes, and the operators a model uses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto

from costmodel.errors import InputError

CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """Graphs that the node's attributes hold."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: NodeProto) -> set[str]:
    """Names that a node reads, its subgraphs' outer names included."""
    found = {name for name in node.input if name}
    for graph in subgraphs(node):
        inner = {t.name for t in graph.initializer} | {i.name for i in graph.input}
        for child in graph.node:
            found |= reads(child) - inner
            inner.update(child.output)
        found |= {o.name for o in graph.output} - inner
    return found


def ordered(nodes: Sequence[NodeProto], known: Callable[[str], bool]) -> list[NodeProto]:
    """The nodes in topological order (Kahn); InputError for a cycle or a name that nothing produces."""
    maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waiting: list[set[str]] = []
    users: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        open_names = {name for name in reads(node) if name in maker or not known(name)}
        for name in open_names:
            if name not in maker:
                raise InputError(
                    f"node '{node.name or node.op_type}' ({node.op_type}) reads '{name}', which nothing produces;"
                    " the file is incomplete, export it again"
                )
            users.setdefault(name, []).append(i)
        waiting.append(open_names)
    ready = deque(i for i, names in enumerate(waiting) if not names)
    order = []
    while ready:
        i = ready.popleft()
        order.append(nodes[i])
        for name in nodes[i].output:
            for user in users.get(name, ()):
                waiting[user].discard(name)
                if not waiting[user]:
                    ready.append(user)
            users.pop(name, None)
    if len(order) < len(nodes):
        stuck = next(node for node, names in zip(nodes, waiting, strict=False) if names)
        raise InputError(
            f"the graph has a cycle through node '{stuck.name or stuck.op_type}' ({stuck.op_type});"
            " ONNX graphs are acyclic, export it again or use Loop"
        )
    return order


def unsupported_ops(model: ModelProto, known: set[tuple[str, str]]) -> dict[str, int]:
    """Operators of the model, its subgraphs and functions that have no lowering, with how often they occur."""
    functions = {(f.domain, f.name) for f in model.functions}
    found: dict[str, int] = {}
    pending: list[Sequence[NodeProto]] = [model.graph.node, *(f.node for f in model.functions)]
    while pending:
        for node in pending.pop():
            domain = "" if node.domain == "ai.onnx" else node.domain
            pending.extend(g.node for g in subgraphs(node))
            if (domain, node.op_type) in known or (domain, node.op_type) in functions:
                continue
            if domain == "" and node.op_type in CONTROL_FLOW:
                continue
            op = f"{domain}.{node.op_type}" if domain else node.op_type
            found[op] = found.get(op, 0) + 1
    return found
