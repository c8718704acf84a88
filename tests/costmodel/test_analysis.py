from __future__ import annotations

import time

import numpy as np
import pytest

from costmodel.analysis import Analysis, analyze, is_view, peak_activation_bytes, peak_memory_bytes
from costmodel.corpora.blocks import NetBuilder
from costmodel.errors import InputError
from costmodel.ir import DType, Graph, TensorSpec


def resnet50() -> Graph:
    """He et al. 2016, table 1, with the stride on the 3×3 convolution as torchvision has it."""
    net = NetBuilder("resnet50")
    x = net.conv_bn(net.input((1, 3, 224, 224)), 64, 7, 2, act="Relu")
    x = net.node("MaxPool", [x], (1, 64, 56, 56), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    for width, blocks, first in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(blocks):
            stride = 1 if index else first
            y = net.conv_bn(net.conv_bn(x, width, 1, act="Relu"), width, 3, stride, act="Relu")
            y = net.conv_bn(y, 4 * width, 1)
            x = net.unary("Relu", net.plus(y, x if index else net.conv_bn(x, 4 * width, 1, stride)))
    return net.build([net.linear(net.flatten(net.global_pool(x)), 1000)])


def test_resnet50_has_its_published_cost() -> None:
    cost = analyze(resnet50())
    assert cost.params == 25_557_032
    assert cost.macs == pytest.approx(4.089e9, rel=1e-3)
    assert 2 * cost.macs < cost.flops < 2.01 * cost.macs
    assert cost.coverage == 1
    # BatchNormalization stores two vectors that are not learnable.
    assert cost.param_bytes == 4 * (25_557_032 + 2 * 26_560)


def test_view_nodes_cost_nothing() -> None:
    net = NetBuilder()
    x = net.input((1, 4, 1, 6))
    y = net.reshape(x, (4, 6))
    z = net.transpose(x, 2, 0, 1, 3)
    w = net.transpose(x, 0, 3, 2, 1)
    graph = net.build([y, z, w])
    assert [c.kind for c in analyze(graph).nodes] == ["view", "view", "vector"]
    assert [is_view(node, graph) for node in graph.nodes] == [True, True, False]
    first, _, moved = analyze(graph).nodes
    assert (first.flops, first.read_elems, first.write_elems, first.index_bytes) == (0, 0, 0, 0)
    assert (moved.read_elems, moved.write_elems, moved.flops) == (24, 24, 0)


def test_gather_reads_only_the_rows_it_gives_out() -> None:
    net = NetBuilder()
    ids = net.input((2, 5), DType.INT64)
    y = net.node("Gather", [net.param((1000, 8)), ids], (2, 5, 8), axis=0)
    cost = analyze(net.build([y])).nodes[0]
    assert cost.params == 8000
    assert cost.param_bytes == 32000
    assert cost.param_read_elems == 80
    assert cost.read_elems == 0
    assert cost.write_elems == 80
    assert cost.index_bytes == 80


def test_slice_reads_what_it_gives_out() -> None:
    net = NetBuilder()
    y = net.node("Slice", [net.input((100, 8))], (10, 8), starts=(0,), ends=(10,), axes=(0,), steps=(1,))
    cost = analyze(net.build([y]))
    assert (cost.nodes[0].read_elems, cost.read_bytes, cost.write_bytes) == (80, 320, 320)


def test_bytes_split_by_whether_they_follow_the_precision() -> None:
    net = NetBuilder()
    x = net.input((4, 8))
    mask = net.node("Greater", [x, net.param(())], (4, 8), DType.BOOL)
    y = net.node("Where", [mask, x, net.param(())], (4, 8))
    greater, where = analyze(net.build([y])).nodes
    assert (greater.read_elems, greater.write_elems, greater.index_bytes) == (32, 0, 32)
    assert (where.read_elems, where.write_elems, where.index_bytes) == (32, 32, 32)
    assert greater.params == 0
    assert greater.param_bytes == 4


def test_quantised_products_count_their_int32_bias() -> None:
    net = NetBuilder()
    x = net.input((1, 8), DType.INT8)
    w, b = net.param((4, 8), DType.INT8), net.param((4,), DType.INT32)
    y = net.node("Gemm", [x, w, b], (1, 4), DType.INT8, transB=1)
    cost = analyze(net.build([y])).nodes[0]
    assert cost.params == 36
    assert cost.param_bytes == 32 + 16
    assert (cost.read_elems, cost.write_elems) == (8, 4)
    assert cost.kind == "matmul"


def test_shared_weights_count_per_use() -> None:
    net = NetBuilder()
    x, w = net.input((1, 8)), net.param((8, 8))
    for _ in range(3):
        x = net.node("MatMul", [x, w], (1, 8))
    assert analyze(net.build([x])).params == 192


def test_opaque_nodes_have_bytes_and_lower_coverage() -> None:
    net = NetBuilder()
    x = net.input((4, 4))
    (y,) = net.add("my.domain.Op", [x], [TensorSpec((4, 4))], opaque=True)
    z = net.unary("Relu", y)
    cost = analyze(net.build([z]))
    assert cost.coverage == 0.5
    assert cost.nodes[0].flops == 0
    assert (cost.nodes[0].read_elems, cost.nodes[0].write_elems) == (16, 16)


def test_a_loop_repeats_arithmetic_and_activations_but_not_weights() -> None:
    def once(**attrs: int) -> Analysis:
        net = NetBuilder()
        y = net.node("MatMul", [net.input((2, 8)), net.param((8, 4))], (2, 4), **attrs)
        mask = net.node("Greater", [y, net.param(())], (2, 4), DType.BOOL, **attrs)
        return analyze(net.build([mask]))

    plain, looped, open_ended = once(), once(trip_count=10), once(trip_count=0)
    assert (looped.flops, looped.macs) == (10 * plain.flops, 10 * plain.macs)
    for before, after in zip(plain.nodes, looped.nodes, strict=True):
        assert after.read_elems == 10 * before.read_elems
        assert after.write_elems == 10 * before.write_elems
        assert after.index_bytes == 10 * before.index_bytes
        assert after[2:5] == before[2:5]  # params, param_bytes, param_read_elems
    assert looped.write_bytes == 10 * plain.write_bytes
    assert looped.read_bytes == 10 * (16 + 8) * 4 + (32 + 1) * 4
    assert looped.coverage == plain.coverage == 1
    assert open_ended.coverage == 0
    assert open_ended.nodes == plain.nodes


def test_ill_fitting_inputs_are_an_input_error_of_one_line() -> None:
    net = NetBuilder("bad")
    y = net.node("Conv", [net.input((1, 3, 8, 8))], (1, 4, 6, 6))
    with pytest.raises(InputError, match=r"bad.*Conv.*ONNX definition") as raised:
        analyze(net.build([y]))
    assert "\n" not in str(raised.value)


def test_peak_memory_of_a_chain_is_its_largest_neighbours() -> None:
    net = NetBuilder()
    x = net.input((100,))
    for _ in range(5):
        x = net.unary("Relu", x)
    graph = net.build([x])
    assert peak_activation_bytes(graph) == 800
    assert peak_activation_bytes(graph, width=2) == 400
    assert analyze(graph).peak_memory_bytes == 800


def test_peak_memory_keeps_a_residual_alive() -> None:
    net = NetBuilder()
    x = net.input((100,))
    y = net.unary("Relu", net.unary("Relu", net.unary("Relu", x)))
    assert peak_activation_bytes(net.build([net.plus(x, y)])) == 1200


def test_views_share_storage_and_keep_it_alive() -> None:
    net = NetBuilder()
    x = net.unary("Relu", net.input((10, 10)))
    v = net.reshape(x, (100,))
    y = net.unary("Relu", v)
    graph = net.build([net.plus(y, v)])
    assert peak_activation_bytes(graph) == 1200


def test_peak_memory_at_another_width_scales_weights_too() -> None:
    net = NetBuilder()
    y = net.linear(net.input((1, 8)), 4, bias=False)
    graph = net.build([y])
    assert peak_memory_bytes(graph, 4) == 4 * (32 + 12) == analyze(graph).peak_memory_bytes
    assert peak_memory_bytes(graph, 1) == 44


def test_columns_are_arrays_over_nodes() -> None:
    cost = analyze(resnet50())
    assert cost.columns["flops"].shape == (len(cost.nodes),)
    assert np.sum(cost.columns["params"]) == cost.params
    assert "kind" not in cost.columns


def test_an_empty_graph_costs_nothing() -> None:
    net = NetBuilder()
    cost = analyze(net.build([net.input((4,))]))
    assert (cost.flops, cost.params, cost.coverage) == (0, 0, 1)
    assert cost.columns["flops"].shape == (0,)


def test_a_thousand_nodes_take_milliseconds() -> None:
    net = NetBuilder()
    x = net.input((1, 64, 8, 8))
    for _ in range(333):
        x = net.conv_bn(x, 64, 1, act="Relu")
    graph = net.build([x])
    best = min(_seconds(graph) for _ in range(5))
    assert best < 0.1, f"{best * 1e3:.1f} ms for {len(graph)} nodes"


def _seconds(graph: Graph) -> float:
    start = time.perf_counter()
    analyze(graph)
    return time.perf_counter() - start
