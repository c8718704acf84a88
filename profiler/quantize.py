"""Static int8 quantisation with ONNX Runtime's own tool, as its users apply it.

QDQ form, activations uint8, weights int8 with a scale per output channel (the pairing with fast kernels: VNNI and
dp4a multiply unsigned by signed). The ranges of activations, which calibration would observe, are drawn at random:
they set scales, not speed. So no calibration run is needed. For the same reason the tool computes one scale per
tensor, and copies of it become the scales of the channels: the tool would take seconds to compute thousands.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from costmodel.errors import ProfileError
from profiler.weights import fill_weights

_LOWEST_ZERO = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Clip"}
_OPSET_PER_CHANNEL = 13


def quantize(model: onnx.ModelProto, folder: Path | None, seed: int) -> onnx.ModelProto:
    """The quantised model. `model` has static input shapes and perhaps no weights yet; it is changed.

    Raises ProfileError for models before opset 13, which has the first per-channel QuantizeLinear.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < _OPSET_PER_CHANNEL:
        raise ProfileError(f"int8 needs opset {_OPSET_PER_CHANNEL} and the model has {opset}; export it anew")
    shaped = onnx.shape_inference.infer_shapes(model)  # before there are weights to copy
    fill_weights(shaped, folder, seed)
    logging.getLogger().setLevel(logging.ERROR)  # the tool warns of every normalisation's rank-1 scale
    tool = QDQQuantizer(
        shaped,
        per_channel=False,  # see _widen
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _ranges(shaped, seed)),
        nodes_to_quantize=[],
        nodes_to_exclude=[],
        op_types_to_quantize=sorted({*QDQRegistry, *QLinearOpsRegistry}),
        extra_options={},
    )
    tool.quantize_model()
    model = tool.model.model
    _widen(model)
    return model


def _widen(model: onnx.ModelProto) -> None:
    """One scale and zero point per output channel for the weights (and biases) of convolutions and matrix products."""
    constants = {t.name: t for t in model.graph.initializer}
    readers = {name: (node, place) for node in model.graph.node for place, name in enumerate(node.input)}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants or node.output[0] not in readers:
            continue
        tensor = constants[node.input[0]]
        axis = _channel_axis(*readers[node.output[0]], len(tensor.dims))
        if axis is None or tensor.data_type not in (TensorProto.INT8, TensorProto.INT32):
            continue
        for place, name in enumerate(list(node.input)[1:], 1):
            value = numpy_helper.to_array(constants[name]).reshape(-1)
            if value.size == 1:
                wide = numpy_helper.from_array(np.repeat(value, tensor.dims[axis]), f"{name}_{tensor.name}_channels")
                model.graph.initializer.append(wide)
                node.input[place] = wide.name
        node.attribute.append(helper.make_attribute("axis", axis))


def _channel_axis(reader: onnx.NodeProto, place: int, rank: int) -> int | None:
    """The axis of output channels of a constant operand, by the operator that reads it; None if it has none."""
    if place == 2 and rank == 1 and reader.op_type in ("Conv", "ConvTranspose", "Gemm"):
        return 0
    if place != 1:
        return None
    if reader.op_type == "Gemm":
        return 0 if any(a.name == "transB" and a.i for a in reader.attribute) else 1
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": rank - 1}.get(reader.op_type)
    return axis if axis is not None and rank > 1 else None


def _ranges(model: onnx.ModelProto, seed: int) -> dict[str, object]:
    """Activation name → its lowest and highest value, drawn at random; not below 0 where an operator cannot be."""
    from onnxruntime.quantization.calibrate import TensorData

    rng = np.random.default_rng(seed)
    weights = {t.name for t in model.graph.initializer}
    zero = {name for node in model.graph.node if node.op_type in _LOWEST_ZERO for name in node.output}
    names = [i.name for i in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name]
    found: dict[str, object] = {}
    for name in names:
        if name not in weights:
            low = 0.0 if name in zero else -float(rng.uniform(1, 3))
            high = float(rng.uniform(1, 3))
            found[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    return found
