"""Types of Relax values: element types, symbolic dimensions and their binding.

TVM objects are read through their fields only, so nothing here imports TVM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto

from costmodel.errors import DynamicShapeError, ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_bind import Binding, bind_inputs
from frontends.onnx_values import CONTENT_LIMIT, ONNX_TYPES, Shape, Spec, Value

_ALIASES = {"bool": DType.BOOL, "uint1": DType.BOOL, "handle": DType.STRING, "float4_e2m1fn": DType.INT4}
_BINARY: dict[str, Callable[[int, int], int]] = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "FloorDiv": lambda a, b: a // b,
    "FloorMod": lambda a, b: a % b,
    "Div": lambda a, b: int(a / b),
    "Mod": lambda a, b: a - b * int(a / b),
    "Max": max,
    "Min": min,
    "LT": lambda a, b: int(a < b),
    "LE": lambda a, b: int(a <= b),
    "GT": lambda a, b: int(a > b),
    "GE": lambda a, b: int(a >= b),
    "EQ": lambda a, b: int(a == b),
    "NE": lambda a, b: int(a != b),
    "And": lambda a, b: int(a and b),
    "Or": lambda a, b: int(a or b),
}


def kind(obj: Any) -> str:
    """Class name of a TVM object."""
    return type(obj).__name__


def dtype_of(name: Any) -> DType:
    """IR type of a TVM element type such as `float32` or `float8_e4m3fn`; vectors count as their element."""
    text = str(name).split("x")[0]
    if text in _ALIASES:
        return _ALIASES[text]
    if text.startswith("float8"):
        return DType.FLOAT8
    try:
        return DType(text)
    except ValueError:
        raise ShapeInferenceError(f"element type '{text}' has no counterpart; cast it to a standard type") from None


class Symbols:
    """Sizes of symbolic dimensions, by the identity of their variables."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def bind(self, variable: Any, size: int) -> None:
        """Gives a variable its size."""
        self.sizes[variable.__chandle__()] = size

    def known(self, variable: Any) -> bool:
        """Whether a variable has a size."""
        return variable.__chandle__() in self.sizes

    def value(self, expr: Any) -> int:
        """Value of an integer expression; DynamicShapeError naming a variable without a size."""
        name = kind(expr)
        if name == "IntImm" or isinstance(expr, int):
            return int(getattr(expr, "value", expr))
        if name == "Var":
            size = self.sizes.get(expr.__chandle__())
            if size is None:
                raise DynamicShapeError(
                    f"symbolic axes without a size: {expr.name}; give --shape {expr.name}=?", (str(expr.name),)
                )
            return size
        if name in _BINARY:
            return int(_BINARY[name](self.value(expr.a), self.value(expr.b)))
        if name == "Cast":
            return self.value(expr.value)
        if name in ("Select", "Call") and (name == "Select" or str(expr.op.name).endswith("if_then_else")):
            parts = (expr.condition, expr.true_value, expr.false_value) if name == "Select" else expr.args
            return self.value(parts[1] if self.value(parts[0]) else parts[2])
        raise ShapeInferenceError(f"dimension '{expr}' cannot be worked out; simplify the program or bind it")

    def shape(self, values: Sequence[Any]) -> Shape:
        """Values of several dimensions."""
        return tuple(self.value(v) for v in values)

    def match(self, declared: Any, shape: Shape) -> None:
        """Gives the plain variables among the declared dimensions the sizes of a known shape."""
        for dim, size in zip(dims_of(declared) or (), shape, strict=False):
            if kind(dim) == "Var" and not self.known(dim):
                self.bind(dim, size)


def dims_of(tensor_type: Any) -> list[Any] | None:
    """Dimension expressions of a tensor or shape type; None if only the rank is known."""
    if kind(tensor_type) == "ShapeType":
        return None if tensor_type.values is None else list(tensor_type.values)
    shape = tensor_type.shape
    if shape is None:
        return None
    if kind(shape) == "ShapeExpr":
        return list(shape.values)
    inner = getattr(shape, "ty", None)
    return None if inner is None or inner.values is None else list(inner.values)


def spec_of(declared: Any, symbols: Symbols) -> Spec | None:
    """Shape and element type of a declared type; None if it is not a tensor of known shape."""
    if kind(declared) == "PrimType":
        return (), dtype_of(declared.dtype)
    if kind(declared) != "TensorType" or declared.dtype is None:
        return None
    dims = dims_of(declared)
    if dims is None:
        return None
    return symbols.shape(dims), dtype_of(declared.dtype)


def specs_of(declared: Any, symbols: Symbols) -> list[Spec] | None:
    """Specs of a type, tuples flattened; None if one of them is not known."""
    if kind(declared) == "TupleType":
        parts = [specs_of(field, symbols) for field in declared.fields]
        return None if any(p is None for p in parts) else [spec for part in parts for spec in part or []]
    spec = spec_of(declared, symbols)
    return None if spec is None else [spec]


def constant(name: str, tensor: Any, declared: Any) -> Value:
    """Value of a constant; its content is copied only where it is small."""
    dims = dims_of(declared)
    shape = tuple(int(d) for d in tensor.shape) if dims is None else tuple(int(d.value) for d in dims)
    dtype = dtype_of(declared.dtype if declared.dtype is not None else tensor.dtype)
    value = Value(name, shape, dtype, const=True, read=lambda: _content(tensor))
    return value if value.numel <= CONTENT_LIMIT else Value(name, shape, dtype, const=True)


def _content(tensor: Any) -> np.ndarray | None:
    try:
        return np.asarray(tensor.numpy())
    except (TypeError, ValueError, RuntimeError):
        return None


def bind_parameters(
    parameters: Sequence[tuple[str, Any]],
    batch: int | None,
    shapes: Mapping[str, int | tuple[int, ...]],
    symbols: Symbols,
) -> Binding:
    """Static shapes of a function's run-time parameters (name, declared type); errors as for an ONNX model's inputs."""
    model = ModelProto()
    variables: dict[str, list[Any]] = {}
    for name, declared in parameters:
        info = model.graph.input.add()
        info.name = name
        tensor = info.type.tensor_type
        tensor.elem_type = ONNX_TYPES.get(dtype_of(declared.dtype), TensorProto.FLOAT)
        dims = dims_of(declared)
        if dims is None:
            continue
        tensor.shape.SetInParent()
        for dim in dims:
            entry = tensor.shape.dim.add()
            if kind(dim) == "IntImm":
                entry.dim_value = int(dim.value)
            elif kind(dim) == "Var":
                entry.dim_param = str(dim.name)
                variables.setdefault(str(dim.name), []).append(dim)
    binding = bind_inputs(model, batch, shapes)
    for name, declared in parameters:
        symbols.match(declared, binding.inputs[name][0])
    for name, size in binding.symbols.items():
        for variable in variables.get(name, ()):
            if not symbols.known(variable):
                symbols.bind(variable, size)
    return binding
