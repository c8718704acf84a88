"""Graphs as weightless ONNX: for exchange with tools that read ONNX, not for running.

Weights are external placeholders without a file and every tensor's shape is stated. What the IR keeps as attributes and
ONNX wants as inputs (Slice's starts, Clip's bounds, Reshape's shape …) becomes constants again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from costmodel.ir import DType, Graph, Node, TensorSpec

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

OPSET, IR_VERSION = 20, 9
_ONNX_TYPES = {"float64": "DOUBLE", "float32": "FLOAT", "float8": "FLOAT8E4M3FN"}

_INTEGERS: dict[str, tuple[str, ...]] = {
    "Slice": ("starts", "ends", "axes", "steps"), "Split": ("split",), "Tile": ("repeats",), "TopK": ("k",),
    "Squeeze": ("axes",), "Unsqueeze": ("axes",), "Pad": ("pads",), "Trilu": ("k",),
}  # fmt: skip
"""Integer inputs after the data, as the IR's attributes are called."""

_VALUES: dict[str, tuple[str, ...]] = {"Clip": ("min", "max"), "Pad": ("value",)}
"""Scalar inputs of the data's type after those."""

_SHAPED = ("Reshape", "Expand")
_SCALAR = frozenset(("k",))


def to_onnx(graph: Graph) -> ModelProto:
    """The model of a graph, at its own batch. Attributes that ONNX does not know are kept; the checker may object."""
    from onnx import helper

    writer = _Writer(graph)
    for node in graph.nodes:
        writer.node(node)

    def info(name: str) -> Any:
        spec = graph.tensors[name]
        return helper.make_tensor_value_info(name, _type(spec.dtype), spec.shape)

    made = [t for node in graph.nodes for t in node.outputs if t and t not in graph.outputs]
    proto = helper.make_graph(
        writer.nodes, graph.name or "graph", [info(t) for t in graph.inputs], [info(t) for t in graph.outputs],
        [*(_placeholder(t, graph.tensors[t]) for t in sorted(graph.params)), *writer.constants],
        value_info=[info(t) for t in made],
    )  # fmt: skip
    domains = {"": OPSET} | {node.domain: 1 for node in writer.nodes if node.domain}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(proto, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ledg-cost")


class _Writer:
    """Collects the nodes and the constants that they need."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: list[TensorProto] = []
        self._names: dict[str, str] = {}

    def node(self, node: Node) -> None:
        from onnx import helper

        attrs = dict(node.attrs)
        extra = self._inputs(node, attrs)
        inputs = [*node.inputs, *extra]
        while inputs and not inputs[-1]:
            inputs.pop()
        domain, _, op = node.op.rpartition(".")
        self.nodes.append(
            helper.make_node(op, inputs, list(node.outputs), node.name or None, domain=domain or None, **_lists(attrs))
        )

    def _inputs(self, node: Node, attrs: dict[str, Any]) -> list[str]:
        """Inputs made of attributes, which are taken out of `attrs`."""
        output = self.graph.tensors[next(t for t in node.outputs if t)]
        if node.op in _SHAPED and len(node.inputs) == 1:
            return [self._integers(output.shape)]
        if node.op == "Resize" and len(node.inputs) == 1:
            return ["", "", self._integers(output.shape)]
        if node.op.startswith("Reduce") and "axes" in attrs:
            return [self._integers(attrs.pop("axes"))]
        found = [
            self._integers(attrs.pop(key), key in _SCALAR and node.op == "Trilu") if key in attrs else ""
            for key in _INTEGERS.get(node.op, ())
        ]
        kind = self.graph.tensors[node.inputs[0]].dtype if node.inputs and node.inputs[0] else DType.FLOAT32
        return found + [
            self._value(attrs.pop(key), kind) if key in attrs else "" for key in _VALUES.get(node.op, ())
        ]  # fmt: skip

    def _integers(self, values: Any, scalar: bool = False) -> str:
        listed = [values] if isinstance(values, int) else list(values)
        return self._constant(DType.INT64, () if scalar else (len(listed),), listed)

    def _value(self, value: float, kind: DType) -> str:
        return self._constant(kind, (), [value])

    def _constant(self, kind: DType, shape: tuple[int, ...], values: list[Any]) -> str:
        from onnx import helper

        key = f"{kind.value}{shape}{values}"
        if key not in self._names:
            self._names[key] = self._fresh()
            self.constants.append(helper.make_tensor(self._names[key], _type(kind), shape, values))
        return self._names[key]

    def _fresh(self) -> str:
        number = len(self._names)
        while (name := f"constant_{number}") in self.graph.tensors or name in self._names.values():
            number += 1
        return name


def _lists(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as ONNX's helper wants them, which cannot tell the type of an empty list."""
    return {
        k: list(v) if isinstance(v, tuple) else int(v) if isinstance(v, bool) else v
        for k, v in attrs.items()
        if v != ()
    }  # fmt: skip


def _placeholder(name: str, spec: TensorSpec) -> TensorProto:
    from onnx import TensorProto

    tensor = TensorProto(name=name, dims=spec.shape, data_type=_type(spec.dtype))
    if math.prod(spec.shape):
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def _type(kind: DType) -> int:
    from onnx import TensorProto

    return int(TensorProto.DataType.Value(_ONNX_TYPES.get(kind.value, kind.value.upper())))
