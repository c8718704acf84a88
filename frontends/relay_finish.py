"""Raw graph → `Graph`: weights told from inputs, constants folded away, names given.

Relay lists weights among the parameters of `main`. A parameter is a weight if it reaches only slots that hold weights:
the second operand of a product, scale, shift and statistics of normalisations, a gathered table, or an element-wise
operand that is smaller than the other side, of lower rank, or named like one; on the way it may be transposed,
reshaped, cast and combined with other weights. Everything that reaches the data slot of such an operator is an input,
as are other integers and, if nothing else is one, the first parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from costmodel.errors import InputError
from costmodel.ir import DType, Graph, GraphBuilder, TensorSpec
from frontends.relay_ast import words
from frontends.relay_fuse import fuse, users_of
from frontends.relay_raw import RawNode, Tensor

DATA_FIRST = frozenset(
    words(
        """BiasAdd Conv ConvTranspose DeformConv Gemm MatMul BatchNormalization PRelu LayerNormalization
    InstanceNormalization GroupNormalization Relu LeakyRelu Clip Sigmoid Tanh Softmax LogSoftmax MaxPool
    AveragePool GlobalAveragePool GlobalMaxPool LRN Resize QuantizeLinear Requantize"""
    )
)
WEIGHTED = frozenset(
    words(
        """BiasAdd Conv ConvTranspose DeformConv Gemm MatMul BatchNormalization PRelu LayerNormalization
    InstanceNormalization GroupNormalization QuantizeLinear DequantizeLinear Requantize"""
    )
)
ELEMENTWISE = frozenset(
    words("Add Sub Mul Div Pow Mod Max Min Where Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor")
)
WEIGHT_NAME = re.compile(r"weight|bias|gamma|beta|embed|kernel|running_|moving_|(?:^|[._])(?:scale|shift)$")


def finish(nodes: list[RawNode], inputs: list[Tensor], outputs: list[Tensor], name: str, keep: Iterable[str]) -> Graph:
    """The frozen graph.

    keep  names of parameters that are inputs whatever they are used for
    """
    nodes = _alive(nodes, outputs)
    fed = run_time(nodes, inputs, outputs, frozenset(keep))
    nodes, outputs = _fold_constants(nodes, fed, outputs)
    nodes, inputs, fed = _absorb_layouts(nodes, inputs, fed, outputs)
    nodes = fuse(nodes, outputs, fed)
    nodes = _alive(nodes, outputs)
    return _freeze(nodes, [t for t in inputs if t in fed], outputs, name)


def _alive(nodes: list[RawNode], outputs: list[Tensor]) -> list[RawNode]:
    """Nodes that a result depends on."""
    needed = set(outputs)
    kept: list[RawNode] = []
    for node in reversed(nodes):
        if any(t in needed for t in node.outputs):
            kept.append(node)
            needed.update(t for t in node.inputs if t is not None)
    return kept[::-1]


def run_time(
    nodes: list[RawNode], inputs: list[Tensor], outputs: list[Tensor], keep: frozenset[str] = frozenset()
) -> set[Tensor]:
    """The parameters of `main` that are inputs."""
    fed = {t for t in inputs if t.name in keep or not _may_be_weight(t)}
    while True:
        made = _depending(nodes, fed)
        found = _contradictions(nodes, made, outputs) - fed
        if found:
            fed |= found
        elif not fed and inputs:
            fed = {inputs[0]}
        else:
            return fed


def _may_be_weight(tensor: Tensor) -> bool:
    """Floats, 8-bit integers, and the int32 biases and zero points of quantised products."""
    if tensor.dtype is DType.INT32:
        return len(tensor.shape) < 2
    return tensor.dtype.is_float or tensor.dtype.is_quantized


def _depending(nodes: list[RawNode], fed: set[Tensor]) -> set[Tensor]:
    """Tensors that are known at run time only."""
    made = set(fed)
    for node in nodes:
        if any(t in made for t in node.inputs if t is not None):
            made.update(node.outputs)
    return made


def _contradictions(nodes: list[RawNode], made: set[Tensor], outputs: list[Tensor]) -> set[Tensor]:
    """Parameters taken for weights that sit where data must be."""
    found: set[Tensor] = set()
    source = _Sources()
    for node in nodes:
        first = node.inputs[0] if node.inputs else None
        if first is not None and node.op in DATA_FIRST and first not in made:
            found |= source(first)
        if not any(t in made for t in node.inputs if t is not None):
            continue
        for i, tensor in enumerate(node.inputs):
            if tensor is None or tensor in made or tensor.origin == "const":
                continue
            if node.op in WEIGHTED and i > 0 and not (node.op == "MatMul" and _is_batch(tensor)):
                continue
            if node.op == "Gather" and i == 0:
                continue
            sources = source(tensor)
            if node.op in ELEMENTWISE and tensor.dtype.is_float and _is_spread(tensor, sources, node.outputs[0]):
                continue
            found |= sources
    if not found:
        for tensor in outputs:
            if tensor not in made:
                found |= source(tensor)
    return found


def _is_batch(tensor: Tensor) -> bool:
    """Whether an operand of a product is one matrix per item of a batch, which weights are not."""
    return len(tensor.shape) > 2 and tensor.shape[0] > 1


def _is_spread(tensor: Tensor, sources: set[Tensor], result: Tensor) -> bool:
    """Whether an element-wise operand looks like a weight: smaller than the result, or named as one."""
    if tensor.numel < result.numel or any(len(s.shape) < len(result.shape) for s in sources):
        return True
    return bool(sources) and all(WEIGHT_NAME.search(s.name) for s in sources)


class _Sources:
    """The parameter that a tensor comes from along first operands, worked out once per tensor."""

    def __init__(self) -> None:
        self.known: dict[Tensor, Tensor | None] = {}

    def __call__(self, tensor: Tensor) -> set[Tensor]:
        """A set of that one parameter; empty if the tensor comes from a constant."""
        path: list[Tensor] = []
        while tensor not in self.known:
            path.append(tensor)
            maker = tensor.maker
            if maker is None:
                self.known[tensor] = tensor if tensor.origin == "main" else None
                break
            operands = [t for t in maker.inputs if t is not None and t.origin != "const"]
            if not operands or (maker.op in WEIGHTED and operands[0] is not maker.inputs[0]):
                self.known[tensor] = None
                break
            tensor = operands[0]
        found = self.known[tensor]
        self.known.update(dict.fromkeys(path, found))
        return set() if found is None else {found}


def _fold_constants(
    nodes: list[RawNode], fed: set[Tensor], outputs: list[Tensor]
) -> tuple[list[RawNode], list[Tensor]]:
    """Drops nodes that depend on no input; what they made becomes constants."""
    made = _depending(nodes, fed)
    kept: list[RawNode] = []
    for node in nodes:
        if any(t in made for t in node.outputs):
            kept.append(node)
        else:
            for tensor in node.outputs:
                tensor.maker, tensor.origin = None, "const"
                tensor.name = tensor.name or next((t.name for t in node.inputs if t is not None and t.name), "")
    return kept, outputs


def _absorb_layouts(
    nodes: list[RawNode], inputs: list[Tensor], fed: set[Tensor], outputs: list[Tensor]
) -> tuple[list[RawNode], list[Tensor], set[Tensor]]:
    """An image input that is only read as N, C, spatial is fed that way; no transpose of it is counted."""
    users = users_of(nodes)
    replaced: dict[Tensor, Tensor] = {}
    dropped: set[int] = set()
    for tensor in inputs:
        readers = users.get(tensor, [])
        perms = {r.attrs.get("perm") for r in readers if r.op == "Transpose"}
        rank = len(tensor.shape)
        to_second = (0, rank - 1, *range(1, rank - 1))
        if tensor not in fed or tensor in outputs or perms != {to_second} or rank < 3:
            continue
        if any(r.op != "Transpose" or r.outputs[0].origin != "order" for r in readers):
            continue
        fresh = Tensor(readers[0].outputs[0].shape, tensor.dtype, "main", tensor.name)
        replaced[tensor] = fresh
        for reader in readers:
            replaced[reader.outputs[0]] = fresh
            dropped.add(id(reader))
    if not replaced:
        return nodes, inputs, fed
    kept = [n for n in nodes if id(n) not in dropped]
    for node in kept:
        node.inputs = [replaced.get(t, t) if t is not None else None for t in node.inputs]
    outputs[:] = [replaced.get(t, t) for t in outputs]
    return kept, [replaced.get(t, t) for t in inputs], {replaced.get(t, t) for t in fed}


def _freeze(nodes: list[RawNode], inputs: list[Tensor], outputs: list[Tensor], name: str) -> Graph:
    """Names tensors and builds the graph."""
    builder = GraphBuilder(name)
    names: dict[Tensor, str] = {}
    for tensor in inputs:
        label = tensor.name if tensor.name and tensor.name not in builder.tensors else None
        names[tensor] = builder.input(tensor.shape, tensor.dtype, label)

    def named(tensor: Tensor | None) -> str:
        if tensor is None:
            return ""
        if tensor not in names:
            label = tensor.name if tensor.name and tensor.name not in builder.tensors else None
            names[tensor] = builder.param(tensor.shape, tensor.dtype, label)
        return names[tensor]

    for node in nodes:
        operands = [named(t) for t in node.inputs]
        specs = [TensorSpec(t.shape, t.dtype) for t in node.outputs]
        label = f"{node.op}_{node.name}" if node.name else ""
        for tensor, made in zip(
            node.outputs, builder.add(node.op, operands, specs, node.attrs, label, node.opaque), strict=True
        ):
            names[tensor] = made
    if not nodes and not inputs and not outputs:
        raise InputError("the Relay program computes nothing; give one with an entry function")
    return builder.build([named(t) for t in outputs])
