"""Once-for-all MobileNetV3 subnets (Cai et al. 2020, arXiv:1908.09791).

Five stages of up to four inverted residuals after a fixed first block, with the widths, strides, squeeze-and-excite and
activations of MobileNetV3-Large times 1.2. That is the supernet which HELP (Lee et al. 2021, arXiv:2106.08630) takes
its subnets from; its own search code loads the weights of width 1.2. Names are
`ofa_mbv3/r<resolution>;d<depth of each stage>;k<20 kernels>;e<20 expansions>`; a stage of depth d uses the first d of
its four entries. h-swish and h-sigmoid are spelled out as that code computes them, x * relu6(x + 3) / 6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from costmodel.corpora.blocks import NetBuilder, divisible
from costmodel.errors import InputError
from costmodel.ir import Graph

WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
HARD_SWISH = (False, False, True, True, True)
SQUEEZE = (False, True, False, True, True)
_NAME = re.compile(r"r(\d+);d([234]{5});k([357]{20});e([346]{20})")


@dataclass(frozen=True)
class Subnet:
    """Resolution, depth per stage, kernel and expansion per block (four entries a stage)."""

    resolution: int
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]


def parse(arch: str) -> Subnet:
    """The subnet that a name describes. Raises InputError for anything else."""
    found = _NAME.fullmatch(arch.removeprefix("ofa_mbv3/"))
    if not found or int(found[1]) < 32:
        raise InputError(
            f"'{arch}' is not a once-for-all MobileNetV3; write 'r<size>;d<5 of 2-4>;k<20 of 3,5,7>;e<20 of 3,4,6>'"
        )
    return Subnet(int(found[1]), *(tuple(map(int, found[i])) for i in (2, 3, 4)))


def build(arch: str, batch: int = 1, width: float = 1.2, classes: int = 1000) -> Graph:
    """The subnet of that name on (batch, 3, resolution, resolution). Raises InputError."""
    subnet = parse(arch)
    net = NetBuilder(f"ofa_mbv3/{arch.removeprefix('ofa_mbv3/')}")
    x = net.input((batch, 3, subnet.resolution, subnet.resolution), name="input")
    stem = divisible(16 * width)
    x = hard_swish(net, net.conv_bn(x, stem, 3, 2))
    y = net.conv_bn(x, stem, 3, 1, group=stem, act="Relu")
    x = net.plus(net.conv_bn(y, stem, 1), x)
    for stage, (base, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True)):
        for index in range(subnet.depths[stage]):
            entry = 4 * stage + index
            x = _block(
                net, x, divisible(base * width), subnet.kernels[entry], subnet.expansions[entry],
                1 if index else stride, HARD_SWISH[stage], SQUEEZE[stage],
            )  # fmt: skip
    x = hard_swish(net, net.conv_bn(x, divisible(960 * width), 1))
    x = net.mean(net.mean(x, 3), 2)
    x = hard_swish(net, net.conv(x, divisible(1280 * width), 1))
    return net.build([net.linear(net.flatten(x), classes)])


def hard_swish(net: NetBuilder, x: str) -> str:
    """x * relu6(x + 3) / 6 as four operators."""
    return net.scalar("Div", net.node("Mul", [x, _relu6(net, net.scalar("Add", x))], net.shape(x)))


def _relu6(net: NetBuilder, x: str) -> str:
    return net.node("Clip", [x], net.shape(x), min=0.0, max=6.0)


def _block(
    net: NetBuilder, x: str, channels: int, kernel: int, expansion: int, stride: int, swish: bool, squeeze: bool
) -> str:
    width = net.shape(x)[1]
    inner = divisible(width * expansion)
    y = _activate(net, net.conv_bn(x, inner, 1), swish)
    y = _activate(net, net.conv_bn(y, inner, kernel, stride, group=inner), swish)
    if squeeze:
        y = _squeeze_excite(net, y)
    y = net.conv_bn(y, channels, 1)
    return net.plus(y, x) if stride == 1 and width == channels else y


def _activate(net: NetBuilder, x: str, swish: bool) -> str:
    return hard_swish(net, x) if swish else net.unary("Relu", x)


def _squeeze_excite(net: NetBuilder, x: str) -> str:
    channels = net.shape(x)[1]
    gate = net.mean(net.mean(x, 3), 2)
    gate = net.unary("Relu", net.conv(gate, divisible(channels // 4), 1, bias=True))
    gate = net.scalar("Add", net.conv(gate, channels, 1, bias=True))
    return net.node("Mul", [x, net.scalar("Div", _relu6(net, gate))], net.shape(x))
