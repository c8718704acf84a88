"""Single operators of random shape: what a device takes for each, apart from what runtimes make of whole networks."""

from __future__ import annotations

from collections.abc import Callable

from onnx import ModelProto

from profiler.workloads.draw import Draw
from profiler.workloads.net import Net
from profiler.workloads.transformer import dense, layer_norm

ACTIVATIONS = ("Relu", "Sigmoid", "HardSwish", "HardSigmoid", "Tanh", "Elu", "LeakyRelu", "Erf", "relu6")
ELEMENTS = 4_000_000
"""Most elements of an input."""


def operator(net: Net, draw: Draw) -> ModelProto:
    """A graph of one operator (a linear layer on sequences has two, as exporters write it)."""
    return net.finish(draw.pick(tuple(KINDS), tuple(KINDS.values()))(net, draw))


def _channels(draw: Draw, most: int) -> int:
    width = round(draw.log_uniform(16, max(17, most)))
    return width if draw.chance(0.2) else max(8, width // 8 * 8)


def _map(net: Net, draw: Draw, most: int = 1024) -> str:
    """A feature map (channels, size, size)."""
    size = round(draw.log_uniform(7, 224))
    return net.input((_channels(draw, min(most, ELEMENTS // size**2)), size, size))


def _sequence(net: Net, draw: Draw) -> str:
    """Tokens (sequence, width)."""
    return net.input((draw.integer(16, 512), draw.multiple(64, 1536, 32)))


def _conv(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    kernel = draw.pick((1, 3, 5, 7), (0.4, 0.4, 0.12, 0.08))
    stride = draw.pick((1, 2), (0.8, 0.2))
    dilation = 2 if kernel == 3 and draw.chance(0.08) else 1
    return net.conv(x, _channels(draw, 1024), kernel, "conv", stride, dilation=dilation)


def _depthwise(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    channels = net.shapes[x][0]
    return net.conv(x, channels, draw.pick((3, 5, 7)), "conv", draw.pick((1, 2), (0.8, 0.2)), group=channels)


def _grouped(net: Net, draw: Draw) -> str:
    size, group, width = round(draw.log_uniform(7, 56)), draw.pick((2, 4, 8, 32)), draw.pick((8, 16, 32))
    x = net.input((group * width, size, size))
    return net.conv(x, group * width, 3, "conv", group=group)


def _linear(net: Net, draw: Draw) -> str:
    return net.linear(net.input((round(draw.log_uniform(128, 6144)),)), round(draw.log_uniform(10, 4096)), "linear")


def _projection(net: Net, draw: Draw) -> str:
    return dense(net, _sequence(net, draw), draw.multiple(64, 3072, 32), "linear")


def _product(net: Net, draw: Draw) -> str:
    """The two products of attention: queries by keys, or weights by values."""
    heads, sequence, width = draw.integer(1, 16), draw.integer(16, 256), draw.pick((32, 64, 128))
    out = (heads, sequence, sequence)
    left, right = ((heads, sequence, width), (heads, width, sequence))
    if draw.chance(0.5):
        left, right, out = out, left, left
    net.flops += 2 * heads * sequence * sequence * width
    return net.node("MatMul", [net.input(left), net.input(right, "other")], out)


def _pool(net: Net, draw: Draw) -> str:
    size, kernel = round(draw.log_uniform(14, 224)), draw.pick((2, 3, 5))
    x = net.input((_channels(draw, min(512, ELEMENTS // size**2)), size, size))
    return net.pool(x, kernel, draw.pick((1, 2)), "pool", draw.pick(("MaxPool", "AveragePool")), kernel // 2)


def _global_pool(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    if draw.chance(0.5):
        return net.global_pool(x, "pool")
    return net.node("ReduceMean", [x], (net.shapes[x][0], 1, 1), "pool", axes=[2, 3], keepdims=1)


def _softmax(net: Net, draw: Draw) -> str:
    x = net.input((draw.integer(1, 16), *[draw.integer(16, 256)] * 2))
    return net.node("Softmax", [x], net.shapes[x], axis=-1)


def _norm(net: Net, draw: Draw) -> str:
    return layer_norm(net, _sequence(net, draw), "norm")


def _batch_norm(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    return net.batch_norm(x, "norm")


def _activation(net: Net, draw: Draw) -> str:
    return net.act(_map(net, draw), draw.pick(ACTIVATIONS), "act")


def _sum(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    return net.node(draw.pick(("Add", "Mul")), [x, net.input(net.shapes[x], "other")], net.shapes[x])


def _gate(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    return net.node("Mul", [x, net.input((net.shapes[x][0], 1, 1), "gate")], net.shapes[x])


def _concat(net: Net, draw: Draw) -> str:
    x = _map(net, draw)
    _, *size = net.shapes[x]
    more = [net.input((_channels(draw, 256), *size), f"input{i}") for i in range(draw.integer(1, 3))]
    return net.concat([x, *more])


def _resize(net: Net, draw: Draw) -> str:
    size, scale = round(draw.log_uniform(7, 64)), draw.pick((2, 4), (0.8, 0.2))
    channels = _channels(draw, min(512, ELEMENTS // (size * scale) ** 2))
    inputs = [net.input((channels, size, size)), "", net.constant([1.0, 1.0, float(scale), float(scale)], "scales")]
    how = draw.pick(({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
                     {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}))  # fmt: skip
    return net.node("Resize", inputs, (channels, size * scale, size * scale), **how)


def _transpose(net: Net, draw: Draw) -> str:
    heads, sequence, width = draw.integer(1, 16), draw.integer(16, 256), draw.pick((32, 64, 128))
    x = net.input((sequence, heads, width))
    return net.node("Transpose", [x], (heads, sequence, width), perm=[0, 2, 1, 3])


KINDS: dict[Callable[[Net, Draw], str], float] = {
    _conv: 6, _depthwise: 3, _grouped: 1, _linear: 2, _projection: 2, _product: 2, _pool: 2, _global_pool: 1,
    _softmax: 1, _norm: 1, _batch_norm: 1, _activation: 2, _sum: 2, _gate: 1, _concat: 1, _resize: 1, _transpose: 1,
}  # fmt: skip
"""How often each kind comes."""
