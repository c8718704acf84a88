"""MobileNetV2 (Sandler et al. 2018), MobileNetV3 (Howard et al. 2019), MnasNet (Tan et al. 2019) and EfficientNet
(Tan and Le 2019) with random depth, width, kernels, expansion and resolution."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import ModelProto

from profiler.workloads.classic import CLASSES
from profiler.workloads.draw import Draw, Widths
from profiler.workloads.net import Net


@dataclass(frozen=True)
class Stage:
    """Inverted residual blocks that share a width: the first one has the stride."""

    channels: int
    depth: int
    stride: int
    expansion: float
    kernel: int
    act: str
    squeeze: bool = False


def mobilenetv2(net: Net, draw: Draw) -> ModelProto:
    """ReLU6, no squeeze-and-excite."""
    table = ((16, 1, 1, 1), (24, 2, 2, 6), (32, 3, 2, 6), (64, 4, 2, 6), (96, 3, 1, 6), (160, 3, 2, 6), (320, 1, 1, 6))
    stages = [Stage(c, n, s, t, 3, "relu6") for c, n, s, t in table]
    x, width = _stem(net, draw, 32, "relu6")
    x = _body(net, draw, width, x, stages, "Sigmoid")
    return net.classifier(net.conv(x, width(1280), 1, "head", act="relu6"), draw.pick(*CLASSES))


def mobilenetv3(net: Net, draw: Draw) -> ModelProto:
    """The large or the small network: ReLU, then h-swish; squeeze-and-excite in some stages."""
    relu, swish = "relu", "HardSwish"
    if draw.chance(0.6):
        stages = [
            Stage(16, 1, 1, 1, 3, relu), Stage(24, 2, 2, 3.5, 3, relu), Stage(40, 3, 2, 3, 5, relu, True),
            Stage(80, 4, 2, 2.7, 3, swish), Stage(112, 2, 1, 6, 3, swish, True), Stage(160, 3, 2, 6, 5, swish, True),
        ]  # fmt: skip
        before, after = 960, 1280
    else:
        stages = [
            Stage(16, 1, 2, 1, 3, relu, True), Stage(24, 2, 2, 4, 3, relu), Stage(40, 3, 2, 5, 5, swish, True),
            Stage(48, 2, 1, 3, 5, swish, True), Stage(96, 3, 2, 6, 5, swish, True),
        ]  # fmt: skip
        before, after = 576, 1024
    x, width = _stem(net, draw, 16, swish, wider=1.3)
    x = _body(net, draw, width, x, stages, "HardSigmoid")
    x = net.flatten(net.global_pool(net.conv(x, width(before), 1, "head", act=swish)))
    x = net.linear(x, width(after), "classifier.0", act=swish)
    return net.finish(net.linear(x, draw.pick(*CLASSES), "classifier.1"))


def mnasnet(net: Net, draw: Draw) -> ModelProto:
    """MnasNet-A1 (with squeeze-and-excite in some stages) or B1 (without)."""
    if draw.chance(0.5):
        table = ((16, 1, 1, 1, 3, 0), (24, 2, 2, 6, 3, 0), (40, 3, 2, 3, 5, 1), (80, 4, 2, 6, 3, 0),
                 (112, 2, 1, 6, 3, 1), (160, 3, 2, 6, 5, 1), (320, 1, 1, 6, 3, 0))  # fmt: skip
    else:
        table = ((16, 1, 1, 1, 3, 0), (24, 3, 2, 3, 3, 0), (40, 3, 2, 3, 5, 0), (80, 3, 2, 6, 5, 0),
                 (96, 2, 1, 6, 3, 0), (192, 4, 2, 6, 5, 0), (320, 1, 1, 6, 3, 0))  # fmt: skip
    stages = [Stage(c, n, s, t, k, "relu", bool(squeeze)) for c, n, s, t, k, squeeze in table]
    x, width = _stem(net, draw, 32, "relu")
    x = _body(net, draw, width, x, stages, "Sigmoid")
    return net.classifier(net.conv(x, width(1280), 1, "head", act="relu"), draw.pick(*CLASSES))


def efficientnet(net: Net, draw: Draw) -> ModelProto:
    """Swish and squeeze-and-excite everywhere; depth and width scale as from B0 to B4, resolution lower."""
    table = ((16, 1, 1, 1, 3), (24, 2, 2, 6, 3), (40, 2, 2, 6, 5), (80, 3, 2, 6, 3), (112, 3, 1, 6, 5),
             (192, 4, 2, 6, 5), (320, 1, 1, 6, 3))  # fmt: skip
    deeper = draw.pick((1.0, 1.1, 1.4, 1.8), (0.5, 0.25, 0.15, 0.1))
    stages = [Stage(c, round(n * deeper), s, t, k, "swish", True) for c, n, s, t, k in table]
    x, width = _stem(net, draw, 32, "swish")
    x = _body(net, draw, width, x, stages, "Sigmoid")
    return net.classifier(net.conv(x, width(1280), 1, "head", act="swish"), draw.pick(*CLASSES))


def _stem(net: Net, draw: Draw, channels: int, act: str, wider: float = 1.0) -> tuple[str, Widths]:
    width = Widths(draw, 0.45 * wider, 1.6)
    x = net.input((3, *[draw.multiple(round(112 * wider), 256, 16)] * 2))
    return net.conv(x, width(channels), draw.pick((3, 5), (0.85, 0.15)), "stem", 2, act=act), width


def _body(net: Net, draw: Draw, width: Widths, x: str, stages: list[Stage], gate: str) -> str:
    for number, stage in enumerate(stages):
        out = width(stage.channels)
        for i in range(max(1, stage.depth + draw.pick((-1, 0, 1), (0.3, 0.4, 0.3)))):
            at, stride = f"blocks.{number}.{i}", stage.stride if i == 0 else 1
            kernel = stage.kernel if draw.chance(0.4) else draw.pick((3, 5, 7))
            expansion = 1.0 if stage.expansion == 1 else stage.expansion * draw.uniform(0.5, 1.3)
            x = _block(net, x, out, kernel, stride, max(1.0, expansion), stage, gate, at)
    return x


def _block(
    net: Net, x: str, out: int, kernel: int, stride: int, expansion: float, stage: Stage, gate: str, at: str
) -> str:
    """Expand, depthwise, squeeze-and-excite, project; with a residual where shapes allow."""
    channels = net.shapes[x][0]
    inner = channels if expansion == 1 else 4 * round(channels * expansion / 4)
    y = x if inner == channels else net.conv(x, inner, 1, f"{at}.conv_pw", act=stage.act)
    y = net.conv(y, inner, kernel, f"{at}.conv_dw", stride, group=inner, act=stage.act)
    if stage.squeeze:
        act = "swish" if stage.act == "swish" else "relu"
        y = net.squeeze_excite(y, max(4, (channels if act == "swish" else inner) // 4), f"{at}.se", act, gate)
    y = net.conv(y, out, 1, f"{at}.conv_pwl")
    return net.add(y, x, at) if stride == 1 and channels == out else y
