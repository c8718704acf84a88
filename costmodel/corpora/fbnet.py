"""FBNet-space networks on CIFAR-100 as HW-NAS-Bench measures them (Li et al. 2021, arXiv:2103.10584).

22 layers in seven stages of the FBNet paper (Wu et al. 2019, arXiv:1812.03443, table 1) after a 3×3 stem to 16
channels; on CIFAR the stem keeps the resolution, the stages have strides 1 1 2 2 1 2 1 and the head 1,504 channels. A
layer is `kK_eE[_g2]`, an inverted residual with kernel K, expansion E and grouped 1×1 convolutions, or `skip`, which is
a 1×1 convolution where the shape changes.
"""

from __future__ import annotations

from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import Graph

LAYERS = ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
CHANNELS = (16, 24, 32, 64, 112, 184, 352)
DEPTHS = (1, 4, 4, 4, 4, 4, 1)
CIFAR_STRIDES = (1, 1, 2, 2, 1, 2, 1)
IMAGENET_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def parse(arch: str) -> tuple[str, ...]:
    """The 22 layers of an arch string. Raises InputError for anything else."""
    layers = tuple(arch.removeprefix("fbnet/").split(","))
    wrong = [layer for layer in layers if layer not in LAYERS]
    if wrong or len(layers) != sum(DEPTHS):
        raise InputError(
            f"'{arch}' is not an FBNet architecture; give {sum(DEPTHS)} layers joined by commas, each one of"
            f" {', '.join(LAYERS)}"
        )
    return layers


def build(arch: str, batch: int = 1, classes: int = 100, image_net: bool = False) -> Graph:
    """The network of an arch string on (batch, 3, 32, 32), or on 224 pixels with the strides and head for ImageNet.

    Raises InputError.
    """
    layers = iter(parse(arch))
    size, strides, head = (224, IMAGENET_STRIDES, 1984) if image_net else (32, CIFAR_STRIDES, 1504)
    net = NetBuilder(f"fbnet/{arch.removeprefix('fbnet/')}")
    x = net.input((batch, 3, size, size), name="input")
    x = net.conv_bn(x, 16, 3, 2 if image_net else 1, act="Relu")
    for channels, depth, stride in zip(CHANNELS, DEPTHS, strides, strict=True):
        for index in range(depth):
            x = _layer(net, x, next(layers), channels, 1 if index else stride)
    x = net.conv_bn(x, head, 1, act="Relu")
    return net.build([net.linear(net.flatten(net.global_pool(x)), classes)])


def _layer(net: NetBuilder, x: str, layer: str, channels: int, stride: int) -> str:
    width = net.shape(x)[1]
    same = width == channels and stride == 1
    if layer == "skip":
        return x if same else net.conv_bn(x, channels, 1, stride, act="Relu")
    kernel, expansion = int(layer[1]), int(layer[4])
    group = 2 if layer.endswith("_g2") else 1
    inner = width * expansion
    y = net.conv_bn(x, inner, 1, group=group, act="Relu")
    if group > 1:
        y = _shuffle(net, y, group)
    y = net.conv_bn(y, inner, kernel, stride, group=inner, act="Relu")
    y = net.conv_bn(y, channels, 1, group=group)
    return net.plus(y, x) if same else y


def _shuffle(net: NetBuilder, x: str, group: int) -> str:
    batch, channels, height, length = shape = net.shape(x)
    y = net.reshape(x, (batch, group, channels // group, height, length))
    return net.reshape(net.transpose(y, 0, 2, 1, 3, 4), shape)
