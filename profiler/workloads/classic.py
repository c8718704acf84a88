"""AlexNet (Krizhevsky 2014), VGG (Simonyan and Zisserman 2015), SqueezeNet (Iandola et al. 2016) and GoogLeNet
(Szegedy et al. 2015) with random depth, width, kernels and resolution."""

from __future__ import annotations

from onnx import ModelProto

from profiler.workloads.draw import Draw, Widths
from profiler.workloads.net import Net

CLASSES = (10, 100, 1000), (0.1, 0.2, 0.7)


def alexnet(net: Net, draw: Draw) -> ModelProto:
    """Five convolutions, three poolings and three fully connected layers."""
    width = Widths(draw)
    x = net.input((3, *[draw.multiple(96, 256, 16)] * 2))
    pools = {0, 1, draw.integer(3, 5)}
    for i, channels in enumerate((64, 192, 384, 256, 256, 256)[: draw.integer(4, 6)]):
        if i == 0:
            kernel = draw.pick((5, 7, 9, 11, 13))
            x = net.conv(x, width(channels), kernel, "features.0", stride=draw.pick((2, 3, 4)), act="relu")
        else:
            kernel = draw.pick((3, 5, 7), (0.3, 0.5, 0.2)) if i == 1 else draw.pick((1, 3, 5), (0.15, 0.6, 0.25))
            x = net.conv(x, width(channels), kernel, f"features.{i}", act="relu")
        if i in pools:
            x = net.pool(x, 3, 2, f"pool.{i}")
    x = net.flatten(x)
    hidden = Widths(draw, 0.2, 0.6)
    for i in range(draw.integer(1, 2)):
        x = net.linear(x, hidden(4096), f"classifier.{i}", act="relu")
    return net.finish(net.linear(x, draw.pick(*CLASSES), "classifier.last"))


def vgg(net: Net, draw: Draw) -> ModelProto:
    """Five stages of stacked convolutions with pooling between, then fully connected layers."""
    width = Widths(draw, 0.2, 0.9)
    x = net.input((3, *[draw.multiple(64, 160, 16)] * 2))
    kernels = draw.pick(((3,), (1, 3), (3, 5), (1, 3, 5)), (0.5, 0.2, 0.15, 0.15))
    for stage, channels in enumerate((64, 128, 256, 512, 512)):
        for i in range(draw.integer(1, 2) if stage < 2 else draw.integer(1, 4)):
            x = net.conv(x, width(channels), draw.pick(kernels), f"features.{stage}.{i}", act="relu")
        x = net.pool(x, 2, 2, f"features.{stage}.pool")
    x = net.flatten(x)
    hidden = Widths(draw, 0.2, 0.5)
    for i in range(draw.integer(0, 2)):
        x = net.linear(x, hidden(4096), f"classifier.{i}", act="relu")
    return net.finish(net.linear(x, draw.pick(*CLASSES), "classifier.last"))


def squeezenet(net: Net, draw: Draw) -> ModelProto:
    """Fire modules: a 1x1 squeeze, then 1x1 and larger kernels side by side."""
    width = Widths(draw, 0.5, 1.6)
    x = net.input((3, *[draw.multiple(96, 256, 16)] * 2))
    x = net.conv(x, width(64), draw.pick((3, 5, 7)), "features.stem", stride=2, act="relu")
    for stage, (squeeze, expand, depth) in enumerate(((16, 64, 2), (32, 128, 2), (48, 192, 2), (64, 256, 2))):
        if stage < 3:
            x = net.pool(x, 3, 2, f"features.{stage}.pool", ceil=True)
        for i in range(max(1, depth + draw.integer(-1, 2))):
            at = f"features.{stage}.{i}"
            x = net.conv(x, width(squeeze), draw.pick((1, 3), (0.9, 0.1)), f"{at}.squeeze", act="relu")
            small = net.conv(x, width(expand), 1, f"{at}.expand1x1", act="relu")
            kernel = draw.pick((3, 5, 7), (0.7, 0.2, 0.1))
            x = net.concat([small, net.conv(x, width(expand), kernel, f"{at}.expand3x3", act="relu")], at)
    x = net.conv(x, draw.pick(*CLASSES), 1, "classifier", act="relu")
    return net.finish(net.flatten(net.global_pool(x)))


INCEPTION = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (112, 144, 288, 32, 64, 64),
     (256, 160, 320, 32, 128, 128)),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)  # fmt: skip
"""Per stage and module: 1x1; 3x3 reduction and 3x3; 5x5 reduction and 5x5; projection after pooling."""


def googlenet(net: Net, draw: Draw) -> ModelProto:
    """Inception modules of four branches, without the auxiliary classifiers of training."""
    width = Widths(draw, 0.35, 1.3)
    x = net.input((3, *[draw.multiple(96, 224, 16)] * 2))
    x = net.conv(x, width(64), draw.pick((3, 5, 7)), "conv1", stride=2, act="relu")
    x = net.pool(x, 3, 2, "maxpool1", ceil=True)
    x = net.conv(x, width(64), 1, "conv2", act="relu")
    x = net.conv(x, width(192), draw.pick((3, 5), (0.75, 0.25)), "conv3", act="relu")
    for stage, modules in enumerate(INCEPTION):
        x = net.pool(x, 3, 2, f"maxpool{stage + 2}", ceil=True)
        for i in range(max(1, len(modules) + draw.integer(-1, 1))):
            x = _inception(net, draw, x, [width(c) for c in modules[min(i, len(modules) - 1)]], f"inception{stage}.{i}")
    return net.classifier(x, draw.pick(*CLASSES))


def _inception(net: Net, draw: Draw, x: str, widths: list[int], at: str) -> str:
    one, reduce3, conv3, reduce5, conv5, proj = widths
    kernels = draw.pick((3, 5), (0.8, 0.2)), draw.pick((3, 5, 7), (0.4, 0.45, 0.15))
    first = net.conv(x, one, 1, f"{at}.branch1", act="relu")
    second = net.conv(x, reduce3, 1, f"{at}.branch2.0", act="relu")
    second = net.conv(second, conv3, kernels[0], f"{at}.branch2.1", act="relu")
    third = net.conv(x, reduce5, 1, f"{at}.branch3.0", act="relu")
    third = net.conv(third, conv5, kernels[1], f"{at}.branch3.1", act="relu")
    last = net.pool(x, 3, 1, f"{at}.branch4", pad=1)
    return net.concat([first, second, third, net.conv(last, proj, 1, f"{at}.branch4.1", act="relu")], at)
