from __future__ import annotations

from typing import Any

import pytest

from costmodel.ir import DType
from tests.frontends.relay_programs import main, ops

X2 = "%x: Tensor[(2, 4), float32]"
X3 = "%x: Tensor[(2, 3, 4), float32]"
IMAGE = "%x: Tensor[(1, 4, 8, 8), float32]"
WINDOW = {"strides": (2, 2), "pads": (1, 0, 1, 0), "dilations": (1, 1)}

CASES: list[tuple[str, str, list[str], dict[str, Any]]] = [
    (
        IMAGE + ", %w: Tensor[(6, 2, 3, 1), float32]",
        "nn.conv2d(%x, %w, strides=[2, 2], padding=[1, 0], groups=2)",
        ["Conv"],
        {"kernel_shape": (3, 1), **WINDOW, "group": 2},
    ),
    (
        IMAGE + ", %w: Tensor[(4, 3, 2, 2), float32]",
        "nn.conv2d_transpose(%x, %w, channels=3, kernel_size=[2, 2], strides=[2, 2])",
        ["ConvTranspose"],
        {"kernel_shape": (2, 2), "strides": (2, 2), "pads": (0, 0, 0, 0), "dilations": (1, 1), "group": 1},
    ),
    (X2 + ", %w: Tensor[(3, 4), float32]", "nn.dense(%x, %w, units=3)", ["Gemm"], {"transA": 0, "transB": 1}),
    (X3 + ", %w: Tensor[(5, 4), float32]", "nn.dense(%x, %w, units=5)", ["MatMul"], {}),
    (X3 + ", %y: Tensor[(2, 4, 5), float32]", "nn.batch_matmul(%x, %y)", ["MatMul"], {}),
    (X3, "nn.batch_matmul(%x, %x, transpose_b=True)", ["Transpose", "MatMul"], {}),
    (
        IMAGE,
        "nn.max_pool2d(%x, pool_size=[3, 1], strides=[2, 2], padding=[1, 0])",
        ["MaxPool"],
        {"kernel_shape": (3, 1), **WINDOW, "ceil_mode": 0},
    ),
    (
        IMAGE,
        "nn.avg_pool2d(%x, pool_size=[3, 1], strides=[2, 2], padding=[1, 0], count_include_pad=True)",
        ["AveragePool"],
        {"kernel_shape": (3, 1), **WINDOW, "ceil_mode": 0, "count_include_pad": 1},
    ),
    (IMAGE, "nn.adaptive_avg_pool2d(%x, output_size=[1])", ["GlobalAveragePool"], {}),
    (IMAGE, "nn.global_max_pool2d(%x)", ["GlobalMaxPool"], {}),
    (IMAGE, "nn.leaky_relu(%x, alpha=0.1f)", ["LeakyRelu"], {"alpha": 0.1}),
    (IMAGE, "clip(%x, a_min=0f, a_max=6f)", ["Clip"], {"min": 0.0, "max": 6.0}),
    (IMAGE, "nn.softmax(%x, axis=1)", ["Softmax"], {"axis": 1}),
    (IMAGE, "nn.batch_flatten(%x)", ["Flatten"], {"axis": 1}),
    (IMAGE, "nn.lrn(%x, size=3)", ["LRN"], {"size": 3}),
    (
        IMAGE,
        "nn.upsampling(%x, scale_h=2f, scale_w=2f)",
        ["Resize"],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    (
        IMAGE,
        "image.resize2d(%x, size=[16, 16])",
        ["Resize"],
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    ),
    (
        IMAGE,
        "nn.pad(%x, 1f, pad_width=[[0, 0], [0, 0], [1, 2], [3, 4]])",
        ["Pad"],
        {"mode": "constant", "pads": (0, 0, 1, 3, 0, 0, 2, 4), "value": 1.0},
    ),
    (X3 + ", %g, %b", "nn.layer_norm(%x, %g, %b)", ["LayerNormalization"], {"axis": 2}),
    (X3, "transpose(%x, axes=[0, -1, 1])", ["Transpose"], {"perm": (0, 2, 1)}),
    (X3, "expand_dims(%x, axis=-1, num_newaxis=2)", ["Unsqueeze"], {"axes": (3, 4)}),
    (X3, "mean(%x, axis=[-1], keepdims=True)", ["ReduceMean"], {"axes": (2,), "keepdims": 1}),
    (X3, "sum(%x, axis=[1], exclude=True)", ["ReduceSum"], {"axes": (0, 2), "keepdims": 0}),
    (X3, "argmax(%x, axis=[1])", ["ArgMax"], {"axis": 1, "keepdims": 0}),
    (
        X3,
        "strided_slice(%x, begin=[0, -2], end=[2, 3], strides=[1, 1])",
        ["Slice"],
        {"axes": (1,), "starts": (1,), "ends": (3,), "steps": (1,)},
    ),
    (X3, "%0 = (%x, %x); concatenate(%0, axis=-1)", ["Concat"], {"axis": 2}),
    (X3, "%0 = (%x, %x); stack(%0, axis=0)", ["Unsqueeze", "Unsqueeze", "Concat"], {"axis": 0}),
    (X3 + ", %i: Tensor[(5), int64]", "take(%x, %i, axis=1)", ["Gather"], {"axis": 1}),
    (X3, 'cast(%x, dtype="float16")', ["Cast"], {"to": "float16"}),
    (X3, "rsqrt(%x)", ["Sqrt", "Reciprocal"], {}),
    (
        X3,
        "%0 = mean(%x, axis=[2], keepdims=True); variance(%x, %0, axis=[2])",
        ["ReduceMean", "Sub", "Mul", "ReduceMean"],
        {"axes": (2,), "keepdims": 0},
    ),
    (X3, 'topk(%x, k=2, axis=1, ret_type="values")', ["TopK"], {"axis": 1, "largest": 1, "sorted": 1}),
    (X3, "tile(%x, reps=[1, 2, 1])", ["Tile"], {"repeats": (1, 2, 1)}),
    (X3, "broadcast_to(%x, shape=[6, 2, 3, 4])", ["Expand"], {}),
    (X2, '%0 = (%x, %x); einsum(%0, equation="ij,kj->ik")', ["Einsum"], {"equation": "ij,kj->ik"}),
]


@pytest.mark.parametrize(("params", "body", "names", "attrs"), CASES, ids=[c[1][:40] for c in CASES])
def test_operators_in_onnx_vocabulary(params: str, body: str, names: list[str], attrs: dict[str, Any]) -> None:
    found = main(params, body)
    assert ops(found) == names
    assert dict(found.nodes[-1].attrs) == attrs


@pytest.mark.parametrize(
    "body",
    [
        "reshape(%x, newshape=[2, 4])",
        "squeeze(expand_dims(%x, axis=0), axis=[0])",
        "strided_slice(%x, begin=[0, 0], end=[2, 4])",
        "nn.pad(%x, 0f, pad_width=[[0, 0], [0, 0]])",
        'cast(%x, dtype="float32")',
        "%0 = (%x,); concatenate(%0, axis=0)",
        "transpose(transpose(%x, axes=[1, 0]), axes=[1, 0])",
    ],
)
def test_what_does_nothing_leaves_no_node_that_computes(body: str) -> None:
    assert set(ops(main(X2, body))) <= {"Unsqueeze", "Squeeze"}


def test_quantised_products_are_int8_operators() -> None:
    body = """%0 = qnn.conv2d(%x, %w, 1, 0, 0.05f, 0.02f, padding=[1, 1], channels=8, kernel_size=[3, 3]);
    %1 = nn.bias_add(%0, %b); %2 = nn.relu(%1); qnn.requantize(%2, 0.001f, 0, 0.1f, 3, out_dtype="int8")"""
    params = "%x: Tensor[(1, 3, 8, 8), int8], %w: Tensor[(8, 3, 3, 3), int8], %b: Tensor[(8), int32]"
    found = main(params, body)
    assert ops(found) == ["Conv", "Relu"]
    assert [found.tensors[n.outputs[0]].dtype for n in found.nodes] == [DType.INT8, DType.INT8]
    assert [found.tensors[t].dtype for t in found.nodes[0].inputs] == [DType.INT8, DType.INT8, DType.INT32]


def test_quantisation_at_the_border_stays() -> None:
    body = """%0 = qnn.quantize(%x, 0.1f, 3, out_dtype="uint8"); %1 = qnn.dense(%0, %w, 3, 0, 0.1f, 0.1f, units=5);
    qnn.dequantize(%1, 0.1f, 3)"""
    found = main(X2 + ", %w: Tensor[(5, 4), uint8]", body)
    assert ops(found) == ["QuantizeLinear", "Gemm", "DequantizeLinear"]
