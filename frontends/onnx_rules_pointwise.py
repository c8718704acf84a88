"""Rules of element-wise operators, casts and reductions."""

from __future__ import annotations

import numpy as np

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import Attrs, Call, Lowered, Result, as_dtype, axes_of, axis_of, broadcast, rule, same
from frontends.onnx_values import Shape, Value

_DEFAULTS: dict[str, Attrs] = {
    "LeakyRelu": {"alpha": 0.01},
    "Elu": {"alpha": 1.0},
    "Selu": {"alpha": 1.67326, "gamma": 1.0507},
    "Celu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "ThresholdedRelu": {"alpha": 1.0},
    "Shrink": {"bias": 0.0, "lambd": 0.5},
    "Gelu": {"approximate": "none"},
    "Swish": {"alpha": 1.0},
}


_PLAIN = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Cos Cosh Erf Exp Floor HardSwish Log Mish Neg Not Reciprocal"
    " Relu Round Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Tan Tanh"
)


@rule(*_PLAIN.split())
def _unary(c: Call) -> Lowered:
    return same(c)


@rule(*_DEFAULTS)
def _unary_with_attrs(c: Call) -> Lowered:
    return same(c, {key: c.attrs.get(key, default) for key, default in _DEFAULTS[c.op].items()})


@rule("IsInf", "IsNaN")
def _test(c: Call) -> Lowered:
    x = c.need(0)
    return Result([(x.shape, DType.BOOL)], None, [x])


@rule("Identity")
def _identity(c: Call) -> Lowered:
    value = c.get(0)
    if value is None:
        raise ShapeInferenceError("input 0 is missing")
    return [value]


@rule("Dropout")
def _dropout(c: Call) -> Lowered:
    x = c.need(0)
    mask = Value(f"{c.name}:mask", x.shape, DType.BOOL, const=True)
    return [x, mask][: max(len(c.outputs), 1)]


@rule("Cast", "CastLike", "BitCast")
def _cast(c: Call) -> Lowered:
    x = c.need(0)
    target = c.need(1).dtype if c.op == "CastLike" else as_dtype(c, "to", x.dtype)
    if target == x.dtype:
        return [x]
    shape = x.shape
    if c.op == "BitCast" and target.bytes != x.dtype.bytes:
        ratio = x.dtype.bytes / target.bytes
        shape = (*shape, int(ratio)) if ratio > 1 else shape[:-1]
    return Result([(shape, target)], {"to": target.value}, [x], "Cast" if c.op == "CastLike" else c.op)


def _legacy_axis(c: Call) -> list[Value]:
    """Both operands; before opset 7 the second may be aligned to an axis of the first."""
    a, b = c.need(0), c.need(1)
    if c.version < 7 and "axis" in c.attrs and len(b.shape) < len(a.shape):
        axis = axis_of(c.attrs["axis"], len(a.shape))
        shape = b.shape + (1,) * (len(a.shape) - axis - len(b.shape))
        b = c.lowering.emit("Reshape", [b], [(shape, b.dtype)])[0]
    return [a, b]


@rule("Add", "Sub", "Mul", "Div", "Pow", "Mod", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
def _binary(c: Call) -> Lowered:
    a, b = _legacy_axis(c)
    attrs: Attrs = {}
    if c.op == "Mod" and c.attrs.get("fmod"):
        attrs["fmod"] = 1
    elif c.op == "BitShift":
        attrs["direction"] = c.attrs.get("direction", "LEFT")
    return Result([(a.shape if a.shape == b.shape else broadcast(a.shape, b.shape), a.dtype)], attrs, [a, b])


@rule("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor")
def _compare(c: Call) -> Lowered:
    a, b = _legacy_axis(c)
    return Result([(broadcast(a.shape, b.shape), DType.BOOL)], None, [a, b])


@rule("PRelu")
def _prelu(c: Call) -> Lowered:
    x, slope = c.need(0), c.need(1)
    return Result([(x.shape, x.dtype)], None, [x, slope])


@rule("Where")
def _where(c: Call) -> Lowered:
    test, a, b = c.need(0), c.need(1), c.need(2)
    return Result([(broadcast(test.shape, a.shape, b.shape), a.dtype)], None, [test, a, b])


@rule("Sum", "Max", "Min", "Mean")
def _variadic(c: Call) -> Lowered:
    values = [c.need(i) for i in range(len(c.inputs))]
    if not values:
        raise ShapeInferenceError("it has no inputs")
    if len(values) == 1:
        return values
    op = "Add" if c.op == "Sum" and len(values) == 2 else c.op
    return Result([(broadcast(*(v.shape for v in values)), values[0].dtype)], None, values, op)


@rule("Clip")
def _clip(c: Call) -> Lowered:
    """Bounds become the attributes min and max; a bound known at run time only stays an input."""
    x = c.need(0)
    attrs: Attrs = {}
    kept: list[Value | None] = [x]
    for i, key in ((1, "min"), (2, "max")):
        bound = c.get(i)
        if bound is None:
            if key in c.attrs:
                attrs[key] = float(c.attrs[key])
        elif not bound.const:
            kept += [None] * (i - len(kept)) + [bound]
        elif bound.content is not None:
            attrs[key] = float(bound.content.reshape(-1)[0])
    for key, infinite in (("min", -3.4e38), ("max", 3.4e38)):
        value = attrs.get(key)
        if isinstance(value, float) and abs(value) >= abs(infinite):
            del attrs[key]
    return Result([(x.shape, x.dtype)], attrs, kept)


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)


def reduced(shape: Shape, axes: Shape, keepdims: int) -> Shape:
    """Shape after reducing the axes."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


@rule(*_REDUCTIONS.split())
def _reduce(c: Call) -> Lowered:
    x = c.need(0)
    given = c.ints_or(1, "axes")
    if not given:
        if c.attrs.get("noop_with_empty_axes"):
            return [x]
        given = tuple(range(len(x.shape)))
    axes = axes_of(given, len(x.shape))
    keepdims = int(c.attrs.get("keepdims", 1))
    return Result([(reduced(x.shape, axes, keepdims), x.dtype)], {"axes": axes, "keepdims": keepdims}, [x])


@rule("ArgMax", "ArgMin")
def _arg_reduce(c: Call) -> Lowered:
    x = c.need(0)
    axis, keepdims = axis_of(c.attrs.get("axis", 0), len(x.shape)), int(c.attrs.get("keepdims", 1))
    return Result([(reduced(x.shape, (axis,), keepdims), DType.INT64)], {"axis": axis, "keepdims": keepdims}, [x])


@rule("CumSum", "CumProd")
def _cumulate(c: Call) -> Lowered:
    x = c.need(0)
    attrs: Attrs = {"exclusive": int(c.attrs.get("exclusive", 0)), "reverse": int(c.attrs.get("reverse", 0))}
    axis = c.get(1)
    if axis is not None and axis.content is not None:
        attrs["axis"] = axis_of(int(axis.content.reshape(-1)[0]), len(x.shape))
        return Result([(x.shape, x.dtype)], attrs, [x])
    return Result([(x.shape, x.dtype)], attrs, [x, axis])


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(c: Call) -> Lowered:
    """Before opset 13 the axes from `axis` on were flattened; `flatten` marks calls where that differs."""
    x = c.need(0)
    rank = len(x.shape)
    axis = axis_of(c.attrs.get("axis", 1 if c.version < 13 else -1), rank)
    attrs: Attrs = {"axis": axis}
    if c.version < 13:
        wide = [i for i in range(axis, rank) if x.shape[i] != 1]
        if len(wide) > 1:
            attrs["flatten"] = 1
        elif wide:
            attrs["axis"] = wide[0]
    return same(c, attrs)


@rule("Bernoulli", "RandomNormalLike", "RandomUniformLike")
def _random_like(c: Call) -> Lowered:
    x = c.need(0)
    return Result([(x.shape, as_dtype(c, "dtype", x.dtype))], None, [x])


@rule("RandomNormal", "RandomUniform")
def _random(c: Call) -> Lowered:
    return Result([(tuple(c.attrs.get("shape", ())), as_dtype(c, "dtype", DType.FLOAT32))], None, [])


@rule("Shape")
def _shape(c: Call) -> Lowered:
    value = c.get(0)
    if value is None or value.items is not None:
        raise ShapeInferenceError("input 0 is not a tensor")
    dims = np.array(value.shape[c.attrs.get("start", 0) : c.attrs.get("end", None)], dtype=np.int64)
    return [Value(c.outputs[0], dims.shape, DType.INT64, const=True, content=dims)]


@rule("Size")
def _size(c: Call) -> Lowered:
    return [Value(c.outputs[0], (), DType.INT64, const=True, content=np.array(c.need(0).numel, dtype=np.int64))]
