"""The registry of torch lowering rules: one function per ATen operator, from a call with known inputs to IR nodes.

A rule takes a `Call`, adds nodes through it and returns the `Value`s of its outputs. Rules spell operators as the ONNX
exporter of torch does, so that a module and its ONNX file give the same graph. Nothing here imports torch: element
types and overloads are read by name. The rules live in `torch_ops_*`; `registry` imports them on first use.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from costmodel.errors import ShapeInferenceError
from costmodel.ir import AttrValue, DType

if TYPE_CHECKING:
    from frontends.torch_lower import Lowering

Shape = tuple[int, ...]
Spec = tuple[Shape, DType]
Attrs = dict[str, AttrValue]

_RULE_MODULES = ("torch_ops_pointwise", "torch_ops_reduce", "torch_ops_tensor", "torch_ops_index", "torch_ops_nn",
                 "torch_ops_sequence")  # fmt: skip
_registry: dict[str, Rule] = {}


class Value:
    """One tensor during lowering: name in the graph, static shape, type, and whether it is known before run time."""

    __slots__ = ("const", "dtype", "name", "shape")

    def __init__(self, name: str, shape: Shape, dtype: DType, const: bool = False) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.const = const

    @property
    def spec(self) -> Spec:
        """Shape and type."""
        return self.shape, self.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


Result = Value | Sequence["Value | None"]


class Call:
    """One call of an ATen operator.

    op    registered name of the rule, such as "conv2d"
    args  argument name → Value, number, list of them, or None; defaults filled in
    fakes argument name → the same with torch's own stand-ins for tensors
    outs  shape and type of each output, None for an absent one
    used  which outputs anything reads
    """

    __slots__ = ("args", "fakes", "lowering", "name", "op", "outs", "used")

    def __init__(
        self,
        lowering: Lowering,
        op: str,
        name: str,
        args: dict[str, Any],
        fakes: dict[str, Any],
        outs: list[Spec | None],
        used: list[bool],
    ) -> None:
        self.lowering = lowering
        self.op = op
        self.name = name
        self.args = args
        self.fakes = fakes
        self.outs = outs
        self.used = used

    @property
    def out(self) -> Spec:
        """Shape and type of the first output."""
        if not self.outs or self.outs[0] is None:
            raise ShapeInferenceError("it gives no tensor")
        return self.outs[0]

    @property
    def x(self) -> Value:
        """The first argument, a tensor."""
        return self.tensor(next(iter(self.args)))

    def get(self, key: str, default: Any = None) -> Any:
        """An argument, or the default if it is absent or None."""
        value = self.args.get(key)
        return default if value is None else value

    def tensor(self, key: str, dtype: DType | None = None) -> Value:
        """An argument as a tensor of a type; numbers become constants."""
        value = self.args.get(key)
        if value is None:
            raise ShapeInferenceError(f"argument '{key}' is missing")
        if not isinstance(value, Value):
            return self.scalar(value, dtype or self.out[1])
        return value if dtype is None else self.cast(value, dtype)

    def optional(self, key: str) -> Value | None:
        """A tensor argument, or None."""
        value = self.args.get(key)
        return value if isinstance(value, Value) else None

    def scalar(self, value: object, dtype: DType) -> Value:
        """A constant of one element, shared by all calls that need the same."""
        return Value(f"{dtype.value}:{value}", (), dtype, const=True)

    def constant(self, shape: Shape, dtype: DType) -> Value:
        """A constant made for this call; contents carry no cost and are not kept."""
        return Value(self.lowering.fresh(f"{self.name}:const"), shape, dtype, const=True)

    def cast(self, value: Value, dtype: DType) -> Value:
        """The value at another type."""
        if value.dtype == dtype:
            return value
        return self.emit("Cast", [value], (value.shape, dtype), {"to": dtype.value})

    def emit(
        self, op: str, inputs: Sequence[Value | None], spec: Spec | None = None, attrs: Attrs | None = None
    ) -> Value:
        """Adds a node of one output, by default with the shape and type of the call's first."""
        return self.lowering.emit(op, inputs, [spec or self.out], attrs, self.name)[0]

    def emit_all(
        self, op: str, inputs: Sequence[Value | None], specs: Sequence[Spec], attrs: Attrs | None = None
    ) -> list[Value]:
        """Adds a node of several outputs."""
        return self.lowering.emit(op, inputs, specs, attrs, self.name)

    def reshape(self, value: Value, shape: Shape) -> Value:
        """The value in another shape of as many elements."""
        return value if value.shape == shape else self.emit("Reshape", [value], (shape, value.dtype))

    def transpose(self, value: Value, perm: Sequence[int]) -> Value:
        """The value with its axes permuted."""
        if list(perm) == list(range(len(perm))):
            return value
        shape = tuple(value.shape[p] for p in perm)
        return self.emit("Transpose", [value], (shape, value.dtype), {"perm": tuple(perm)})

    def unsqueeze(self, value: Value, *axes: int) -> Value:
        """The value with axes of length one put in, at their places in the result."""
        rest = iter(value.shape)
        shape = tuple(1 if i in axes else next(rest) for i in range(len(value.shape) + len(axes)))
        return self.emit("Unsqueeze", [value], (shape, value.dtype), {"axes": tuple(sorted(axes))})

    def squeeze(self, value: Value, *axes: int) -> Value:
        """The value without some of its axes of length one."""
        kept = tuple(i for i in sorted(axes) if value.shape[i] == 1)
        if not kept:
            return value
        shape = tuple(d for i, d in enumerate(value.shape) if i not in kept)
        return self.emit("Squeeze", [value], (shape, value.dtype), {"axes": kept})

    def expand(self, value: Value, shape: Shape) -> Value:
        """The value broadcast to a shape."""
        return value if value.shape == shape else self.emit("Expand", [value], (shape, value.dtype))

    def axis(self, key: str, rank: int, default: int = 0) -> int:
        """An axis argument, non-negative."""
        axis = int(self.get(key, default))
        return axis + rank if axis < 0 else axis

    def axes(self, key: str, rank: int) -> Shape:
        """An argument of one or several axes, non-negative and ascending; all axes if absent or empty."""
        given = self.get(key)
        if given is None or given == []:
            return tuple(range(rank))
        listed = [given] if isinstance(given, int) else list(given)
        return tuple(sorted(int(a) + rank if a < 0 else int(a) for a in listed))


Rule = Callable[[Call], Result]


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Registers a function as the rule of ATen operators, by `name`, `name.overload` or `namespace::name`."""

    def register(function: Rule) -> Rule:
        for op in ops:
            _registry[op] = function
        return function

    return register


def registry() -> dict[str, Rule]:
    """Every rule by operator name."""
    if not _registry:
        for module in _RULE_MODULES:
            importlib.import_module(f"frontends.{module}")
    return _registry


_DTYPES = {d.value: d for d in DType} | {
    "float8_e4m3fn": DType.FLOAT8,
    "float8_e5m2": DType.FLOAT8,
    "float8_e4m3fnuz": DType.FLOAT8,
    "float8_e5m2fnuz": DType.FLOAT8,
    "float8_e8m0fnu": DType.FLOAT8,
    "complex32": DType.COMPLEX64,
    "qint8": DType.INT8,
    "quint8": DType.UINT8,
    "qint32": DType.INT32,
}


def dtype_of(torch_dtype: object) -> DType:
    """IR type of a torch.dtype; ShapeInferenceError if there is none."""
    name = str(torch_dtype).removeprefix("torch.")
    found = _DTYPES.get(name)
    if found is None:
        raise ShapeInferenceError(f"element type {name} has no counterpart; convert the module to float32 or float16")
    return found


def numbers(value: Any, count: int) -> Shape:
    """An argument that is one number or one per axis, as one per axis."""
    listed = [value] if isinstance(value, int) else list(value)
    return tuple(int(v) for v in (listed * count if len(listed) == 1 else listed))


def broadcast(*shapes: Shape) -> Shape:
    """Broadcast of several shapes that fit."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    return tuple(next((d for d in dims if d != 1), 1) for dims in zip(*padded, strict=True))


def promoted(*dtypes: DType) -> DType:
    """Common type of operands: the widest of the highest category (bool, integer, float, complex)."""
    return max(dtypes, key=lambda d: (d.value.startswith("complex"), d.is_float, d is not DType.BOOL, d.bytes))
