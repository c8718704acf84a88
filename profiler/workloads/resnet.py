"""ResNet (He et al. 2016) with random depth, width, kernels, block and resolution."""

from __future__ import annotations

from onnx import ModelProto

from profiler.workloads.classic import CLASSES
from profiler.workloads.draw import Draw, Widths
from profiler.workloads.net import Net


def resnet(net: Net, draw: Draw) -> ModelProto:
    """Four stages of basic or bottleneck blocks; inner widths vary per block, outer ones per stage."""
    width = Widths(draw, 0.3, 1.2)
    bottleneck = draw.chance(0.4)
    kernels = draw.pick(((3,), (1, 3), (3, 5), (1, 3, 5, 7)), (0.55, 0.15, 0.2, 0.1))
    x = net.input((3, *[draw.multiple(96, 224, 16)] * 2))
    x = net.conv(x, width(64), draw.pick((3, 5, 7)), "conv1", stride=2, act="relu")
    x = net.pool(x, 3, 2, "maxpool", pad=1)
    for stage, (channels, most) in enumerate(((64, 3), (128, 4), (256, 5), (512, 3)), 1):
        out = width(channels * 4 if bottleneck else channels)
        for i in range(draw.integer(1, most)):
            at, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            inner, kernel = width(channels), draw.pick(kernels)
            if bottleneck:
                y = net.conv(x, inner, 1, f"{at}.conv1", act="relu")
                y = net.conv(y, inner, kernel, f"{at}.conv2", stride, act="relu")
                y = net.conv(y, out, 1, f"{at}.conv3")
            else:
                y = net.conv(x, inner, kernel, f"{at}.conv1", stride, act="relu")
                y = net.conv(y, out, draw.pick(kernels), f"{at}.conv2")
            if stride > 1 or net.shapes[x][0] != out:
                x = net.conv(x, out, 1, f"{at}.downsample", stride)
            x = net.add(y, x, at, act="relu")
    return net.classifier(x, draw.pick(*CLASSES))
