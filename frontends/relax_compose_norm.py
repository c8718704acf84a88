"""Patterns of normalisations that were spelled out."""

from __future__ import annotations

import math

from costmodel.ir import AttrValue, Node
from frontends.relax_network import Network


def merge_batch_norm(net: Network, i: int, node: Node) -> bool:
    """((x - mean) / deviation) * gamma + beta with one constant per channel each."""
    shape = net.tensors[node.outputs[0]].shape
    constants: list[str] = []
    chain: list[Node] = []
    current: Node | None = node
    for op in ("Add", "Mul", "Div", "Sub"):
        found = net.weight(current) if current is not None and current.op == op else None
        if found is None or not _per_channel(net.tensors[found[1]].shape, shape):
            return False
        if op in ("Div", "Sub") and current is not None and current.inputs[1] != found[1]:
            return False
        constants.append(found[1])
        chain += [current] if current is not None else []
        x = found[0]
        current = net.inner(x, "Mul", "Div", "Sub")
    beta, gamma, deviation, mean = (net.vector(c, shape[1]) for c in constants)
    net.put(i, "BatchNormalization", [x, gamma, beta, mean, deviation], {}, chain[1:])
    return True


def _per_channel(constant: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    aligned = (1,) * (len(shape) - len(constant)) + constant
    return len(shape) > 2 and aligned[1] == shape[1] and math.prod(constant) == shape[1]


_MEANS = ("ReduceMean", "GlobalAveragePool")


def merge_layer_norm(net: Network, i: int, node: Node) -> bool:
    """(x - mean(x)) / sqrt(variance(x) + eps) * gamma + beta, as `DecomposeOpsForInference` writes it."""
    shift = net.weight(node)
    mul = net.inner(shift[0], "Mul") if shift else None
    scale = net.weight(mul) if mul else None
    div = net.inner(scale[0], "Div") if scale else None
    if shift is None or scale is None or mul is None or div is None:
        return False
    centred, root = net.inner(div.inputs[0], "Sub"), net.inner(div.inputs[1], "Sqrt")
    add = net.inner(root.inputs[0], "Add") if root else None
    found = net.split(add) if add else None
    variance = net.inner(found[0], *_MEANS) if found else None
    mean = net.shared(centred.inputs[1], *_MEANS) if centred else None
    if centred is None or root is None or add is None or variance is None or mean is None:
        return False
    x = centred.inputs[0]
    square = net.inner(variance.inputs[0], "Mul")
    distance = net.inner(square.inputs[0], "Sub") if square else None
    if square is None or distance is None or mean.inputs[0] != x or distance.inputs[0] != x:
        return False
    rank = len(net.tensors[x].shape)
    first = rank - len(mean.attrs.get("axes", range(2, rank)))  # type: ignore[arg-type]
    if mean.attrs.get("axes", tuple(range(2, rank))) != tuple(range(first, rank)):
        return False
    drop = [mul, div, centred, root, add, variance, square, distance]
    drop += [m for m in {mean.outputs[0]: mean, distance.inputs[1]: net.shared(distance.inputs[1], *_MEANS)}.values()
             if m is not None]  # fmt: skip
    shape = net.tensors[x].shape
    if first == 2 and all(_per_channel(net.tensors[c].shape, shape) for c in (scale[1], shift[1])):
        vectors = [net.vector(c, shape[1]) for c in (scale[1], shift[1])]
        net.put(i, "InstanceNormalization", [x, *vectors], {}, drop)
        return True
    if any(len(net.tensors[c].shape) > rank - first for c in (scale[1], shift[1])):
        return False
    net.put(i, "LayerNormalization", [x, scale[1], shift[1]], {"axis": first}, drop)
    return True


def merge_norm_l2(net: Network, i: int, node: Node) -> bool:
    """The root of a sum of squares."""
    total = net.inner(node.inputs[0], "ReduceSum")
    square = net.inner(total.inputs[0], "Mul") if total else None
    if total is None or square is None or square.inputs[0] != square.inputs[1]:
        return False
    net.put(i, "ReduceL2", square.inputs[:1], total.attrs, [total, square])
    return True


def merge_lrn(net: Network, i: int, node: Node) -> bool:
    """x / (k + alpha * average of x * x over neighbouring channels) ** beta."""
    power = net.inner(node.inputs[1], "Pow")
    add = net.inner(power.inputs[0], "Add") if power else None
    shift = net.split(add) if add else None
    mul = net.inner(shift[0], "Mul") if shift else None
    factor = net.split(mul) if mul else None
    squeeze = net.inner(factor[0], "Squeeze") if factor else None
    pool = net.inner(squeeze.inputs[0], "AveragePool") if squeeze else None
    lifted = net.inner(pool.inputs[0], "Unsqueeze") if pool else None
    square = net.inner(lifted.inputs[0], "Mul") if lifted else None
    if not (power and add and mul and squeeze and pool and lifted and square):
        return False
    if square.inputs != (node.inputs[0],) * 2:
        return False
    size = math.prod(pool.attrs["kernel_shape"])  # type: ignore[arg-type]
    net.put(i, "LRN", [node.inputs[0]], {"size": size}, [power, add, mul, squeeze, pool, lifted, square])
    return True


def merge_flat_softmax(net: Network, i: int, node: Node) -> bool:
    """Softmax over flattened axes and back, as before opset 13."""
    softmax = net.inner(node.inputs[0], "Softmax")
    flat = net.inner(softmax.inputs[0], "Reshape") if softmax else None
    if softmax is None or flat is None:
        return False
    shape, rows = net.tensors[node.outputs[0]].shape, net.tensors[flat.outputs[0]].shape
    if net.tensors[flat.inputs[0]].shape != shape or len(rows) != 2 or softmax.attrs["axis"] != 1:
        return False
    first = next((k for k in range(len(shape))[::-1] if math.prod(shape[k:]) == rows[1] and shape[k] != 1), None)
    if first is None:
        return False
    wide = [k for k in range(first, len(shape)) if shape[k] != 1]
    attrs: dict[str, AttrValue] = {"axis": wide[0] if len(wide) == 1 else first}
    if len(wide) > 1:
        attrs["flatten"] = 1
    net.put(i, "Softmax", flat.inputs, attrs, [softmax, flat])
    return True
