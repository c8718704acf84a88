"""Shapes where there is no rule: those that the file declares, and ONNX's own inference on one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, checker, defs, helper, shape_inference

from frontends.onnx_rules import Call
from frontends.onnx_values import DTYPES, ONNX_TYPES, Spec


class Declared:
    """Shapes of intermediate tensors and outputs as the file states them, under bound symbols.

    symbols  values of symbolic dimensions
    rebatch  (exported, wanted) batch, replaced on leading axes
    """

    def __init__(self, model: ModelProto, rebatch: tuple[int, int] | None) -> None:
        self._model = model
        self._infos: dict[str, ValueInfoProto] | None = None
        self.symbols: Mapping[str, int] = {}
        self.rebatch = rebatch

    def specs(self, names: Sequence[str]) -> list[Spec] | None:
        """Shape and type of every named tensor, or None if one is not stated completely."""
        if self._infos is None:
            self._infos = {i.name: i for i in (*self._model.graph.value_info, *self._model.graph.output)}
        found = []
        for name in names:
            if name not in self._infos:
                return None
            spec = type_spec(self._infos[name].type, self.symbols)
            if spec is None:
                return None
            if self.rebatch and spec[0][:1] == (self.rebatch[0],):
                spec = ((self.rebatch[1], *spec[0][1:]), spec[1])
            found.append(spec)
        return found


def type_spec(proto: TypeProto, symbols: Mapping[str, int]) -> Spec | None:
    """Static shape and type of a tensor type, or None."""
    tensor = proto.tensor_type
    if proto.WhichOneof("value") != "tensor_type" or not tensor.HasField("shape") or tensor.elem_type not in DTYPES:
        return None
    shape = []
    for dim in tensor.shape.dim:
        if dim.WhichOneof("value") == "dim_value" and dim.dim_value >= 0:
            shape.append(dim.dim_value)
        elif dim.dim_param in symbols:
            shape.append(symbols[dim.dim_param])
        else:
            return None
    return tuple(shape), DTYPES[tensor.elem_type]


def schema_specs(call: Call, node: NodeProto) -> list[Spec] | None:
    """Output shapes by the inference function of the operator's schema, or None if it does not settle them."""
    try:
        schema = defs.get_schema(call.op, call.version, call.domain)
    except defs.SchemaError:
        return None
    types, data = {}, {}
    for name, value in zip(node.input, call.inputs, strict=False):
        if value is None or value.items is not None:
            continue
        types[name] = helper.make_tensor_type_proto(ONNX_TYPES[value.dtype], value.shape)
        if value.content is not None:
            data[name] = helper.make_tensor(name, ONNX_TYPES[value.dtype], value.shape, value.content.reshape(-1))
    imports = [helper.make_opsetid(call.domain, call.version)]
    try:
        found = shape_inference.infer_node_outputs(schema, node, types, data, opset_imports=imports)
    except (shape_inference.InferenceError, checker.ValidationError, RuntimeError, ValueError, TypeError):
        return None
    specs = [type_spec(found[name], {}) if name in found else None for name in node.output]
    return None if any(spec is None for spec in specs) else specs  # type: ignore[return-value]
