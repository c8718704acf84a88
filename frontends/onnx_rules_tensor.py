"""Rules of operators that make, reshape and move tensors."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import (
    Attrs,
    Call,
    ContentNeeded,
    Lowered,
    Result,
    as_dtype,
    axes_of,
    axis_of,
    broadcast,
    rule,
)
from frontends.onnx_values import CONTENT_LIMIT, NUMPY_TYPES, Shape, Value, dtype_of, known


@rule("Constant")
def _constant(c: Call) -> Lowered:
    name = c.outputs[0]
    for key, value in c.attrs.items():
        if key == "value":
            return [c.lowering.constant(name, value)]
        if key == "sparse_value":
            return [Value(name, tuple(value.dims), dtype_of(value.values.data_type, name), const=True)]
        if key in ("value_float", "value_floats"):
            return [known(name, np.array(value, dtype=np.float32))]
        if key in ("value_int", "value_ints"):
            return [known(name, np.array(value, dtype=np.int64))]
        if key in ("value_string", "value_strings"):
            return [Value(name, () if key == "value_string" else (len(value),), DType.STRING, const=True)]
    raise ShapeInferenceError("it has no value")


@rule("ConstantOfShape")
def _constant_of_shape(c: Call) -> Lowered:
    shape = c.ints(0)
    fill: TensorProto | None = c.attrs.get("value")
    dtype = DType.FLOAT32 if fill is None else dtype_of(fill.data_type, c.name)
    value = Value(c.outputs[0], shape, dtype, const=True)
    if dtype in NUMPY_TYPES and math.prod(shape) <= CONTENT_LIMIT:
        content = None if fill is None else c.lowering.constant("", fill).content
        item = 0 if content is None else content.reshape(-1)[0]
        value = Value(c.outputs[0], shape, dtype, const=True, content=np.full(shape, item, dtype=NUMPY_TYPES[dtype]))
    return [value]


@rule("EyeLike")
def _eye_like(c: Call) -> Lowered:
    x = c.need(0)
    dtype = as_dtype(c, "dtype", x.dtype)
    content = None
    if dtype in NUMPY_TYPES and x.numel <= CONTENT_LIMIT:
        content = np.eye(x.shape[0], x.shape[1], k=c.attrs.get("k", 0), dtype=NUMPY_TYPES[dtype])
    return [Value(c.outputs[0], x.shape, dtype, const=True, content=content)]


@rule("Range")
def _range(c: Call) -> Lowered:
    start, limit, delta = (c.content(i).reshape(-1)[0].item() for i in range(3))
    count = max(math.ceil((limit - start) / delta), 0)
    dtype = c.need(0).dtype
    content = None
    if count <= CONTENT_LIMIT:
        content = (start + delta * np.arange(count)).astype(NUMPY_TYPES[dtype])
    return [Value(c.outputs[0], (count,), dtype, const=True, content=content, origins={})]


@rule("HannWindow", "HammingWindow", "BlackmanWindow")
def _window(c: Call) -> Lowered:
    return Result([(c.ints(0)[:1], as_dtype(c, "output_datatype", DType.FLOAT32))], None, [c.need(0)])


@rule("MelWeightMatrix")
def _mel_weights(c: Call) -> Lowered:
    bins, points = c.ints(0)[0], c.ints(1)[0]
    return Result([((points // 2 + 1, bins), as_dtype(c, "output_datatype", DType.FLOAT32))], None, list(c.inputs))


@rule("Reshape")
def _reshape(c: Call) -> Lowered:
    x = c.need(0)
    target = c.attrs.get("shape") if len(c.inputs) < 2 else None
    dims = list(target) if target is not None else list(c.ints(1))
    zero_copies = not c.attrs.get("allowzero")
    shape = _resolve_shape(x.shape, dims, zero_copies)
    batches = c.lowering.rebatch
    if batches and (target is not None or c.need(1).name in c.lowering.baked):
        shape = _rebatched(x.shape, dims, shape, zero_copies, *batches)
    if shape is None or math.prod(shape) != x.numel:
        raise ShapeInferenceError(f"{x.shape} cannot be reshaped to {tuple(dims)}")
    return [x] if shape == x.shape else Result([(shape, x.dtype)], None, [x])


def _resolve_shape(shape: Shape, dims: list[int], zero_copies: bool) -> Shape | None:
    """The target with 0 (copy) and -1 (the rest) filled in; None if there is no such shape."""
    out = [shape[i] if d == 0 and zero_copies and i < len(shape) else d for i, d in enumerate(dims)]
    if -1 in out:
        i = out.index(-1)
        rest = math.prod(out[:i]) * math.prod(out[i + 1 :])
        if rest:
            out[i] = math.prod(shape) // rest
        elif math.prod(shape) == 0:
            out[i] = 0
    return tuple(out) if all(d >= 0 for d in out) else None


def _rebatched(
    shape: Shape, dims: list[int], found: Shape | None, zero_copies: bool, old: int, new: int
) -> Shape | None:
    """The target with a batch size of the exported model replaced, where that makes it fit."""
    size = math.prod(shape)
    fits = found is not None and math.prod(found) == size
    ambiguous = -1 in dims[1:] and dims[0] == old and bool(shape) and shape[0] == new
    if not dims or dims[0] <= 0 or (fits and not ambiguous):
        return found
    if dims[0] * new % old:
        return found
    again = _resolve_shape(shape, [dims[0] * new // old, *dims[1:]], zero_copies)
    return again if again is not None and math.prod(again) == size else found


@rule("Flatten")
def _flatten(c: Call) -> Lowered:
    x = c.need(0)
    axis = c.attrs.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    if not 0 <= axis <= len(x.shape):
        raise ShapeInferenceError(f"axis {axis} is outside rank {len(x.shape)}")
    shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return [x] if shape == x.shape else Result([(shape, x.dtype)], {"axis": axis}, [x])


@rule("Squeeze")
def _squeeze(c: Call) -> Lowered:
    x = c.need(0)
    given = c.ints_or(1, "axes")
    axes = tuple(i for i, d in enumerate(x.shape) if d == 1) if given is None else axes_of(given, len(x.shape))
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeInferenceError(f"axes {axes} of {x.shape} cannot be squeezed")
    shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return Result([(shape, x.dtype)], {"axes": axes}, [x]) if axes else [x]


@rule("Unsqueeze")
def _unsqueeze(c: Call) -> Lowered:
    x = c.need(0)
    given = c.ints_or(1, "axes") or ()
    rank = len(x.shape) + len(given)
    axes = axes_of(given, rank)
    rest = iter(x.shape)
    shape = tuple(1 if i in axes else next(rest) for i in range(rank))
    return Result([(shape, x.dtype)], {"axes": axes}, [x]) if axes else [x]


@rule("Transpose")
def _transpose(c: Call) -> Lowered:
    x = c.need(0)
    rank = len(x.shape)
    perm = tuple(axis_of(p, rank) for p in c.attrs.get("perm", range(rank - 1, -1, -1)))
    if sorted(perm) != list(range(rank)):
        raise ShapeInferenceError(f"perm {perm} does not fit {x.shape}")
    if perm == tuple(range(rank)):
        return [x]
    return Result([(tuple(x.shape[p] for p in perm), x.dtype)], {"perm": perm}, [x])


@rule("Concat")
def _concat(c: Call) -> Lowered:
    values = [c.need(i) for i in range(len(c.inputs))]
    if not values:
        raise ShapeInferenceError("it has no inputs")
    first = values[0].shape
    axis = axis_of(c.attrs.get("axis", 1), len(first))
    if len(values) == 1:
        return list(values)
    shape = list(first)
    shape[axis] = 0
    for value in values:
        for i, dim in enumerate(value.shape):
            if i == axis:
                shape[i] += dim
            elif len(value.shape) != len(first) or not _agree(c, values, shape, i, dim):
                shapes = ", ".join(str(v.shape) for v in values)
                raise ShapeInferenceError(f"{shapes} do not concatenate on axis {axis}")
    return Result([(tuple(shape), values[0].dtype)], {"axis": axis}, values)


def _agree(c: Call, values: list[Value], shape: list[int], axis: int, dim: int) -> bool:
    """Whether an operand's dimension fits; a constant of the exported batch is repeated for the batch asked for."""
    if dim == shape[axis]:
        return True
    if c.lowering.rebatch and axis == 0 and {dim, shape[0]} == set(c.lowering.rebatch):
        shape[0] = c.lowering.rebatch[1]
        return True
    return False


@rule("Split")
def _split(c: Call) -> Lowered:
    x = c.need(0)
    axis = axis_of(c.attrs.get("axis", 0), len(x.shape))
    size, count = x.shape[axis], len(c.outputs)
    parts = c.ints_or(1, "split")
    if parts is None:
        chunk = math.ceil(size / count)
        parts = tuple(max(min(chunk, size - i * chunk), 0) for i in range(count))
    if sum(parts) != size or len(parts) < count:
        raise ShapeInferenceError(f"axis {axis} of {x.shape} cannot be split into {parts}")
    if len(parts) == 1:
        return [x]
    specs = [((*x.shape[:axis], part, *x.shape[axis + 1 :]), x.dtype) for part in parts[:count]]
    return Result(specs, {"axis": axis, "split": parts}, [x])


@rule("Slice")
def _slice(c: Call) -> Lowered:
    """Bounds are clamped to the shape, and axes that are taken whole are left out."""
    x = c.need(0)
    rank = len(x.shape)
    starts, ends = c.ints_or(1, "starts"), c.ints_or(2, "ends")
    if starts is None or ends is None:
        raise ShapeInferenceError("starts or ends are missing")
    axes = c.ints_or(3, "axes") or tuple(range(len(starts)))
    steps = (c.ints(4) if c.get(4) is not None else None) or (1,) * len(starts)
    shape, cuts = list(x.shape), []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=False):
        axis = axis_of(axis, rank)
        dim = x.shape[axis]
        start, end, length = _clamped(start, end, step, dim)
        shape[axis] = length
        if not (step == 1 and start == 0 and length == dim):
            cuts.append((axis, start, end, step))
    if not cuts:
        return [x]
    cuts.sort()
    attrs: Attrs = {
        "axes": tuple(k[0] for k in cuts),
        "starts": tuple(k[1] for k in cuts),
        "ends": tuple(k[2] for k in cuts),
        "steps": tuple(k[3] for k in cuts),
    }
    return Result([(tuple(shape), x.dtype)], attrs, [x])


def _clamped(start: int, end: int, step: int, dim: int) -> tuple[int, int, int]:
    """Start and end inside the axis, and the number of elements taken."""
    if step == 0:
        raise ShapeInferenceError("a step is zero")
    start, end = (start + dim if start < 0 else start), (end + dim if end < 0 else end)
    if step > 0:
        start, end = min(max(start, 0), dim), min(max(end, 0), dim)
        return start, max(end, start), max(-(-(end - start) // step), 0)
    start, end = min(max(start, 0), dim - 1), min(max(end, -1), dim - 1)
    return start, end, max(-(-(end - start) // step), 0)


@rule("Expand")
def _expand(c: Call) -> Lowered:
    x = c.need(0)
    shape = broadcast(x.shape, c.ints(1))
    return [x] if shape == x.shape else Result([(shape, x.dtype)], None, [x])


@rule("Tile")
def _tile(c: Call) -> Lowered:
    x = c.need(0)
    repeats = c.ints(1)
    if len(repeats) != len(x.shape):
        raise ShapeInferenceError(f"repeats {repeats} do not fit {x.shape}")
    if all(r == 1 for r in repeats):
        return [x]
    return Result([(tuple(d * r for d, r in zip(x.shape, repeats, strict=False)), x.dtype)], {"repeats": repeats}, [x])


@rule("Trilu")
def _trilu(c: Call) -> Lowered:
    x = c.need(0)
    shift = c.get(1)
    if shift is not None and shift.content is None:
        raise ContentNeeded(f"its diagonal depends on the content of '{shift.name}'")
    k = 0 if shift is None else c.ints(1)[0]
    return Result([(x.shape, x.dtype)], {"upper": int(c.attrs.get("upper", 1)), "k": k}, [x])


@rule("ReverseSequence")
def _reverse_sequence(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"batch_axis": c.attrs.get("batch_axis", 1), "time_axis": c.attrs.get("time_axis", 0)}
    return Result([(x.shape, x.dtype)], attrs, [x, c.need(1)])


@rule("TensorScatter")
def _tensor_scatter(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"axis": axis_of(c.attrs.get("axis", -2), len(x.shape)), "mode": c.attrs.get("mode", "linear")}
    return Result([(x.shape, x.dtype)], attrs, list(c.inputs))
