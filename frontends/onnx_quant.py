"""Reads QDQ networks as int8 operators.

`DequantizeLinear -> op -> QuantizeLinear` is how exporters say that `op` runs on quantised tensors. Here the operator
takes the quantised tensors themselves and the pair around it goes; what is left at the borders of quantised regions
stays as nodes. QOperator forms (QLinearConv, …) need no such pass, their rules give the plain operators directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from costmodel.ir import DType, Node, TensorSpec

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))
"""Products run in int8 as soon as both operands are quantised; their accumulator may leave as float."""

_ACTIVATIONS = "Relu LeakyRelu PRelu Clip Sigmoid Tanh HardSigmoid HardSwish Elu Gelu Swish Mish"
_FLEXIBLE = (
    "Add Sub Mul Concat MaxPool AveragePool GlobalAveragePool ReduceMean Resize Pad Slice Split Gather Reshape Flatten"
    " Squeeze Unsqueeze Transpose Expand Tile DepthToSpace SpaceToDepth Softmax Where"
)

ACTIVATIONS = frozenset(_ACTIVATIONS.split())
FLEXIBLE = ACTIVATIONS.union(_FLEXIBLE.split())
"""Operators that run in int8 if they read quantised tensors and their result is quantised again."""


@dataclass
class _Network:
    nodes: list[Node]
    tensors: dict[str, TensorSpec]
    params: set[str]
    outputs: set[str]
    producer: dict[str, int] = field(default_factory=dict)
    users: dict[str, list[int]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    products: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        for i, node in enumerate(self.nodes):
            self.producer.update((t, i) for t in node.outputs if t)
            for tensor in dict.fromkeys(node.inputs):
                self.users.setdefault(tensor, []).append(i)

    def dequantized_from(self, tensor: str) -> str | None:
        """The quantised tensor behind a float one, or None."""
        i = self.producer.get(tensor)
        if i is None or self.nodes[i].op != "DequantizeLinear":
            return None
        source = self.nodes[i].inputs[0]
        return self.renamed.get(source, source)


def fold_quantizers(
    nodes: list[Node], tensors: dict[str, TensorSpec], params: set[str], outputs: Sequence[str]
) -> list[Node]:
    """The nodes with quantised regions made explicit; `tensors` get the types of what is now int8."""
    if not any(node.op == "DequantizeLinear" for node in nodes) and not any(n.op == "QuantizeLinear" for n in nodes):
        return nodes
    net = _Network(list(nodes), tensors, params, set(outputs))
    for i, node in enumerate(net.nodes):
        if node.op in PRODUCTS:
            _fold_product(net, i)
        elif node.op in FLEXIBLE:
            _fold_flexible(net, i)
    kept = [node for i, node in enumerate(net.nodes) if i not in net.dropped]
    renamed = net.renamed
    if not renamed:
        return kept
    return [
        replace(node, inputs=tuple(renamed.get(t, t) for t in node.inputs))
        if any(t in renamed for t in node.inputs)
        else node
        for node in kept
    ]


def _fold_product(net: _Network, i: int) -> None:
    node = net.nodes[i]
    inputs = list(node.inputs)
    for k in (0, 1):
        source = net.dequantized_from(inputs[k])
        if source is not None:
            inputs[k] = source
        elif not (inputs[k] in net.params and net.tensors[inputs[k]].dtype.is_quantized):
            return
    if len(inputs) > 2 and (source := net.dequantized_from(inputs[2])) is not None:
        inputs[2] = source
    net.nodes[i] = replace(node, inputs=tuple(inputs))
    net.products.add(i)
    _quantize_result(net, i)


def _fold_flexible(net: _Network, i: int) -> None:
    node = net.nodes[i]
    inputs, found = list(node.inputs), False
    accumulators: list[str] = []
    for k, tensor in enumerate(inputs):
        if not tensor:
            continue
        spec = net.tensors[tensor]
        source = net.dequantized_from(tensor)
        if source is not None:
            inputs[k], found = source, True
        elif tensor in net.params or not spec.dtype.is_float:
            found = found or spec.dtype.is_quantized
        elif net.producer.get(tensor) in net.products and net.users[tensor] == [i] and tensor not in net.outputs:
            accumulators.append(tensor)
        else:
            return
    if not found and len(accumulators) < 2:
        return
    dtype = _quantize_result(net, i)
    if dtype is None:
        return
    net.nodes[i] = replace(net.nodes[i], inputs=tuple(inputs))
    for tensor in accumulators:
        net.tensors[tensor] = TensorSpec(net.tensors[tensor].shape, dtype)


def _quantize_result(net: _Network, i: int) -> DType | None:
    """Gives a node's results the type of the QuantizeLinear that alone reads them, directly or behind activations."""
    if len([t for t in net.nodes[i].outputs if t]) > 1:
        return _quantize_parts(net, i)
    tensor, path = net.nodes[i].outputs[0], []
    while True:
        path.append(tensor)
        users = net.users.get(tensor, [])
        if not users or tensor in net.outputs:
            return None
        if all(net.nodes[u].op == "QuantizeLinear" and net.nodes[u].inputs[0] == tensor for u in users):
            break
        step = net.nodes[users[0]]
        if len(users) > 1 or step.op not in ACTIVATIONS or step.inputs[0] != tensor:
            return None
        tensor = step.outputs[0]
    dtype = net.tensors[net.nodes[users[0]].outputs[0]].dtype
    for name in path:
        net.tensors[name] = TensorSpec(net.tensors[name].shape, dtype)
    _drop(net, users, tensor)
    return dtype


def _quantize_parts(net: _Network, i: int) -> DType | None:
    """As above for several results, each of which must be quantised directly."""
    parts = [t for t in net.nodes[i].outputs if t]
    users = [net.users.get(t, []) for t in parts]
    if any(not u or t in net.outputs for t, u in zip(parts, users, strict=False)):
        return None
    if any(net.nodes[u].op != "QuantizeLinear" for group in users for u in group):
        return None
    dtype = net.tensors[net.nodes[users[0][0]].outputs[0]].dtype
    for tensor, group in zip(parts, users, strict=False):
        net.tensors[tensor] = TensorSpec(net.tensors[tensor].shape, dtype)
        _drop(net, group, tensor)
    return dtype


def _drop(net: _Network, quantizers: list[int], tensor: str) -> None:
    """Removes quantisers; whoever read their results reads the tensor itself."""
    for u in quantizers:
        result = net.nodes[u].outputs[0]
        if result in net.outputs:
            continue
        net.dropped.add(u)
        net.renamed[result] = tensor
