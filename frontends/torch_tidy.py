"""Peephole rewrites that the ONNX exporter also makes, so that both ways to the IR end in the same nodes.

Batch normalisation goes into the product in front of it, constant padding into the convolution behind it, chains of
reshapes, clips and inverse transposes become one node or none, and equal calls on equal inputs are made once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from costmodel.ir import AttrValue, Node, TensorSpec


def tidy(nodes: list[Node], tensors: dict[str, TensorSpec], params: set[str], outputs: list[str]) -> list[Node]:
    """The nodes after rewriting; `outputs` keep their names unless they end in a node that does nothing.

    `tensors` and `params` gain what is new. Nodes that no output depends on are left out.
    """
    state = _Tidy(_live(nodes, outputs), tensors, params, outputs)
    state.run()
    kept = _live(state.nodes, outputs)
    read = set(outputs).union(*(node.inputs for node in kept))
    return [_without_unread(node, read) if node.op in _OPTIONAL_OUTPUTS else node for node in kept]


_OPTIONAL_OUTPUTS = frozenset(("LSTM", "GRU", "RNN", "MaxPool", "LayerNormalization"))


def _without_unread(node: Node, read: set[str]) -> Node:
    outputs = [t if t in read else "" for t in node.outputs]
    while not outputs[-1]:
        outputs.pop()
    return replace(node, outputs=tuple(outputs))


def _live(nodes: list[Node], outputs: list[str]) -> list[Node]:
    wanted = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if any(t in wanted for t in node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    kept.reverse()
    return kept


class _Tidy:
    """One pass in topological order; each node sees its producers already rewritten."""

    def __init__(self, nodes: list[Node], tensors: dict[str, TensorSpec], params: set[str], outputs: list[str]) -> None:
        self.source = nodes
        self.tensors = tensors
        self.params = params
        self.outputs = outputs
        self.nodes: list[Node] = []
        self.maker: dict[str, int] = {}
        self.reads: Counter[str] = Counter(t for node in nodes for t in node.inputs)
        self.reads.update(outputs)
        self.same: dict[str, str] = {}
        self.looked_through = False
        self.seen: dict[tuple[object, ...], Node] = {}

    def run(self) -> None:
        """Rewrites all nodes."""
        for node in self.source:
            self.looked_through = bool(node.inputs) and node.inputs[0] in self.same
            if any(t in self.same for t in node.inputs):
                node = replace(node, inputs=tuple(self.same.get(t, t) for t in node.inputs))
            self._place(node)
        self.outputs[:] = [self.same.get(t, t) for t in self.outputs]

    def _place(self, node: Node) -> None:
        rewrite = _REWRITES.get(node.op)
        before = self._maker(node.inputs[0]) if node.inputs else None
        if rewrite is not None and before is not None:
            found = rewrite(self, before, node)
            if isinstance(found, str):
                self.same[node.outputs[0]] = found
                self.reads[found] += self.reads[node.outputs[0]]
                return
            node = found or node
        specs = tuple(self.tensors[t] for t in node.outputs)
        key = (node.op, node.inputs, tuple(sorted(node.attrs.items())), specs)
        twin = self.seen.get(key)
        if twin is not None and not node.opaque:
            self.same.update(zip(node.outputs, twin.outputs, strict=True))
            for mine, theirs in zip(node.outputs, twin.outputs, strict=True):
                self.reads[theirs] += self.reads[mine]
            return
        self.seen[key] = node
        for tensor in node.outputs:
            self.maker[tensor] = len(self.nodes)
        self.nodes.append(node)

    def _maker(self, tensor: str) -> Node | None:
        place = self.maker.get(tensor)
        return None if place is None else self.nodes[place]

    def only_reader(self, tensor: str) -> bool:
        """Whether one place reads a tensor."""
        return self.reads[tensor] == 1

    def constant(self, base: str, spec: TensorSpec) -> str:
        """A new parameter."""
        name = base
        while name in self.tensors:
            name += "'"
        self.tensors[name] = spec
        self.params.add(name)
        return name


def _fold_batch_norm(state: _Tidy, before: Node, node: Node) -> Node | None:
    """Scale and shift become part of the product's weight and bias."""
    if before.op not in ("Conv", "ConvTranspose", "Gemm") or not state.only_reader(node.inputs[0]):
        return None
    if any(t not in state.params for t in (*before.inputs[1:], *node.inputs[1:])) or len(before.inputs) < 2:
        return None
    if any(state.reads[t] > 1 for t in before.inputs[1:]) or len(node.outputs) > 1:
        return None
    spec = state.tensors[node.inputs[1]]
    if before.op == "Gemm" and (before.attrs.get("alpha", 1.0) != 1.0 or before.attrs.get("transA")):
        return None
    bias = before.inputs[2] if len(before.inputs) > 2 else state.constant(f"{node.outputs[0]}:bias", spec)
    return replace(before, inputs=(*before.inputs[:2], bias), outputs=node.outputs)


def _fold_pad(state: _Tidy, before: Node, node: Node) -> Node | None:
    """Zeros around the image are the convolution's own padding."""
    if before.op != "Pad" or before.attrs["mode"] != "constant" or before.attrs.get("value"):
        return None
    pads = _ints(before.attrs["pads"])
    rank = len(pads) // 2
    spatial = pads[2:rank] + pads[rank + 2 :]
    if any(pads[:2]) or any(pads[rank : rank + 2]) or min(pads) < 0:
        return None
    total = tuple(a + b for a, b in zip(spatial, _ints(node.attrs["pads"]), strict=True))
    return replace(node, inputs=(before.inputs[0], *node.inputs[1:]), attrs={**node.attrs, "pads": total})


def _join_reshape(state: _Tidy, before: Node, node: Node) -> Node | str | None:
    if before.op != "Reshape":
        return None
    source = before.inputs[0]
    if state.tensors[source].shape == state.tensors[node.outputs[0]].shape:
        return source
    return replace(node, inputs=(source,))


def _join_transpose(state: _Tidy, before: Node, node: Node) -> Node | str | None:
    """Two in a row are one, unless reshapes stood between them."""
    if before.op != "Transpose" or state.looked_through:
        return None
    first = _ints(before.attrs["perm"])
    perm = tuple(first[p] for p in _ints(node.attrs["perm"]))
    if perm == tuple(range(len(perm))):
        return before.inputs[0]
    return replace(node, inputs=before.inputs, attrs={"perm": perm})


def _join_unsqueeze(state: _Tidy, before: Node, node: Node) -> Node | None:
    if before.op != "Unsqueeze":
        return None
    outer, inner = _ints(node.attrs["axes"]), _ints(before.attrs["axes"])
    rank = len(state.tensors[node.outputs[0]].shape)
    free = [i for i in range(rank) if i not in outer]
    return replace(node, inputs=before.inputs, attrs={"axes": tuple(sorted((*outer, *(free[i] for i in inner))))})


def _join_clip(state: _Tidy, before: Node, node: Node) -> Node | None:
    """Clip and Relu in a row are one Clip, two Relus one Relu."""
    if before.op not in ("Clip", "Relu") or (before.op == node.op == "Relu"):
        return replace(node, inputs=before.inputs) if before.op == node.op else None
    lows = [low for low in (_low(before), _low(node)) if low is not None]
    highs = [float(n.attrs["max"]) for n in (before, node) if "max" in n.attrs]  # type: ignore[arg-type]
    attrs: dict[str, AttrValue] = {}
    if lows:
        attrs["min"] = max(lows)
    if highs:
        attrs["max"] = min(highs)
    return replace(node, op="Clip", inputs=before.inputs, attrs=attrs)


def _low(node: Node) -> float | None:
    if node.op == "Relu":
        return 0.0
    return float(node.attrs["min"]) if "min" in node.attrs else None  # type: ignore[arg-type]


def _ints(value: AttrValue) -> tuple[int, ...]:
    return tuple(_each(value))


def _each(value: AttrValue) -> Iterator[int]:
    for v in value:  # type: ignore[union-attr]
        yield int(v)


_REWRITES = {
    "BatchNormalization": _fold_batch_norm,
    "Conv": _fold_pad,
    "Reshape": _join_reshape,
    "Transpose": _join_transpose,
    "Unsqueeze": _join_unsqueeze,
    "Clip": _join_clip,
    "Relu": _join_clip,
}
