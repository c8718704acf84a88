"""Relax operators become ONNX ones with the same attributes, before and after legalisation."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm", reason="apache-tvm is not installed; pip install 'ledg-cost[tvm]'")

from costmodel.analysis import analyze
from tests.frontends.relax_programs import legalized, lower, ops, program, relax, tensor

O = relax.op  # noqa: E741
X = tensor(1, 8, 6, 6)
V = tensor(8)

CASES = {
    "relu": (O.nn.relu, (X,), ["Relu"], {}),
    "gelu": (O.nn.gelu, (X,), ["Gelu"], {"approximate": "none"}),
    "gelu_tanh": (O.nn.gelu_tanh, (X,), ["Gelu"], {"approximate": "tanh"}),
    "silu": (O.nn.silu, (X,), ["Swish"], {}),
    "selu": (O.nn.selu, (X,), ["Selu"], {}),
    "leaky": (lambda x: O.nn.leakyrelu(x, 0.1), (X,), ["LeakyRelu"], {"alpha": 0.1}),
    "prelu": (lambda x, a: O.nn.prelu(x, a, 1), (X, V), ["PRelu"], {}),
    "softmax": (lambda x: O.nn.softmax(x, 1), (X,), ["Softmax"], {"axis": 1}),
    "log_softmax": (lambda x: O.nn.log_softmax(x, -1), (X,), ["LogSoftmax"], {"axis": 3}),
    "layer_norm": (
        lambda x, g, b: O.nn.layer_norm(x, g, b, [-1]), (X, tensor(6), tensor(6)), ["LayerNormalization"],
        {"axis": 3},
    ),
    "rms_norm": (lambda x, g: O.nn.rms_norm(x, g, [3]), (X, tensor(6)), ["RMSNormalization"], {"axis": 3}),
    "group_norm": (
        lambda x, g, b: O.nn.group_norm(x, g, b, 4, 1, [2, 3]), (X, V, V), ["GroupNormalization"],
        {"num_groups": 4},
    ),
    "instance_norm": (lambda x, g, b: O.nn.instance_norm(x, g, b, 1, [2, 3]), (X, V, V), ["InstanceNormalization"], {}),
    "conv": (
        lambda x, w: O.nn.conv2d(x, w, strides=2, padding=1), (X, tensor(4, 8, 3, 3)), ["Conv"],
        {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1},
    ),
    "conv_dilated": (
        lambda x, w: O.nn.conv2d(x, w, padding=(0, 2, 1, 3), dilation=2), (X, tensor(4, 8, 2, 2)), ["Conv"],
        {"pads": (0, 2, 1, 3), "dilations": (2, 2)},
    ),
    "conv_groups": (lambda x, w: O.nn.conv2d(x, w, groups=2), (X, tensor(16, 4, 3, 3)), ["Conv"], {"group": 2}),
    "conv_depthwise": (lambda x, w: O.nn.conv2d(x, w, groups=8), (X, tensor(8, 1, 3, 3)), ["Conv"], {"group": 8}),
    "conv1d": (
        lambda x, w: O.nn.conv1d(x, w, padding=1), (tensor(1, 8, 6), tensor(4, 8, 3)), ["Conv"],
        {"pads": (1, 1)},
    ),
    "conv3d": (O.nn.conv3d, (tensor(1, 2, 4, 4, 4), tensor(3, 2, 2, 2, 2)), ["Conv"], {"kernel_shape": (2, 2, 2)}),
    "conv_transpose": (
        lambda x, w: O.nn.conv2d_transpose(x, w, strides=2, padding=1), (X, tensor(8, 4, 4, 4)), ["ConvTranspose"],
        {"strides": (2, 2), "pads": (1, 1, 1, 1), "group": 1},
    ),
    "max_pool": (
        lambda x: O.nn.max_pool2d(x, 3, 2, 1), (X,), ["MaxPool"],
        {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    ),
    "avg_pool": (
        lambda x: O.nn.avg_pool2d(x, 2, 2), (X,), ["AveragePool"],
        {"kernel_shape": (2, 2), "count_include_pad": 0},
    ),
    "adaptive": (lambda x: O.nn.adaptive_avg_pool2d(x, 1), (X,), ["GlobalAveragePool"], {}),
    "adaptive_3": (
        lambda x: O.nn.adaptive_avg_pool2d(x, 3), (X,), ["AveragePool"],
        {"kernel_shape": (2, 2), "strides": (2, 2)},
    ),
    "matmul": (O.matmul, (tensor(2, 4, 5), tensor(2, 5, 3)), ["MatMul"], {}),
    "matmul_broadcast": (O.matmul, (tensor(2, 4, 5), tensor(5, 3)), ["MatMul"], {}),
    "sum": (lambda x: O.sum(x, [1], keepdims=True), (X,), ["ReduceSum"], {"axes": (1,), "keepdims": 1}),
    "mean": (lambda x: O.mean(x, [1, 2]), (X,), ["ReduceMean"], {"axes": (1, 2), "keepdims": 0}),
    "global_mean": (lambda x: O.mean(x, [2, 3], keepdims=True), (X,), ["GlobalAveragePool"], {}),
    "max": (lambda x: O.max(x, [3]), (X,), ["ReduceMax"], {"axes": (3,), "keepdims": 0}),
    "argmax": (lambda x: O.argmax(x, 1), (X,), ["ArgMax"], {"axis": 1, "keepdims": 0}),
    "transpose": (lambda x: O.permute_dims(x, [0, 2, 3, 1]), (X,), ["Transpose"], {"perm": (0, 2, 3, 1)}),
    "reshape": (lambda x: O.reshape(x, [8, 36]), (X,), ["Reshape"], {}),
    "expand_dims": (lambda x: O.expand_dims(x, [1]), (X,), ["Unsqueeze"], {"axes": (1,)}),
    "concat": (lambda x, y: O.concat([x, y], 1), (X, X), ["Concat"], {"axis": 1}),
    "strided_slice": (
        lambda x: O.strided_slice(x, [1], [1], [7], [2]), (X,), ["Slice"],
        {"axes": (1,), "starts": (1,), "ends": (7,), "steps": (2,)},
    ),
    "take": (lambda w, i: O.take(w, i, 0), (tensor(50, 8), tensor(1, 5, dtype="int64")), ["Gather"], {"axis": 0}),
    "broadcast_to": (lambda x: O.broadcast_to(x, [3, 8, 6, 6]), (X,), ["Expand"], {}),
    "tile": (lambda x: O.tile(x, [1, 2, 1, 1]), (X,), ["Tile"], {"repeats": (1, 2, 1, 1)}),
    "astype": (lambda x: O.astype(x, "float16"), (X,), ["Cast"], {"to": "float16"}),
    "tril": (O.tril, (tensor(5, 5),), ["Trilu"], {"upper": 0}),
    "pad": (lambda x: O.nn.pad(x, [0, 0, 0, 0, 1, 1, 2, 2]), (X,), ["Pad"], {"pads": (0, 0, 1, 2, 0, 0, 1, 2)}),
    "negative": (O.negative, (X,), ["Neg"], {}),
    "where": (O.where, (tensor(1, 8, 6, 6, dtype="bool"), X, X), ["Where"], {}),
    "rsqrt": (O.rsqrt, (X,), ["Sqrt", "Reciprocal"], {}),
    "einsum": (
        lambda a, b: O.einsum([a, b], "abc,adc->bad"), (tensor(2, 3, 4), tensor(2, 5, 4)), ["Einsum"], {},
    ),
    "dropout": (lambda x: O.nn.relu(O.nn.dropout(x)[0]), (X,), ["Relu"], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    function, types, expected, attrs = CASES[name]
    graph = lower(program(function, *types))
    assert ops(graph) == expected
    assert attrs.items() <= dict(graph.nodes[-1].attrs).items()
    assert analyze(graph).coverage == 1.0


@pytest.mark.parametrize("name", CASES)
def test_legalized_operator_maps_back(name: str) -> None:
    function, types, expected, _ = CASES[name]
    module = program(function, *types)
    plain, lowered = lower(module), lower(legalized(module))
    assert ops(lowered) == expected
    assert lowered.nodes[-1].attrs.get("axis") == plain.nodes[-1].attrs.get("axis")
    assert analyze(lowered).flops == analyze(plain).flops
    assert [str(lowered.tensors[t]) for t in lowered.outputs] == [str(plain.tensors[t]) for t in plain.outputs]


def test_nhwc_convolution_counts_the_same_work() -> None:
    same = lower(program(lambda x, w: O.nn.conv2d(x, w), X, tensor(4, 8, 3, 3)))
    weight = relax.const(np.ones((3, 3, 8, 4), "float32"))
    module = program(lambda x: O.nn.conv2d(x, weight, data_layout="NHWC", kernel_layout="HWIO"), tensor(1, 6, 6, 8))
    for form in (module, legalized(module)):
        graph = lower(form)
        assert ops(graph) == ["Conv"]
        assert graph.nodes[0].attrs["layout"] == "NHWC"
        assert analyze(graph).flops == analyze(same).flops
        assert graph.tensors[graph.outputs[0]].shape == (1, 4, 4, 4)


def test_unknown_operator_is_opaque_and_strict_refuses_it() -> None:
    from costmodel.errors import UnsupportedOpError

    module = program(lambda x: O.median(x, [1])[0], tensor(4, 9))
    graph = lower(module)
    assert graph.nodes[0].opaque
    assert analyze(graph).coverage < 1
    with pytest.raises(UnsupportedOpError, match=r"relax\.median"):
        lower(module, strict=True)
