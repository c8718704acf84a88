from __future__ import annotations

import pytest

from costmodel.corpora.blocks import NetBuilder, divisible


@pytest.mark.parametrize(("value", "expected"), [(19.2, 24), (28.8, 32), (134.4, 136), (1152, 1152), (3, 8), (16, 16)])
def test_widths_round_as_in_mobilenet(value: float, expected: int) -> None:
    assert divisible(value) == expected


def test_layers_track_shapes() -> None:
    net = NetBuilder()
    x = net.conv(net.input((2, 6, 9, 7)), 4, 3, 2, group=2)
    assert net.shape(x) == (2, 4, 5, 4)
    assert net.tensors[net.nodes[0].inputs[1]].shape == (4, 3, 3, 3)
    assert net.shape(net.average_pool(x, 3, 1, 1)) == (2, 4, 5, 4)
    assert net.shape(net.flatten(net.global_pool(x))) == (2, 4)
    assert net.shape(net.transpose(x, 0, 2, 3, 1)) == (2, 5, 4, 4)
    assert net.shape(net.mean(x, 3)) == (2, 4, 5, 1)


def test_repeating_a_block_gives_the_graph_of_a_loop() -> None:
    def block(net: NetBuilder, x: str) -> str:
        return net.plus(net.conv_bn(net.scalar("Mul", x), 4, 3, act="Relu"), x)

    def network(repeat: bool) -> NetBuilder:
        net = NetBuilder("net")
        x = net.conv(net.input((1, 3, 8, 8)), 4, 3)
        if repeat:
            x = net.repeat(x, lambda x: block(net, x), 4)
        else:
            for _ in range(4):
                x = block(net, x)
        net.unary("Relu", net.repeat(x, lambda x: x, 3))
        return net

    looped, repeated = network(False), network(True)
    assert repeated.nodes == looped.nodes
    assert list(repeated.tensors.items()) == list(looped.tensors.items())
    assert repeated.params == looped.params
