from __future__ import annotations

import numpy as np
import pytest

from costmodel.features import (
    COLUMNS,
    NODE_FEATURES,
    PLATFORM_FEATURES,
    PLATFORM_NUMBERS,
    extract,
    generic,
    hide_runtime,
    identities,
    numeric_channel,
    platform_channel,
    platform_rates,
    relation_edges,
    rescale,
    roofline_times,
    statistics,
)
from costmodel.ir import Graph, GraphBuilder
from costmodel.platforms import resolve


def small_net(batch: int = 1) -> Graph:
    """Conv 3×3 → Relu → residual Add → pool → Gemm; by hand: Conv 2·8·8·16·27 FLOPs per image and 432 weights."""
    b = GraphBuilder("small")
    x = b.input((batch, 3, 8, 8))
    conv = {"kernel_shape": (3, 3), "strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1}
    y = b.node("Conv", [x, b.param((16, 3, 3, 3))], (batch, 16, 8, 8), **conv)
    z = b.node("Relu", [y], (batch, 16, 8, 8))
    z = b.node("Add", [z, y], (batch, 16, 8, 8))
    z = b.node("GlobalAveragePool", [z], (batch, 16, 1, 1))
    z = b.node("Reshape", [z], (batch, 16))
    z = b.node("Gemm", [z, b.param((10, 16)), b.param((10,))], (batch, 10), transA=0, transB=1)
    return b.build([z])


def column(table: np.ndarray, name: str) -> np.ndarray:
    return table[:, COLUMNS.index(name)]


def test_columns_by_hand() -> None:
    table = extract(small_net()).columns
    assert column(table, "flops")[0] == 2 * 8 * 8 * 16 * 27
    assert column(table, "weights").tolist() == [432, 0, 0, 0, 0, 170]
    assert column(table, "launch").tolist() == [1, 1, 1, 1, 0, 1]
    assert column(table, "read")[2] == 2 * 16 * 8 * 8
    assert column(table, "channels_in")[0] == 3
    assert column(table, "channels_out")[0] == 16
    assert column(table, "matrix").tolist() == [1, 0, 0, 0, 0, 1]


def test_fused_kernels_start_once_per_group() -> None:
    table = extract(small_net()).columns
    assert column(table, "fused_launch").sum() < column(table, "launch").sum()
    assert column(table, "fused_launch")[0] == 1
    assert (column(table, "fused_read") <= column(table, "read")).all()


@pytest.mark.parametrize("batch", [3, 8])
def test_rescaled_features_equal_those_of_the_larger_batch(batch: int) -> None:
    one, many = extract(small_net()), extract(small_net(batch))
    np.testing.assert_allclose(rescale(one.columns, batch), many.columns)
    assert one.sentences == many.sentences


def test_channels_have_their_declared_widths_and_are_finite() -> None:
    table = extract(small_net()).columns
    assert numeric_channel(table).shape == (6, NODE_FEATURES)
    assert statistics(table, 1).shape == (4,)
    for target, precision, runtime in [
        ("t4", "int8", "tensorrt-8.6"),
        ("raspi4", "fp32", None),
        ("rtx3090", "fp16", "pytorch-eager-2.4.0+nhwc"),
    ]:
        channel = platform_channel(resolve(target, precision, runtime))
        assert channel.shape == (PLATFORM_FEATURES,)
        assert np.isfinite(channel).all()


def test_runtime_version_and_layout_are_told_apart() -> None:
    channels = [
        platform_channel(resolve("rtx3090", "fp16", r))
        for r in ("pytorch-eager", "pytorch-eager-2.4.0", "pytorch-eager-2.4.0+nhwc", "pytorch-compile-2.4.0")
    ]
    for i, a in enumerate(channels):
        for b in channels[i + 1 :]:
            assert not np.array_equal(a, b)


def test_roofline_times_by_hand() -> None:
    platform = resolve("t4", "fp32", "pytorch-eager")
    table = extract(small_net()).columns
    compute, memory, launch, total = np.exp(roofline_times(table, platform_rates(platform))[0])
    assert compute == pytest.approx(2 * 8 * 8 * 16 * 27 / 8.141e9, rel=1e-4)
    assert memory == pytest.approx((3 * 64 + 16 * 64 + 432) * 4 / 320e6, rel=1e-4)
    assert launch == pytest.approx(platform.launch_overhead_us / 1e3, rel=1e-4)
    assert total == pytest.approx(max(compute, memory) + launch, rel=1e-4)


def test_roofline_falls_with_precision_and_rises_with_batch() -> None:
    table = extract(small_net(64)).columns

    def total(columns: np.ndarray, precision: str) -> float:
        return float(np.exp(roofline_times(columns, platform_rates(resolve("t4", precision)))[:, 3]).sum())

    assert total(table, "fp32") > total(table, "fp16") > total(table, "int8")
    assert total(rescale(table, 2), "fp16") > total(table, "fp16")


def test_a_graph_without_edges_has_no_relations() -> None:
    assert [part.tolist() for part in relation_edges([], 3)] == [[], []]


def test_what_hides_a_platform_hides_its_identity() -> None:
    mine, other = identities(["t4|fp32|tensorrt", "p4|int8|tensorrt"], ["a100|fp16|tvm", "t4|fp32|tensorrt"])
    assert (mine.tolist(), other.tolist()) == ([0, 1], [0, 0])
    channel = np.concatenate([platform_channel(resolve("t4", "fp32", "tensorrt")), mine])[None]
    for hide in (generic, hide_runtime):
        assert not hide(np.ones((1, 3), np.float32), channel)[1][:, PLATFORM_FEATURES:].any()


def test_a_graph_without_nodes_has_empty_features() -> None:
    b = GraphBuilder()
    features = extract(b.build([b.input((1, 2))]))
    assert len(features) == 0
    assert features.columns.shape == (0, len(COLUMNS))


def test_a_loop_starts_its_kernels_once_per_trip() -> None:
    b = GraphBuilder()
    y = b.node("Relu", [b.input((2, 3))], (2, 3), trip_count=5)
    table = extract(b.build([y])).columns
    assert column(table, "launch").tolist() == [5]
    assert column(table, "fused_launch").tolist() == [5]
    assert column(table, "fused_read").tolist() == [30]


def test_a_hidden_runtime_keeps_its_overhead_and_whether_it_fuses() -> None:
    eager, compiled = (platform_channel(resolve("t4", "fp16", r)) for r in ("pytorch-eager-2.1", "pytorch-compile-2.1"))
    other = platform_channel(resolve("t4", "fp16", "tvm"))
    text, hidden = hide_runtime(np.ones((3, 4), np.float32), np.stack([eager, compiled, other]))
    assert not text.any()
    fused = PLATFORM_NUMBERS
    assert hidden[:, fused].tolist() == [0, 1, 1]
    assert (hidden[1, PLATFORM_NUMBERS:] == hidden[2, PLATFORM_NUMBERS:]).all()
    assert (hidden[:, :PLATFORM_NUMBERS] == np.stack([eager, compiled, other])[:, :PLATFORM_NUMBERS]).all()
