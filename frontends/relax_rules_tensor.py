"""Rules of Relax operators that make, reshape, move and select data."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from costmodel.errors import InputError, ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import Result, axis_of
from frontends.onnx_values import CONTENT_LIMIT, NUMPY_TYPES, Shape, Value, known
from frontends.relax_rules import Operands, ints, number, rule
from frontends.relax_types import dtype_of

if TYPE_CHECKING:
    from frontends.relax_lower import RelaxLowering

STACK = "relax.stack"
"""Placeholder of a stack: `relax_compose` makes it Unsqueeze and Concat, or with a reduction Sum and the like."""


@rule("reshape", "memory.view")
def _reshape(o: Operands) -> Value:
    return o.apply("Reshape", [o[0], ints(o.ints(1))], allowzero=1)


@rule("flatten")
def _flatten(o: Operands) -> Value:
    return o.apply("Reshape", [o[0], ints((o[0].numel,))])


@rule("nn.batch_flatten")
def _batch_flatten(o: Operands) -> Value:
    return o.apply("Flatten", [o[0]], axis=1)


@rule("squeeze")
def _squeeze(o: Operands) -> Value:
    axes = o.attr("axis")
    return o.apply("Squeeze", [o[0]], **({} if axes is None else {"axes": axes}))


@rule("expand_dims")
def _expand_dims(o: Operands) -> Value:
    return o.apply("Unsqueeze", [o[0]], axes=o.attr("axis"))


@rule("permute_dims")
def _permute(o: Operands) -> Value:
    x, axes = o[0], o.attr("axes")
    perm = tuple(range(len(x.shape)))[::-1] if axes is None else tuple(int(a) % len(x.shape) for a in axes)
    return transpose(o.low, x, perm)


def transpose(low: RelaxLowering, x: Value, perm: Shape) -> Value:
    """x with its axes permuted; a transposed constant matrix is remembered for Gemm's transB."""
    found: Value = low.apply("Transpose", [x], {"perm": perm})[0]
    if x.const and len(x.shape) == 2 and found is not x:
        found.name = f"{x.name}.T"
        low.transposed[found.name] = x
    return found


@rule("broadcast_to")
def _broadcast(o: Operands) -> Value:
    return spread(o.low, o[0], o.ints(1))


def spread(low: RelaxLowering, x: Value, shape: Shape) -> Value:
    """x repeated to a shape; a constant of one element becomes a filled tensor, a weight of its own."""
    if x.const and x.numel == 1 and math.prod(shape) > 1:
        value = None if x.content is None else float(x.content.reshape(-1)[0])
        return filled(low, shape, x.dtype, value)
    return low.apply("Expand", [x, ints(shape)])[0]


@rule("concat")
def _concat(o: Operands) -> Value:
    values = [v for v in o.args[0] if v.numel or len(o.args[0]) == 1]
    axis = o.attr("axis")
    if axis is None:
        values, axis = [o.apply("Reshape", [v, ints((v.numel,))]) for v in values], 0
    return o.apply("Concat", values, axis=axis)


@rule("stack")
def _stack(o: Operands) -> Value:
    values = list(o.args[0])
    axis = axis_of(int(o.attr("axis") or 0), len(values[0].shape) + 1)
    shape = (*values[0].shape[:axis], len(values), *values[0].shape[axis:])
    return o.low.keep(Result([(shape, values[0].dtype)], {"axis": axis}, values, STACK))[0]


@rule("split")
def _split(o: Operands) -> list[Value]:
    x, axis = o[0], axis_of(int(o.attr("axis", 0)), len(o[0].shape))
    where = o.attr("indices_or_sections")
    size = x.shape[axis]
    if isinstance(where, tuple):
        bounds = [0, *(min(int(i), size) for i in where), size]
        parts = tuple(b - a for a, b in itertools.pairwise(bounds))
    else:
        chunk = math.ceil(size / int(where))
        parts = tuple(max(min(chunk, size - i * chunk), 0) for i in range(int(where)))
    return o.low.apply("Split", [x, ints(parts)], {"axis": axis}, outputs=len(parts))


@rule("strided_slice")
def _strided_slice(o: Operands) -> Value:
    axes, begin, end = o.ints(1), o.ints(2), o.ints(3)
    steps = o.ints(4) if len(o.args) > 4 and o.args[4] is not None else (1,) * len(axes)
    return o.apply("Slice", [o[0], ints(begin), ints(end), ints(axes), ints(steps)])


@rule("dynamic_strided_slice")
def _dynamic_slice(o: Operands) -> Value:
    axes = tuple(range(len(o[0].shape)))
    return o.apply("Slice", [o[0], ints(o.ints(1)), ints(o.ints(2)), ints(axes), ints(o.ints(3))])


@rule("slice_scatter")
def _slice_scatter(o: Operands) -> Value:
    x, source = o[0], o[1]
    return o.low.keep(Result([(x.shape, x.dtype)], {"reduction": "none"}, [x, ints((0,)), source], "ScatterND"))[0]


@rule("flip")
def _flip(o: Operands) -> Value:
    axis = int(o.attr("axis", 0))
    return o.apply("Slice", [o[0], ints((-1,)), ints((-(2**31),)), ints((axis,)), ints((-1,))])


@rule("reverse_sequence")
def _reverse_sequence(o: Operands) -> Value:
    return o.apply("ReverseSequence", [o[0], o[1]], time_axis=o.attr("seq_axis", 1), batch_axis=o.attr("batch_axis", 0))


@rule("tile")
def _tile(o: Operands) -> Value:
    x, repeats = o[0], tuple(o.attr("repeats"))
    rank = max(len(repeats), len(x.shape))
    if len(x.shape) < rank:
        x = o.apply("Reshape", [x, ints((1,) * (rank - len(x.shape)) + x.shape)])
    return o.apply("Tile", [x, ints((1,) * (rank - len(repeats)) + repeats)])


@rule("repeat")
def _repeat(o: Operands) -> Value:
    x, axis = o[0], o.attr("axis")
    if axis is None:
        x, axis = o.apply("Reshape", [x, ints((x.numel,))]), 0
    counts = [1] * len(x.shape)
    counts[int(axis)] = int(o.attr("repeats"))
    return o.apply("Tile", [x, ints(counts)])


@rule("nn.pad")
def _pad(o: Operands) -> Value:
    width = tuple(o.attr("pad_width"))
    mode = str(o.attr("pad_mode", "constant"))
    value = number(o.attr("pad_value", 0.0), o[0].dtype)
    modes = {"replicate": "edge", "circular": "wrap"}
    return o.apply("Pad", [o[0], ints(width[::2] + width[1::2]), value], mode=modes.get(mode, mode))


@rule("take")
def _take(o: Operands) -> Value:
    x, axis = o[0], o.attr("axis")
    if axis is None:
        x, axis = o.apply("Reshape", [x, ints((x.numel,))]), 0
    return o.apply("Gather", [x, o[1]], axis=axis)


@rule("gather_elements")
def _gather_elements(o: Operands) -> Value:
    return o.apply("GatherElements", [o[0], o[1]], axis=o.attr("axis", 0))


@rule("gather_nd")
def _gather_nd(o: Operands) -> Value:
    return o.apply("GatherND", [o[0], o[1]], batch_dims=o.attr("batch_dims", 0))


_REDUCTIONS = {"update": "none", "multiply": "mul"}


@rule("scatter_elements")
def _scatter_elements(o: Operands) -> Value:
    how = str(o.attr("reduction", "update"))
    return o.apply("ScatterElements", [o[0], o[1], o[2]], axis=o.attr("axis", 0), reduction=_REDUCTIONS.get(how, how))


@rule("scatter_nd")
def _scatter_nd(o: Operands) -> Value:
    how = str(o.attr("reduction", "update"))
    return o.apply("ScatterND", [o[0], o[1], o[2]], reduction=_REDUCTIONS.get(how, how))


@rule("one_hot")
def _one_hot(o: Operands) -> Value:
    values = known("on_off", np.zeros(2, dtype=NUMPY_TYPES.get(o.specs()[0][1], np.float32)))
    return o.apply("OneHot", [o[0], ints(int(o.attr("depth"))), values], axis=o.attr("axis", -1))


@rule("topk")
def _top_k(o: Operands) -> Value | list[Value]:
    attrs = {"axis": o.attr("axis", -1), "largest": int(bool(o.attr("largest", True)))}
    found = o.low.apply("TopK", [o[0], ints((int(o.attr("k", 1)),))], attrs, outputs=2)
    which = str(o.attr("ret_type", "both"))
    return found if which == "both" else found[0] if which == "values" else found[1]


@rule("sort", "argsort")
def _sort(o: Operands) -> Value:
    axis = axis_of(int(o.attr("axis", -1)), len(o[0].shape))
    attrs = {"axis": axis, "largest": int(bool(o.attr("descending", False)))}
    found = o.low.apply("TopK", [o[0], ints((o[0].shape[axis],))], attrs, outputs=2)
    return found[0 if o.op == "relax.sort" else 1]


@rule("tril", "triu")
def _triangle(o: Operands) -> Value:
    k = o.ints(1)[0] if len(o.args) > 1 else 0
    return o.apply("Trilu", [o[0], ints(k)], upper=int(o.op == "relax.triu"))


@rule("nonzero")
def _nonzero(o: Operands) -> Value:
    return o.apply("NonZero", [o[0]])


# Constants


def filled(low: RelaxLowering, shape: Shape, dtype: DType, value: float | None) -> Value:
    """A constant tensor, its content known where it is small."""
    content = None
    if value is not None and dtype in NUMPY_TYPES and math.prod(shape) <= CONTENT_LIMIT:
        content = np.full(shape, value, dtype=NUMPY_TYPES[dtype])
    return Value(f"{low.label}.filled{len(low.nodes)}", shape, dtype, const=True, content=content)


@rule("full", "zeros", "ones", "full_like", "zeros_like", "ones_like")
def _full(o: Operands) -> Value:
    like = o.op.endswith("_like")
    shape = o[0].shape if like else o.ints(0)
    named = o.attr("dtype")
    dtype = dtype_of(named) if named not in (None, "", "void") else o[0].dtype if like else o.specs()[0][1]
    fill: float | None = 1.0 if "ones" in o.op else 0.0
    if "full" in o.op:
        fill = None if o[1].content is None else float(o[1].content.reshape(-1)[0])
    return filled(o.low, shape, dtype, fill)


@rule("arange")
def _arange(o: Operands) -> Value:
    start, end, step = (float(o.ints(i)[0]) if isinstance(v, Value) else v for i, v in enumerate(o.args[:3]))
    count = max(math.ceil((end - start) / step), 0)
    dtype = dtype_of(o.attr("dtype"))
    content = (start + step * np.arange(count)).astype(NUMPY_TYPES[dtype]) if count <= CONTENT_LIMIT else None
    return Value(f"{o.low.label}.range", (count,), dtype, const=True, content=content)


@rule("eye", "eye_like", "hamming_window")
def _made(o: Operands) -> Value:
    shape, dtype = o.specs()[0]
    return filled(o.low, shape, dtype, None)


# Shapes, devices and markers


@rule("shape_of")
def _shape_of(o: Operands) -> Shape:
    return o[0].shape


@rule("shape_to_tensor")
def _shape_to_tensor(o: Operands) -> Value:
    return ints(o.ints(0), "shape")


@rule("tensor_to_shape")
def _tensor_to_shape(o: Operands) -> Shape:
    return o.ints(0)


@rule("size")
def _size(o: Operands) -> Value:
    return ints(o[0].numel, "size")


@rule(
    "builtin.stop_lift_params", "memory.ensure_zero_offset", "to_vdevice", "hint_on_device", "dist.annotate_sharding",
    "dist.redistribute", "grad.no_grad", "grad.start_checkpoint", "grad.end_checkpoint", "collapse_sum_like",
)  # fmt: skip
def _same(o: Operands) -> Value:
    return o[0]


@rule("assert_op", "print")
def _nothing(o: Operands) -> list[Value]:
    return []


@rule("null_value")
def _null(o: Operands) -> None:
    return None


@rule(
    "vm.alloc_storage", "vm.alloc_tensor", "memory.alloc_storage", "memory.alloc_tensor", "builtin.alloc_tensor",
    "vm.kill_object", "memory.kill_tensor", "memory.kill_storage",
)  # fmt: skip
def _lowered(o: Operands) -> None:
    raise InputError(f"the module is lowered for the virtual machine ({o.op}); give it as it is before relax.build")


@rule("meshgrid")
def _meshgrid(o: Operands) -> list[Value]:
    vectors = list(o.args[0])
    shape = tuple(v.numel for v in vectors)
    if str(o.attr("indexing", "ij")) != "ij" and len(shape) > 1:
        raise ShapeInferenceError("only the indexing 'ij' is known; use it")
    found = []
    for i, vector in enumerate(vectors):
        lifted = (1,) * i + (vector.numel,) + (1,) * (len(shape) - i - 1)
        found.append(o.apply("Expand", [o.apply("Reshape", [vector, ints(lifted)]), ints(shape)]))
    return found
