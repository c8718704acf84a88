from __future__ import annotations

import numpy as np
import pytest

from costmodel.estimates import Prepared, Roofline, assemble, native_precision, physical_bound_ms
from costmodel.ir import DType, GraphBuilder, Node, TensorSpec
from costmodel.platforms import resolve
from tests.costmodel.test_features import small_net


def test_bound_is_compulsory_traffic_for_a_tiny_net() -> None:
    prepared, platform = Prepared.of(small_net()), resolve("t4", "fp32")
    # weights 602, input 192 and output 10 elements of 4 bytes at 320 GB/s
    assert physical_bound_ms(prepared, platform) == pytest.approx((602 + 192 + 10) * 4 / 320e6)


def test_bound_is_arithmetic_for_a_large_product() -> None:
    b = GraphBuilder()
    y = b.node("MatMul", [b.input((4096, 4096)), b.param((4096, 4096))], (4096, 4096))
    bound = physical_bound_ms(Prepared.of(b.build([y])), resolve("t4", "fp32"))
    assert bound == pytest.approx(2 * 4096**3 / 8.141e9, rel=1e-4)


def test_an_estimate_never_lies_under_its_bound() -> None:
    prepared, platform = Prepared.of(small_net()), resolve("t4", "fp32")
    n = len(prepared.graph)
    estimate = assemble(prepared, platform, np.full(n, 1e-9), np.zeros((n, 4), np.float32), (1e-9, 2e-9), "test")
    assert estimate.latency_ms == estimate.bound_ms == pytest.approx(sum(o.latency_ms for o in estimate.operators))
    assert estimate.interval_ms[0] <= estimate.latency_ms <= estimate.interval_ms[1]
    assert any("bound" in w for w in estimate.warnings)


def test_roofline_breakdown_sums_to_the_estimate() -> None:
    estimate = Roofline().estimate(small_net(), resolve("v100", "fp16"))
    assert sum(o.latency_ms for o in estimate.operators) == pytest.approx(estimate.latency_ms)
    assert sum(o.share for o in estimate.operators) == pytest.approx(1)
    assert estimate.provenance == "roofline"
    assert estimate.coverage == 1
    assert estimate.params == 602


def test_unknown_operators_lower_coverage_and_are_named() -> None:
    b = GraphBuilder()
    x = b.input((1, 8))
    y = b.add("custom.Mystery", [x], [TensorSpec((1, 8))], opaque=True)[0]
    estimate = Roofline().estimate(b.build([b.node("Relu", [y], (1, 8))]), resolve("t4"))
    assert estimate.coverage == 0.5
    assert any("custom.Mystery" in w for w in estimate.warnings)


def test_a_net_larger_than_the_device_is_warned_about() -> None:
    b = GraphBuilder()
    y = b.node("MatMul", [b.input((1, 100_000)), b.param((100_000, 100_000))], (1, 100_000))
    assert any("16 GB" in w for w in Roofline().estimate(b.build([y]), resolve("t4")).warnings)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(DType.FLOAT32, "fp32"), (DType.FLOAT16, "fp16"), (DType.BFLOAT16, "bf16"), (DType.INT8, "int8")],
)
def test_native_precision(dtype: DType, expected: str) -> None:
    b = GraphBuilder()
    x = b.input((4, 4), dtype)
    assert native_precision(b.build([b.node("MatMul", [x, b.param((4, 4), dtype)], (4, 4), dtype)])) == expected


def test_nodes_without_names_are_shown_by_operator() -> None:
    graph = small_net()
    nodes = tuple(Node(n.op, n.inputs, n.outputs, n.attrs) for n in graph.nodes)
    bare = type(graph)(nodes, graph.tensors, graph.inputs, graph.outputs, graph.params)
    assert [o.name for o in Roofline().estimate(bare, resolve("t4")).operators] == [n.op for n in nodes]
