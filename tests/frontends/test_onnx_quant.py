from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto

from costmodel.ir import DType, Graph
from frontends import load
from tests.frontends.onnx_models import floats, info, model, node

SCALE = {"s": np.float32(0.1), "z": np.int8(0)}


def quantize(source: str, target: str) -> object:
    return node("QuantizeLinear", [source, "s", "z"], [target])


def dequantize(source: str, target: str) -> object:
    return node("DequantizeLinear", [source, "s", "z"], [target])


def types(graph: Graph) -> list[tuple[str, str, str]]:
    """Operator, type of its first input, type of its result."""
    return [
        (n.op, graph.tensors[n.inputs[0]].dtype.value, graph.tensors[n.outputs[0]].dtype.value) for n in graph.nodes
    ]


def qdq_conv() -> ModelProto:
    nodes = [
        quantize("x", "xq"), dequantize("xq", "xd"), dequantize("w", "wd"),
        node("Conv", ["xd", "wd", "b"], ["c"]), node("Relu", ["c"], ["r"]),
        quantize("r", "rq"), dequantize("rq", "rd"),
        node("MaxPool", ["rd"], ["p"], kernel_shape=[2, 2]), quantize("p", "pq"), dequantize("pq", "y"),
    ]  # fmt: skip
    weights = {"w": np.ones((4, 3, 3, 3), np.int8), "b": floats(4), **SCALE}
    return model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights, opset=13)


def test_a_qdq_region_becomes_int8_operators() -> None:
    graph = load(qdq_conv())
    assert types(graph) == [
        ("QuantizeLinear", "float32", "int8"),
        ("Conv", "int8", "int8"),
        ("Relu", "int8", "int8"),
        ("MaxPool", "int8", "int8"),
        ("DequantizeLinear", "int8", "float32"),
    ]
    assert graph.tensors[graph.nodes[1].inputs[1]].dtype is DType.INT8


def test_qoperator_form_gives_the_same_convolution() -> None:
    nodes = [
        quantize("x", "xq"),
        node("QLinearConv", ["xq", "s", "z", "w", "s", "z", "s", "z"], ["c"]),
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
        dequantize("p", "y"),
    ]
    weights = {"w": np.ones((4, 3, 3, 3), np.int8), **SCALE}
    graph = load(model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights))
    qdq = load(qdq_conv())
    assert types(graph) == [t for t in types(qdq) if t[0] != "Relu"]
    assert graph.nodes[1].attrs == qdq.nodes[1].attrs


def test_residual_additions_run_in_int8_with_the_accumulator_before_them() -> None:
    nodes = [
        quantize("x", "xq"), dequantize("xq", "xd"), dequantize("w", "wd"),
        node("Conv", ["xd", "wd"], ["c"]), node("Add", ["c", "xd"], ["a"]), node("Relu", ["a"], ["r"]),
        quantize("r", "rq"), dequantize("rq", "y"),
    ]  # fmt: skip
    weights = {"w": np.ones((3, 3, 1, 1), np.int8), **SCALE}
    graph = load(model(nodes, {"x": ["N", 3, 8, 8]}, ["y"], weights))
    assert types(graph)[1:-1] == [("Conv", "int8", "int8"), ("Add", "int8", "int8"), ("Relu", "int8", "int8")]


def test_a_float_operator_between_keeps_its_borders() -> None:
    first, second = [quantize("x", "xq"), dequantize("xq", "xd")], [quantize("e", "eq"), dequantize("eq", "y")]
    nodes = [*first, node("Erf", ["xd"], ["e"]), *second]
    graph = load(model(nodes, {"x": ["N", 3]}, ["y"], SCALE))
    assert [n.op for n in graph.nodes] == [
        "QuantizeLinear", "DequantizeLinear", "Erf", "QuantizeLinear", "DequantizeLinear",
    ]  # fmt: skip


def test_a_quantised_product_may_leave_as_float() -> None:
    nodes = [quantize("x", "xq"), dequantize("xq", "xd"), dequantize("w", "wd"), node("MatMul", ["xd", "wd"], ["y"])]
    graph = load(model(nodes, {"x": ["N", 4]}, ["y"], {"w": np.ones((4, 5), np.int8), **SCALE}))
    assert types(graph)[-1] == ("MatMul", "int8", "float32")


def test_weight_only_quantisation_keeps_the_weights_storage() -> None:
    nodes = [
        dequantize("w", "wd"), node("Transpose", ["wd"], ["wt"], perm=[1, 0]), node("MatMul", ["x", "wt"], ["y"]),
    ]  # fmt: skip
    graph = load(model(nodes, {"x": ["N", 4]}, ["y"], {"w": np.ones((5, 4), np.int8), **SCALE}))
    assert types(graph) == [("MatMul", "float32", "float32")]
    assert str(graph.tensors[graph.nodes[0].inputs[1]]) == "int8[4,5]"


def test_integer_products() -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        node("MatMulInteger", ["q", "w", "qz", "z"], ["i"]),
        node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = load(model(nodes, {"x": ["N", 4]}, ["y"], {"w": np.ones((4, 5), np.int8), **SCALE}))
    assert types(graph) == [
        ("DynamicQuantizeLinear", "float32", "uint8"), ("MatMul", "uint8", "int32"), ("Cast", "int32", "float32"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_models_quantised_by_onnxruntime(form: str, tmp_path: object) -> None:
    pytest.importorskip("onnxruntime.quantization")
    import logging
    import warnings
    from pathlib import Path

    import onnx
    from onnxruntime import quantization

    from tests.frontends.onnx_models import conv_net

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = [{"x": floats(1, 3, 8, 8)} for _ in range(2)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    folder = Path(str(tmp_path))
    proto = conv_net()
    proto.graph.output[0].CopyFrom(info("y", ["N", 10]))
    onnx.save(proto, folder / "f.onnx")
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            folder / "f.onnx",
            folder / "q.onnx",
            Reader(),
            quant_format=quantization.QuantFormat[form],
            per_channel=True,
        )
    logging.disable(logging.NOTSET)
    graph = load(folder / "q.onnx")
    by_op = {t[0]: t for t in types(graph)}
    assert DType(by_op["Conv"][1]).is_quantized
    assert DType(by_op["Conv"][2]).is_quantized
    product = by_op["Gemm"]
    assert DType(product[1]).is_quantized
    assert not any(n.opaque for n in graph.nodes)
    assert [n.op for n in graph.nodes].count("DequantizeLinear") <= 1
