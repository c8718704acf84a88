"""What each precision costs, and which layers are sensitive to it."""

from __future__ import annotations

import pytest

from costmodel.errors import InputError, PlatformError
from costmodel.estimates import Roofline
from costmodel.ir import DType, Graph, GraphBuilder
from costmodel.precision import best_precision, sensitive_share


def mobile_block() -> Graph:
    """Stem, expansion, hard-swish, depthwise, projection, classifier: five products."""
    b = GraphBuilder("block")
    x = b.input((1, 3, 16, 16))

    def conv(data: str, channels: int, kernel: int, group: int = 1) -> str:
        size, pad = b.shape(data), kernel // 2
        weight = b.param((channels, size[1] // group, kernel, kernel))
        return b.node(
            "Conv", [data, weight], (1, channels, *size[2:]), kernel_shape=(kernel, kernel), strides=(1, 1),
            pads=(pad,) * 4, dilations=(1, 1), group=group,
        )  # fmt: skip

    x = b.node("Relu", [conv(x, 16, 3)], (1, 16, 16, 16))
    x = b.node("HardSwish", [conv(x, 32, 1)], (1, 32, 16, 16))
    x = b.node("Relu", [conv(x, 32, 3, 32)], (1, 32, 16, 16))
    x = conv(x, 16, 1)
    x = b.node("GlobalAveragePool", [x], (1, 16, 1, 1))
    x = b.node("Flatten", [x], (1, 16), axis=1)
    return b.build([b.node("Gemm", [x, b.param((10, 16))], (1, 10), transA=0, transB=1)])


def attention() -> Graph:
    b = GraphBuilder("attention")
    x = b.input((1, 8, 16))
    x = b.node("MatMul", [x, b.param((16, 16))], (1, 8, 16))
    n = b.node("LayerNormalization", [x, b.param((16,))], (1, 8, 16), axis=2)
    q, k = (b.node("MatMul", [n, b.param((16, 16))], (1, 8, 16)) for _ in range(2))
    t = b.node("Transpose", [k], (1, 16, 8), perm=(0, 2, 1))
    s = b.node("MatMul", [q, t], (1, 8, 8))
    e = b.node("Exp", [s], (1, 8, 8))
    d = b.node("ReduceSum", [e], (1, 8, 1), axes=(2,), keepdims=1)
    return b.build([b.node("MatMul", [b.node("Div", [e, d], (1, 8, 8)), b.param((8, 4))], (1, 8, 4))])


def test_int8_counts_the_classes_of_a_mobile_block() -> None:
    share, classes = sensitive_share(mobile_block(), "int8")
    assert dict(classes) == {"first or last product": 2, "depthwise": 1, "after gate": 1}
    assert share == pytest.approx(3 / 5)  # the depthwise convolution is the one behind the gate


def test_classes_of_attention_differ_by_precision() -> None:
    graph = attention()
    assert dict(sensitive_share(graph, "int8")[1]) == {
        "first or last product": 2, "after layer norm": 2, "activation product": 1,
    }  # fmt: skip
    assert sensitive_share(graph, "int8")[0] == 1.0
    assert sensitive_share(graph, "fp16") == (pytest.approx(1 / 6), (("power", 1),))
    assert sensitive_share(graph, "bf16") == (pytest.approx(1 / 6), (("long sum", 1),))
    assert sensitive_share(graph, "fp32") == (0.0, ())


def test_the_limit_decides() -> None:
    graph, model = mobile_block(), Roofline()
    loose = best_precision(graph, "t4", 1.0, cost_model=model)
    tight = best_precision(graph, "t4", 0.1, cost_model=model)
    latencies = [o.estimate.latency_ms for o in loose.options]
    assert latencies == sorted(latencies)
    assert loose.best is loose.options[0]
    assert loose.best.precision.value == "int8"
    assert tight.best.precision.value == "fp16"
    assert {o.precision.value for o in loose.options} == {"fp32", "fp16", "int8"}


def test_the_networks_own_precision_is_no_risk() -> None:
    b = GraphBuilder("q")
    x = b.input((1, 3, 8, 8), DType.INT8)
    y = b.node(
        "Conv", [x, b.param((4, 3, 1, 1), DType.INT8)], (1, 4, 8, 8), DType.INT8, kernel_shape=(1, 1), strides=(1, 1),
        pads=(0,) * 4, dilations=(1, 1), group=1,
    )  # fmt: skip
    choice = best_precision(b.build([y]), "t4", 0.0, cost_model=Roofline())
    assert {o.sensitive_share for o in choice.options} == {0.0}


def test_impossible_limits_are_told() -> None:
    with pytest.raises(PlatformError, match=r"allow 60%"):
        best_precision(mobile_block(), "t4", 0.1, precisions=["int8"], cost_model=Roofline())
    with pytest.raises(InputError, match="is not a share"):
        best_precision(mobile_block(), "t4", 2.0, cost_model=Roofline())
