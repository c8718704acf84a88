"""What int8 measurements run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from costmodel.errors import ProfileError
from profiler.onnx_model import prepare
from profiler.request import Request
from tests.profiler.models import conv_net


def quantized() -> onnx.ModelProto:
    return prepare(Request(conv_net().SerializeToString(), precision="int8"))


def test_activations_are_unsigned_and_weights_signed_per_channel() -> None:
    model = quantized()
    constants = {t.name: t for t in model.graph.initializer}
    producers = {out: n for n in model.graph.node for out in n.output}
    for node in (n for n in model.graph.node if n.op_type in ("Conv", "Gemm")):
        activation, weight = producers[node.input[0]], producers[node.input[1]]
        assert weight.op_type == activation.op_type == "DequantizeLinear"
        assert constants[activation.input[2]].data_type == TensorProto.UINT8
        stored = constants[weight.input[0]]
        assert stored.data_type == TensorProto.INT8
        assert list(constants[weight.input[1]].dims) == [stored.dims[0]]
        assert helper.get_node_attr_value(weight, "axis") == 0


def test_weights_use_the_range_of_int8() -> None:
    weights = [numpy_helper.to_array(t) for t in quantized().graph.initializer if t.data_type == TensorProto.INT8]
    wide = [w for w in weights if w.ndim == 4]
    assert len(wide) == 2
    assert all(np.abs(w).max() == 127 for w in wide)


def test_onnxruntime_runs_it_on_integer_kernels(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(quantized().SerializeToString(), options, providers=["CPUExecutionProvider"])
    ops = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert ops.count("QLinearConv") == 2
    assert "Conv" not in ops
    (result,) = session.run(None, {"x": np.ones((1, 3, 12, 12), np.float32)})
    assert np.isfinite(result).all()


def test_old_opsets_are_refused() -> None:
    with pytest.raises(ProfileError, match="opset 13"):
        prepare(Request(conv_net(opset=11).SerializeToString(), precision="int8"))
