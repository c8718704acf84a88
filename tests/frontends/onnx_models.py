"""Tiny ONNX models for the tests of the ONNX frontend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import FunctionProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Dims = Sequence[int | str | None]

node = helper.make_node


def floats(*shape: int) -> np.ndarray:
    """Small, different numbers."""
    return (np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape) % 7 - 3) / 8


def ints(*values: int) -> np.ndarray:
    """An int64 vector."""
    return np.array(values, dtype=np.int64)


def info(name: str, dims: Dims | None, dtype: int = TensorProto.FLOAT) -> ValueInfoProto:
    """A tensor's declared type; a name in `dims` is a symbol, None an axis without one."""
    return helper.make_tensor_value_info(name, dtype, dims)


def model(
    nodes: Sequence[NodeProto],
    inputs: Mapping[str, Dims] | Sequence[ValueInfoProto],
    outputs: Sequence[str] | Sequence[ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 17,
    functions: Sequence[FunctionProto] = (),
    **domains: int,
) -> ModelProto:
    """A model of IR version 10. Outputs given by name have no declared shape."""
    if isinstance(inputs, Mapping):
        inputs = [info(name, dims) for name, dims in inputs.items()]
    declared = [o if isinstance(o, ValueInfoProto) else info(o, None) for o in outputs]
    initializers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), declared, initializers)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain.replace("_", "."), version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def run(proto: ModelProto, feeds: Mapping[str, np.ndarray]) -> list[Any]:
    """What ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def conv_net(batch: int | str = "N", opset: int = 17) -> ModelProto:
    """Conv, Relu, global pool, flatten, Gemm."""
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "v"], ["y"], transB=1),
    ]
    weights = {"w": floats(4, 3, 3, 3), "b": floats(4), "v": floats(10, 4)}
    return model(nodes, {"x": [batch, 3, 8, 8]}, [info("y", [batch, 10])], weights, opset)
