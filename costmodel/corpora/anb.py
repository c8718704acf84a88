"""EfficientNet-like networks of Accel-NASBench (Ahmad et al. 2024, arXiv:2404.08005).

Seven stages with the widths and strides of EfficientNet-B0 on 224 pixels. Names are `anb_effnet/<stage>,…`, a stage
being `kKeElLsS`: kernel, expansion (1 has no expanding convolution), layers, and whether each block squeezes and
excites (to a quarter of the block's input channels). Activations are SiLU, as x * sigmoid(x).

The benchmark's own count of operations is reproduced exactly: multiply-accumulates, 4 per BatchNormalization element
and one per pooled element.
"""

from __future__ import annotations

import re

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import Graph

WIDTHS = (16, 24, 40, 80, 112, 192, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
_STAGE = re.compile(r"k([357])e([1-9])l([1-9])s([01])")

Stage = tuple[int, int, int, bool]


def parse(arch: str) -> tuple[Stage, ...]:
    """(kernel, expansion, layers, squeeze-and-excite) of each of the seven stages. Raises InputError."""
    found = [_STAGE.fullmatch(part) for part in arch.removeprefix("anb_effnet/").split(",")]
    stages = tuple((int(m[1]), int(m[2]), int(m[3]), m[4] == "1") for m in found if m)
    if len(stages) != len(found) or len(stages) != len(WIDTHS):
        raise InputError(f"'{arch}' is not an Accel-NASBench network; give {len(WIDTHS)} stages like 'k5e4l2s1'")
    return stages


def build(arch: str, batch: int = 1, size: int = 224, classes: int = 1000) -> Graph:
    """The network of that name on (batch, 3, size, size). Raises InputError."""
    stages = parse(arch)
    net = NetBuilder(f"anb_effnet/{arch.removeprefix('anb_effnet/')}")
    x = _silu(net, net.conv_bn(net.input((batch, 3, size, size), name="input"), 32, 3, 2))
    for (kernel, expansion, layers, squeeze), width, stride in zip(stages, WIDTHS, STRIDES, strict=True):
        for index in range(layers):
            x = _block(net, x, width, kernel, expansion, 1 if index else stride, squeeze)
    x = _silu(net, net.conv_bn(x, 1280, 1))
    return net.build([net.linear(net.flatten(net.global_pool(x)), classes)])


def _silu(net: NetBuilder, x: str) -> str:
    return net.node("Mul", [x, net.unary("Sigmoid", x)], net.shape(x))


def _block(net: NetBuilder, x: str, width: int, kernel: int, expansion: int, stride: int, squeeze: bool) -> str:
    before = net.shape(x)[1]
    inner = before * expansion
    y = x if expansion == 1 else _silu(net, net.conv_bn(x, inner, 1))
    y = _silu(net, net.conv_bn(y, inner, kernel, stride, group=inner))
    if squeeze:
        gate = _silu(net, net.conv(net.global_pool(y), max(1, before // 4), 1, bias=True))
        gate = net.unary("Sigmoid", net.conv(gate, inner, 1, bias=True))
        y = net.node("Mul", [y, gate], net.shape(y))
    y = net.conv_bn(y, width, 1)
    return net.plus(y, x) if stride == 1 and before == width else y
