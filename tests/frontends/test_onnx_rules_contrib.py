"""Contrib operators: shapes as ONNX Runtime computes them, arithmetic as plain operators."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import NodeProto, TensorProto

from frontends import load
from tests.frontends.onnx_models import floats, info, model, node, run


def ms(op: str, inputs: list[str], outputs: list[str], **attrs: object) -> NodeProto:
    return node(op, inputs, outputs, domain="com.microsoft", **attrs)


X = floats(2, 5, 12)
W, B, G = floats(12, 36), floats(36), floats(12)
CASES: dict[str, tuple[NodeProto, dict[str, np.ndarray], dict[str, np.ndarray], list[str]]] = {
    "gelu": (ms("Gelu", ["x"], ["y"]), {"x": X}, {}, ["Gelu"]),
    "bias_gelu": (ms("BiasGelu", ["x", "b"], ["y"]), {"x": X}, {"b": G}, ["Add", "Gelu"]),
    "fast_gelu": (ms("FastGelu", ["x", "b"], ["y"]), {"x": X}, {"b": G}, ["Add", "Gelu"]),
    "quick_gelu": (ms("QuickGelu", ["x"], ["y"]), {"x": X}, {}, ["Swish"]),
    "fused_matmul": (
        ms("FusedMatMul", ["x", "w"], ["y"], transB=1, alpha=0.5), {"x": X}, {"w": floats(7, 12)}, ["MatMul"],
    ),
    "fused_matmul_left": (
        ms("FusedMatMul", ["x", "z"], ["y"], transA=1), {"x": X, "z": floats(2, 5, 3)}, {}, ["Transpose", "MatMul"],
    ),
    "fused_gemm": (
        ms("FusedGemm", ["x", "w", "b"], ["y"], transB=1, activation="Relu"),
        {"x": floats(3, 12)}, {"w": floats(7, 12), "b": floats(7)}, ["Gemm", "Relu"],
    ),
    "fused_conv": (
        ms("FusedConv", ["x", "w"], ["y"], activation="Relu", pads=[1, 1, 1, 1]),
        {"x": floats(1, 3, 6, 6)}, {"w": floats(4, 3, 3, 3)}, ["Conv", "Relu"],
    ),
    "skip_layer_norm": (
        ms("SkipLayerNormalization", ["x", "k", "g", "h", "b"], ["y", "", "", "s"]),
        {"x": X, "k": X}, {"g": G, "h": G, "b": G}, ["Add", "Add", "LayerNormalization"],
    ),
    "skip_rms_norm": (
        ms("SkipSimplifiedLayerNormalization", ["x", "k", "g"], ["y"]),
        {"x": X, "k": X}, {"g": G}, ["Add", "RMSNormalization"],
    ),
    "attention": (
        ms("Attention", ["x", "w", "b"], ["y"], num_heads=3),
        {"x": X}, {"w": W, "b": B}, ["MatMul", "Add", "Split", "Attention"],
    ),
    "attention_present": (
        ms("Attention", ["x", "w", "b", "", "p"], ["y", "q"], num_heads=3, unidirectional=1),
        {"x": X, "p": floats(2, 2, 3, 4, 4)}, {"w": W, "b": B},
        ["MatMul", "Add", "Split", "Gather", "Gather", "Attention", "Reshape", "Reshape", "Concat"],
    ),
    "multi_head": (
        ms("MultiHeadAttention", ["x", "k", "v"], ["y"], num_heads=3),
        {"x": X, "k": floats(2, 7, 12), "v": floats(2, 7, 12)}, {}, ["Attention"],
    ),
    "multi_head_present": (
        ms("MultiHeadAttention", ["x", "k", "v", "", "", "", "pk", "pv"], ["y", "a", "b"], num_heads=3),
        {"x": X, "k": X, "v": X, "pk": floats(2, 3, 6, 4), "pv": floats(2, 3, 6, 4)}, {}, ["Attention"],
    ),
    "matmul_nbits": (
        ms("MatMulNBits", ["x", "w", "s"], ["y"], K=32, N=8, bits=4, block_size=32),
        {"x": floats(2, 5, 32)}, {"w": np.ones((8, 1, 16), np.uint8), "s": floats(8)}, ["MatMul"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_expansion_and_shape(name: str) -> None:
    call, feeds, weights, expected = CASES[name]
    outputs = [o for o in call.output if o]
    proto = model([call], {k: v.shape for k, v in feeds.items()}, outputs, weights, com_microsoft=1)
    graph = load(proto, strict=True)
    assert [n.op for n in graph.nodes] == expected
    assert [graph.tensors[t].shape for t in graph.outputs] == [r.shape for r in run(proto, feeds)]


def test_four_bit_weights_are_four_bit_parameters() -> None:
    call, feeds, weights, _ = CASES["matmul_nbits"]
    graph = load(model([call], {"x": feeds["x"].shape}, ["y"], weights, com_microsoft=1))
    assert str(graph.tensors[graph.nodes[0].inputs[1]]) == "uint4[32,8]"


def test_embedding_is_three_look_ups_and_a_normalisation() -> None:
    tables = {"words": floats(50, 8), "places": floats(16, 8), "kinds": floats(2, 8), "g": floats(8), "b": floats(8)}
    call = ms("EmbedLayerNormalization", ["ids", "seg", "words", "places", "kinds", "g", "b"], ["y", "mask"])
    inputs = [info("ids", ["N", 6], TensorProto.INT32), info("seg", ["N", 6], TensorProto.INT32)]
    proto = model([call], inputs, ["y"], tables, com_microsoft=1)
    graph = load(proto, batch=2, strict=True)
    assert [n.op for n in graph.nodes] == ["Gather", "Add", "Gather", "Add", "LayerNormalization"]
    ids = np.zeros((2, 6), np.int32)
    assert (
        graph.tensors["y" if "y" in graph.tensors else graph.outputs[0]].shape
        == run(proto, {"ids": ids, "seg": ids})[0].shape
    )


def test_quantised_contrib_operators_become_plain_ones() -> None:
    pair = ["s", "z"]
    nodes = [
        ms("QLinearAdd", ["a", *pair, "b", *pair, *pair], ["c"]),
        ms("QLinearConcat", [*pair, "c", *pair, "b", *pair], ["d"], axis=1),
        ms("QLinearLeakyRelu", ["d", *pair, *pair], ["e"], alpha=0.1),
        ms("QLinearGlobalAveragePool", ["e", *pair, *pair], ["y"]),
    ]
    shape = [1, 3, 4, 4]
    inputs = [info("a", shape, TensorProto.UINT8), info("b", shape, TensorProto.UINT8)]
    weights = {"s": np.float32(0.1), "z": np.uint8(0)}
    graph = load(model(nodes, inputs, ["y"], weights, com_microsoft=1), strict=True)
    assert [n.op for n in graph.nodes] == ["Add", "Concat", "LeakyRelu", "GlobalAveragePool"]
    assert str(graph.tensors[graph.outputs[0]]) == "uint8[1,6,1,1]"
