"""What the ONNX lowering knows of a tensor: shape, type, and, where it is small and fixed, its content."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType

Shape = tuple[int, ...]
Spec = tuple[Shape, DType]

CONTENT_LIMIT = 8192
"""Constants of more elements than this are known by shape and type only; their content is never read."""

DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: DType.FLOAT32,
    TensorProto.DOUBLE: DType.FLOAT64,
    TensorProto.FLOAT16: DType.FLOAT16,
    TensorProto.BFLOAT16: DType.BFLOAT16,
    TensorProto.UINT8: DType.UINT8,
    TensorProto.INT8: DType.INT8,
    TensorProto.UINT16: DType.UINT16,
    TensorProto.INT16: DType.INT16,
    TensorProto.UINT32: DType.UINT32,
    TensorProto.INT32: DType.INT32,
    TensorProto.UINT64: DType.UINT64,
    TensorProto.INT64: DType.INT64,
    TensorProto.BOOL: DType.BOOL,
    TensorProto.STRING: DType.STRING,
    TensorProto.COMPLEX64: DType.COMPLEX64,
    TensorProto.COMPLEX128: DType.COMPLEX128,
    17: DType.FLOAT8,
    18: DType.FLOAT8,
    19: DType.FLOAT8,
    20: DType.FLOAT8,
    21: DType.UINT4,
    22: DType.INT4,
    23: DType.INT4,  # FLOAT4E2M1: the IR has no 4-bit float, the width is what matters
    24: DType.FLOAT8,  # FLOAT8E8M0
    25: DType.UINT4,  # UINT2 and INT2 are unpacked to 4 bits by every runtime that takes them
    26: DType.INT4,
    27: DType.FLOAT8,  # FLOAT6E2M3 and FLOAT6E3M2 are stored in bytes
    28: DType.FLOAT8,
}
"""ONNX TensorProto.DataType → IR type."""

ONNX_TYPES: dict[DType, int] = {dtype: code for code, dtype in reversed(DTYPES.items())}

NUMPY_TYPES: dict[DType, np.dtype] = {
    dtype: np.dtype(dtype.value)
    for dtype in DType
    if dtype
    not in (DType.BFLOAT16, DType.FLOAT8, DType.INT4, DType.UINT4, DType.STRING, DType.COMPLEX64, DType.COMPLEX128)
}
"""IR types whose constants can be computed with."""

_TYPED_FIELDS = {
    DType.FLOAT32: "float_data",
    DType.FLOAT64: "double_data",
    DType.INT64: "int64_data",
    DType.UINT32: "uint64_data",
    DType.UINT64: "uint64_data",
}


_MOVES = frozenset(
    (
        "Cast", "Concat", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Reshape", "Slice", "Split",
        "Squeeze", "Transpose", "Unsqueeze",
    )
)  # fmt: skip

_COUNTED = {"BatchNormalization": slice(0, 3), **dict.fromkeys(("Conv", "Gemm", "MatMul"), slice(1, None))}


class Value:
    """One tensor during lowering.

    name    tensor of the IR graph that holds it
    shape   static shape
    dtype   element type that the arithmetic sees
    const   known before run time
    stored  element type in memory, if the constant is a dequantised one, else None
    items   the elements, if this is a sequence (or optional) and not a tensor
    origins of a constant worked out here, the float constants of the file that went into it → how many elements of
            each; None for all others
    """

    __slots__ = ("_content", "_read", "const", "dtype", "items", "name", "origins", "shape", "stored")

    def __init__(
        self,
        name: str,
        shape: Shape,
        dtype: DType,
        const: bool = False,
        content: np.ndarray | None = None,
        read: Callable[[], np.ndarray | None] | None = None,
        stored: DType | None = None,
        items: list[Value] | None = None,
        origins: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.const = const
        self.stored = stored
        self.items = items
        self.origins = origins
        self._content = content
        self._read = read

    @property
    def content(self) -> np.ndarray | None:
        """The elements, or None if they are not known or too many."""
        if self._content is None and self._read is not None:
            self._content = self._read()
            self._read = None
        return self._content

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def renamed(self, name: str) -> Value:
        """The same knowledge under another tensor name."""
        return Value(
            name, self.shape, self.dtype, self.const, self._content, self._read, self.stored, self.items, self.origins
        )


def origins_of(op: str, inputs: Sequence[Value], elements: int) -> dict[str, int]:
    """Origins of a constant of so many elements that `op` makes from others.

    Arithmetic takes in every element; what only moves elements, the share that it gives out. Statistics of a
    BatchNormalization are no origins, nor is what goes into the weights of a product as data: coordinates.
    """
    held = sum(value.numel for value in inputs if value.dtype is inputs[0].dtype)
    share = min(1.0, elements / max(held, 1)) if op in _MOVES else 1.0
    found: dict[str, int] = {}
    for value in inputs[_COUNTED.get(op, slice(None))]:
        own = value.origins
        if own is None:
            counted = value.numel > 1 and (value.dtype.is_float or value.dtype.is_quantized)
            own = {value.name: value.numel} if counted else {}
        for name, count in own.items():
            before = found.get(name, 0)
            found[name] = before + count if op == "Concat" else max(before, count)
    return {name: math.ceil(count * share) for name, count in found.items()} if share < 1 else found


def dtype_of(code: int, what: str) -> DType:
    """IR type of an ONNX type code; ShapeInferenceError if there is none."""
    found = DTYPES.get(code)
    if found is None:
        raise ShapeInferenceError(f"'{what}' has element type {code}, which ONNX does not define; export it again")
    return found


def tensor_content(tensor: TensorProto) -> np.ndarray | None:
    """Elements of a small tensor stored in the model itself; None if external, too large or not numeric."""
    shape = tuple(tensor.dims)
    size = math.prod(shape)
    numpy_type = NUMPY_TYPES.get(DTYPES.get(tensor.data_type, DType.STRING))
    if numpy_type is None or size > CONTENT_LIMIT or tensor.data_location == TensorProto.EXTERNAL:
        return None
    if tensor.HasField("raw_data"):
        flat = np.frombuffer(tensor.raw_data, dtype=numpy_type.newbyteorder("<"))
    else:
        held = getattr(tensor, _TYPED_FIELDS.get(DTYPES[tensor.data_type], "int32_data"))
        if numpy_type == np.float16:
            flat = np.array(held, dtype=np.uint16).view(np.float16)
        else:
            flat = np.array(held).astype(numpy_type)
    if flat.size != size:
        return None
    return flat.reshape(shape)


def tensor_value(name: str, tensor: TensorProto) -> Value:
    """The value of an initializer or Constant; its content is decoded when first asked for."""
    return Value(
        name,
        tuple(tensor.dims),
        dtype_of(tensor.data_type, name),
        const=True,
        read=lambda: tensor_content(tensor),
    )


def known(name: str, content: np.ndarray) -> Value:
    """The value of a computed constant, under its IR type."""
    return Value(name, content.shape, DType(content.dtype.name), const=True, content=content)


def external_content(tensor: TensorProto, folder: Path) -> np.ndarray | None:
    """Elements of a small tensor kept in a file beside the model; None if it is not there, large or not numeric."""
    shape = tuple(tensor.dims)
    numpy_type = NUMPY_TYPES.get(DTYPES.get(tensor.data_type, DType.STRING))
    size = math.prod(shape)
    if numpy_type is None or size > CONTENT_LIMIT:
        return None
    where = {entry.key: entry.value for entry in tensor.external_data}
    path = (folder / where.get("location", "")).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            file.seek(int(where.get("offset", 0)))
            raw = file.read(size * numpy_type.itemsize)
    except (OSError, ValueError):
        return None
    if len(raw) != size * numpy_type.itemsize:
        return None
    return np.frombuffer(raw, dtype=numpy_type.newbyteorder("<")).reshape(shape)
