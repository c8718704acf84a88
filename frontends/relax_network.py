"""The node list that `relax_compose` rewrites, and what its patterns ask of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from costmodel.ir import AttrValue, Node, TensorSpec
from frontends.onnx_values import Value


class Network:
    """The nodes being rewritten.

    scalars     parameter → value of its single element, where known
    sources     parameter that was worked out → elements that went into it, as in `Graph.sources`
    transposed  parameter → the constant matrix that it is the transpose of
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        tensors: dict[str, TensorSpec],
        params: set[str],
        outputs: Sequence[str],
        transposed: Mapping[str, Value],
        scalars: Mapping[str, float],
        sources: dict[str, int],
    ) -> None:
        self.nodes: list[Node | None] = list(nodes)
        self.tensors, self.params = tensors, params
        self.transposed, self.scalars, self.sources = transposed, scalars, sources
        self.maker = {t: i for i, node in enumerate(nodes) for t in node.outputs if t}
        self.readers = Counter(t for node in nodes for t in dict.fromkeys(node.inputs) if t)
        self.readers.update(outputs)

    def inner(self, tensor: str, *ops: str) -> Node | None:
        """The node that makes a tensor only one node reads, if it is one of `ops`."""
        i = self.maker.get(tensor)
        node = self.nodes[i] if i is not None else None
        return node if node is not None and node.op in ops and self.readers[tensor] == 1 else None

    def shared(self, tensor: str, *ops: str) -> Node | None:
        """The node that makes a tensor, whoever reads it."""
        i = self.maker.get(tensor)
        node = self.nodes[i] if i is not None else None
        return node if node is not None and node.op in ops else None

    def scalar(self, tensor: str) -> float | None:
        """Value of a one-element constant, or None."""
        return self.scalars.get(tensor) if tensor in self.params else None

    def split(self, node: Node) -> tuple[str, float] | None:
        """The run-time operand and the one-element constant of a binary node, whatever their order."""
        if len(node.inputs) == 2:
            for x, c in (node.inputs, node.inputs[::-1]):
                value = self.scalar(c)
                if value is not None and x not in self.params:
                    return x, value
        return None

    def weight(self, node: Node) -> tuple[str, str] | None:
        """The run-time operand and the constant of a binary node."""
        if len(node.inputs) == 2:
            for x, c in (node.inputs, node.inputs[::-1]):
                if c in self.params and x not in self.params:
                    return x, c
        return None

    def vector(self, tensor: str, size: int) -> str:
        """A parameter of the same elements seen as (size,)."""
        spec = self.tensors[tensor]
        if spec.shape == (size,):
            return tensor
        name = f"{tensor}.flat"
        self.tensors[name] = TensorSpec((size,), spec.dtype)
        self.params.add(name)
        if tensor in self.sources:
            self.sources[name] = self.sources[tensor]
        return name

    def put(
        self, i: int, op: str, inputs: Sequence[str], attrs: Mapping[str, AttrValue], drop: Sequence[Node] = ()
    ) -> None:
        """Replaces node i, and removes the nodes it absorbs."""
        old = self.nodes[i]
        if old is None:
            return
        self.readers.subtract(t for t in dict.fromkeys(old.inputs) if t)
        for node in drop:
            self.readers.subtract(t for t in dict.fromkeys(node.inputs) if t)
            self.nodes[self.maker[node.outputs[0]]] = None
        self.nodes[i] = Node(op, tuple(inputs), old.outputs, dict(attrs), old.name)
        self.readers.update(t for t in dict.fromkeys(inputs) if t)
