"""Puts together what Relax frontends and passes take apart.

Relax has no bias in convolutions, no Gemm, no HardSwish, no variadic Sum; `DecomposeOpsForInference` spells
normalisations out. Where the pieces can only have come from one operator, they become that operator again. Each pattern
is anchored at its last node; inner results must have no other reader.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from costmodel.ir import AttrValue, Node, TensorSpec
from frontends.onnx_values import Value
from frontends.relax_compose_norm import (
    merge_batch_norm,
    merge_flat_softmax,
    merge_layer_norm,
    merge_lrn,
    merge_norm_l2,
)
from frontends.relax_network import Network

STACK = "relax.stack"

Pattern = Callable[[Network, int, Node], bool]


def _merge_stack(net: Network, i: int, node: Node) -> bool:
    """A reduction over a new axis is ONNX's Sum, Max, Min or Mean of several tensors."""
    stack = net.inner(node.inputs[0], STACK)
    merged = {"ReduceSum": "Sum", "ReduceMax": "Max", "ReduceMin": "Min", "ReduceMean": "Mean"}.get(node.op)
    if stack is None or merged is None or node.attrs.get("axes") != (stack.attrs["axis"],) or node.attrs["keepdims"]:
        return False
    net.put(i, "Add" if merged == "Sum" and len(stack.inputs) == 2 else merged, stack.inputs, {}, [stack])
    return True


def _merge_clip(net: Network, i: int, node: Node) -> bool:
    """max(x, low) and min(x, high) are Clip; bounds that bind nothing go away, two in a row join."""
    found = net.split(node)
    if found is None:
        return False
    key = "min" if node.op == "Max" else "max"
    x, bound = found
    attrs: dict[str, AttrValue] = {}
    if abs(bound) < 3.4e38:
        attrs[key] = bound
    before = net.inner(x, "Clip")
    if before is not None and key not in before.attrs and len(before.inputs) == 1:
        net.put(i, "Clip", before.inputs, {**before.attrs, **attrs}, [before])
    else:
        net.put(i, "Clip", [x], attrs)
    return True


def _merge_hard_sigmoid(net: Network, i: int, node: Node) -> bool:
    """clip(alpha x + beta, 0, 1)."""
    if node.attrs.get("min") != 0 or node.attrs.get("max") != 1:
        return False
    add = net.inner(node.inputs[0], "Add")
    shift = net.split(add) if add else None
    scale = net.inner(shift[0], "Mul") if shift else None
    factor = net.split(scale) if scale else None
    if add is None or shift is None or scale is None or factor is None:
        return False
    net.put(i, "HardSigmoid", [factor[0]], {"alpha": _rounded(factor[1]), "beta": _rounded(shift[1])}, [add, scale])
    return True


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _merge_hard_swish(net: Network, i: int, node: Node) -> bool:
    """x * (clip(x + 3, 0, 6) / 6)."""
    for x, gate in (node.inputs, node.inputs[::-1]):
        sixth = net.inner(gate, "Div")
        ratio = net.split(sixth) if sixth else None
        clip = net.inner(ratio[0], "Clip") if ratio and ratio[1] == 6 else None
        add = net.inner(clip.inputs[0], "Add") if clip and clip.attrs.get("max") == 6 else None
        if sixth and clip and add and net.split(add) == (x, 3.0):
            net.put(i, "HardSwish", [x], {}, [sixth, clip, add])
            return True
    return False


def _merge_elu(net: Network, i: int, node: Node) -> bool:
    """-alpha * relu(1 - exp(x)) + relu(x)."""
    for low, high in (node.inputs, node.inputs[::-1]):
        relu, mul = net.inner(high, "Relu"), net.inner(low, "Mul")
        factor = net.split(mul) if mul else None
        inner = net.inner(factor[0], "Relu") if factor else None
        sub = net.inner(inner.inputs[0], "Sub") if inner else None
        exp = net.inner(sub.inputs[1], "Exp") if sub and net.scalar(sub.inputs[0]) == 1 else None
        if relu and mul and factor and inner and sub and exp and exp.inputs == relu.inputs:
            net.put(i, "Elu", [exp.inputs[0]], {"alpha": _rounded(-factor[1])}, [relu, mul, inner, sub, exp])
            return True
    return False


def _merge_bias(net: Network, i: int, node: Node) -> bool:
    """A constant per output channel added to a convolution is its bias."""
    found = net.weight(node)
    conv = net.inner(found[0], "Conv", "ConvTranspose") if found else None
    if found is None or conv is None or len(conv.inputs) > 2:
        return False
    shape, bias = net.tensors[node.outputs[0]].shape, net.tensors[found[1]].shape
    channel = len(shape) - 1 if str(conv.attrs.get("layout", "")).endswith("C") else 1
    aligned = (1,) * (len(shape) - len(bias)) + bias
    if math.prod(bias) != shape[channel] or aligned[channel] != shape[channel]:
        return False
    net.put(i, conv.op, [*conv.inputs, net.vector(found[1], shape[channel])], conv.attrs, [conv])
    return True


def _merge_gemm(net: Network, i: int, node: Node) -> bool:
    """A product of matrices with a constant row added is Gemm."""
    found = net.weight(node)
    product = net.inner(found[0], "MatMul") if found else None
    if found is None or product is None:
        return False
    shape, bias = net.tensors[node.outputs[0]].shape, net.tensors[found[1]].shape
    ranks = [len(net.tensors[t].shape) for t in (*product.inputs, node.outputs[0])]
    if ranks != [2, 2, 2] or math.prod(bias) != shape[1] or bias[-1] != shape[1] or product.inputs[1] not in net.params:
        return False
    _put_gemm(net, i, product.inputs[0], product.inputs[1], [net.vector(found[1], shape[1])], [product])
    return True


def _bare_gemm(net: Network, i: int, node: Node) -> bool:
    """A product with a transposed constant matrix and no bias was a Gemm too."""
    if len(net.tensors[node.inputs[0]].shape) != 2 or node.inputs[1] not in net.transposed:
        return False
    if any(reader in ("Add",) for reader in _reader_ops(net, node.outputs[0])):
        return False
    _put_gemm(net, i, node.inputs[0], node.inputs[1], [], [])
    return True


def _reader_ops(net: Network, tensor: str) -> list[str]:
    return [n.op for n in net.nodes if n is not None and tensor in n.inputs]


def _put_gemm(net: Network, i: int, a: str, b: str, bias: list[str], drop: list[Node]) -> None:
    right, source = 0, net.transposed.get(b)
    if source is not None:
        right, name = 1, source.name
        spec = TensorSpec(source.shape, source.dtype)
        if net.tensors.get(name, spec) != spec:
            name = f"{name}.matrix"
        net.tensors[name] = spec
        net.params.add(name)
        if source.origins is not None:
            net.sources[name] = sum(source.origins.values())
        b = name
    net.put(i, "Gemm", [a, b, *bias], {"transA": 0, "transB": right}, drop)


def _merge_reciprocal(net: Network, i: int, node: Node) -> bool:
    if net.scalar(node.inputs[0]) != 1 or node.inputs[1] in net.params:
        return False
    net.put(i, "Reciprocal", [node.inputs[1]], {})
    return True


PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "ReduceSum": (_merge_stack,),
    "ReduceMax": (_merge_stack,),
    "ReduceMin": (_merge_stack,),
    "ReduceMean": (_merge_stack,),
    "Max": (_merge_clip,),
    "Min": (_merge_clip,),
    "Clip": (_merge_hard_sigmoid,),
    "Mul": (_merge_hard_swish,),
    "Add": (merge_layer_norm, merge_batch_norm, _merge_bias, _merge_gemm, _merge_elu),
    "MatMul": (_bare_gemm,),
    "Div": (_merge_reciprocal, merge_lrn),
    "Sqrt": (merge_norm_l2,),
    "Reshape": (merge_flat_softmax,),
}


def compose(
    nodes: Sequence[Node],
    tensors: dict[str, TensorSpec],
    params: set[str],
    outputs: Sequence[str],
    transposed: Mapping[str, Value],
    scalars: Mapping[str, float],
    sources: dict[str, int],
) -> list[Node]:
    """The nodes with composed operators; `tensors` and `params` gain what they need."""
    net = Network(nodes, tensors, params, outputs, transposed, scalars, sources)
    for i in range(len(net.nodes)):
        again = True
        while again:
            node = net.nodes[i]
            again = node is not None and any(
                pattern(net, i, node) for pattern in PATTERNS.get(node.op, ()) if net.nodes[i] is node
            )
            if again and net.nodes[i] is not None and net.nodes[i].op == node.op:  # type: ignore[union-attr]
                break
    return _without_stacks([node for node in net.nodes if node is not None], net)


def _without_stacks(nodes: list[Node], net: Network) -> list[Node]:
    """Stacks that no reduction took, as Unsqueeze and Concat."""
    found: list[Node] = []
    for node in nodes:
        if node.op != STACK:
            found.append(node)
            continue
        axis, lifted = int(node.attrs["axis"]), []  # type: ignore[arg-type]
        for k, tensor in enumerate(node.inputs):
            spec, name = net.tensors[tensor], f"{node.outputs[0]}.{k}"
            net.tensors[name] = TensorSpec((*spec.shape[:axis], 1, *spec.shape[axis:]), spec.dtype)
            found.append(Node("Unsqueeze", (tensor,), (name,), {"axes": (axis,)}, f"{node.name}.{k}"))
            lifted.append(name)
        found.append(replace(node, op="Concat", inputs=tuple(lifted), attrs={"axis": axis}))
    return found
