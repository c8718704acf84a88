"""Converters of Relay's element-wise and broadcasting operators, constants, reductions and sorting."""

from __future__ import annotations

import math

from costmodel.ir import AttrValue, DType
from frontends.relay_ast import TensorType, TupleType, words
from frontends.relay_ops import OpCall, Value, aligned, converter, elementwise, ir_axis, unary
from frontends.relay_raw import Tensor, TensorVal, constant, to_dtype
from frontends.relay_relations_pointwise import reduced_axes

PASSED = words(
    """copy identity on_device device_copy memory.device_copy stop_fusion annotation.stop_fusion
    annotation.cast_hint annotation.compiler_begin annotation.compiler_end annotation.checkpoint
    annotation.simulated_quantize relay.op.annotation.simulated_quantize nn.dropout_raw"""
)

UNARY = {
    "negative": "Neg", "abs": "Abs", "ceil": "Ceil", "floor": "Floor", "round": "Round", "trunc": "Floor",
    "sign": "Sign", "exp": "Exp", "log": "Log", "log2": "Log", "log10": "Log", "sqrt": "Sqrt", "erf": "Erf",
    "sin": "Sin", "cos": "Cos",
    "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan", "sinh": "Sinh", "cosh": "Cosh", "tanh": "Tanh",
    "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh", "sigmoid": "Sigmoid", "logical_not": "Not",
    "bitwise_not": "BitwiseNot", "fast_exp": "Exp", "fast_tanh": "Tanh", "fast_erf": "Erf", "nn.relu": "Relu",
    "nn.mish": "Mish", "nn.gelu": "Gelu", "nn.silu": "Swish", "isnan": "IsNaN", "isinf": "IsInf", "isfinite": "IsInf",
    "qnn.relu": "Relu", "qnn.tanh": "Tanh", "qnn.sigmoid": "Sigmoid", "qnn.hardswish": "HardSwish", "qnn.erf": "Erf",
    "qnn.exp": "Exp", "qnn.sqrt": "Sqrt", "qnn.log": "Log", "qnn.abs": "Abs", "qnn.rsqrt": "Sqrt",
}  # fmt: skip
UNARY_ATTRS: dict[str, dict[str, AttrValue]] = {"Gelu": {"approximate": "none"}, "Swish": {"alpha": 1.0}}

BINARY = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "floor_divide": "Div", "trunc_divide": "Div",
    "power": "Pow", "mod": "Mod", "floor_mod": "Mod", "trunc_mod": "Mod", "maximum": "Max", "minimum": "Min",
    "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor", "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "equal": "Equal", "less": "Less",
    "less_equal": "LessOrEqual", "greater": "Greater", "greater_equal": "GreaterOrEqual", "qnn.add": "Add",
    "qnn.subtract": "Sub", "qnn.mul": "Mul",
}  # fmt: skip

REDUCTIONS = {
    "sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin", "prod": "ReduceProd",
    "all": "ReduceMin", "any": "ReduceMax", "logsumexp": "ReduceLogSumExp", "argmax": "ArgMax", "argmin": "ArgMin",
}  # fmt: skip


@converter(*PASSED)
def _pass(c: OpCall) -> Value:
    return c.args[0]


@converter(*UNARY)
def _unary(c: OpCall) -> Value:
    op = UNARY[c.op]
    return unary(c, op, **UNARY_ATTRS.get(op, {}))


@converter("rsqrt")
def _rsqrt(c: OpCall) -> Value:
    root = unary(c, "Sqrt")
    made = c.to.one("Reciprocal", [root.tensor], root.tensor.shape, c.dtype)
    return TensorVal(made, root.layout)


@converter("clip", "qnn.clip")
def _clip(c: OpCall) -> Value:
    limits = {key: c.site.get(name) for key, name in (("min", "a_min"), ("max", "a_max"))}
    return unary(c, "Clip", **{k: float(v) for k, v in limits.items() if isinstance(v, (int, float))})


@converter("fixed_point_multiply", "fixed_point_multiply_per_axis")
def _fixed_point(c: OpCall) -> Value:
    value = c.value(0)
    scale = constant((), value.tensor.dtype)
    return TensorVal(c.to.one("Mul", [value.tensor, scale], value.tensor.shape, c.dtype), value.layout)


@converter(*BINARY)
def _binary(c: OpCall) -> Value:
    op = BINARY[c.op]
    if "shift" in c.op:
        return elementwise(c, op, [c.value(0), c.value(1)], direction=c.op.partition("_")[0].upper())
    return elementwise(c, op, [c.value(0), c.value(1)])


@converter("left_shift", "right_shift")
def _shift(c: OpCall) -> Value:
    return elementwise(c, "BitShift", [c.value(0), c.value(1)], direction=c.op.partition("_")[0].upper())


@converter("not_equal")
def _not_equal(c: OpCall) -> Value:
    same = elementwise(c, "Equal", [c.value(0), c.value(1)])
    return TensorVal(c.to.one("Not", [same.tensor], same.tensor.shape, DType.BOOL), same.layout)


@converter("where")
def _where(c: OpCall) -> Value:
    return elementwise(c, "Where", [c.value(i) for i in range(3)])


@converter("cast", "cast_like", "reinterpret")
def _cast(c: OpCall) -> Value:
    value = c.value(0)
    if value.tensor.dtype is c.dtype:
        return value
    return unary(c, "BitCast" if c.op == "reinterpret" else "Cast", to=c.dtype.value)


@converter("zeros", "ones", "zeros_like", "ones_like", "dyn.zeros", "dyn.ones")
def _filled(c: OpCall) -> Value:
    fill = 0 if "zeros" in c.op else 1
    return TensorVal(constant(c.out, c.dtype, _repeat_small(fill, c.out)))


@converter("full", "full_like", "dyn.full")
def _full(c: OpCall) -> Value:
    value = c.site.value(1 if c.op == "full_like" else 0)
    return TensorVal(constant(c.out, c.dtype, _repeat_small(value, c.out) if isinstance(value, (int, float)) else None))


def _repeat_small(value: float, shape: tuple[int, ...]) -> object:
    if math.prod(shape) > 1024:
        return None
    import numpy as np

    return np.full(shape, value)


@converter("arange", "shape_of", "vm.shape_of", "ndarray_size")
def _fixed(c: OpCall) -> Value:
    """What depends on shapes only; small ones were folded before they got here."""
    return TensorVal(constant(c.out, c.dtype))


@converter(*REDUCTIONS)
def _reduce(c: OpCall) -> Value:
    value = c.value(0)
    axes = reduced_axes(c.site, len(value.shape))
    keep = int(bool(c.site.get("keepdims", False)))
    op = REDUCTIONS[c.op]
    places = [ir_axis(value, a) for a in axes]
    if value.layout is not None and keep and None not in places:
        return c.give(
            op, [value.tensor], value.layout, _reduction(op, sorted(p for p in places if p is not None), keep)
        )
    if value.layout is not None and None not in places and _keeps_order(value, axes):
        inner = sorted(p for p in places if p is not None)
        return c.emit(op, [value.tensor], **_reduction(op, inner, keep))
    return c.emit(op, [c.x(0)], **_reduction(op, list(axes), keep))


def _reduction(op: str, axes: list[int], keep: int) -> dict[str, AttrValue]:
    if op.startswith("Arg"):
        return {"axis": axes[0] if len(axes) == 1 else 0, "keepdims": keep}
    return {"axes": tuple(axes), "keepdims": keep}


def _keeps_order(value: TensorVal, axes: tuple[int, ...]) -> bool:
    """Whether the axes that are left have the same order in the program and in the IR."""
    kept = [ir_axis(value, i) for i in range(len(value.shape)) if i not in axes]
    return None not in kept and kept == sorted(k for k in kept if k is not None)


@converter("variance", "std")
def _variance(c: OpCall) -> Value:
    """Mean of squared distances from the mean that is given."""
    tensors, _ = aligned(c, [TensorVal(c.x(i)) for i in range(min(len(c.args), 2))])
    x = tensors[0]
    axes = reduced_axes(c.site, len(x.shape))
    keep = int(bool(c.site.get("keepdims", False)))
    mean: Tensor = tensors[1] if len(tensors) > 1 else constant((1,) * len(x.shape), x.dtype)
    centred = c.to.one("Sub", [x, mean], x.shape, x.dtype)
    squared = c.to.one("Mul", [centred, centred], x.shape, x.dtype)
    result = c.emit("ReduceMean", [squared], axes=axes, keepdims=keep)
    if c.op == "variance":
        return result
    return TensorVal(c.to.one("Sqrt", [result.tensor], result.tensor.shape, c.dtype))


@converter("one_hot")
def _one_hot(c: OpCall) -> Value:
    depth, values = constant((), DType.INT64), constant((2,), c.dtype)
    return c.emit("OneHot", [c.x(0), depth, values], axis=c.site.axis(len(c.out)))


@converter("topk", "dyn.topk")
def _topk(c: OpCall) -> Value:
    x = c.x(0)
    axis = c.site.axis(len(x.shape))
    types = list(c.type.fields) if isinstance(c.type, TupleType) else [c.type]
    shape = tuple(d or 0 for d in types[0].shape) if isinstance(types[0], TensorType) else ()
    index = to_dtype(c.site.text("dtype", "int32"))
    attrs: dict[str, AttrValue] = {"axis": axis, "largest": int(not c.site.get("is_ascend", False)), "sorted": 1}
    values, indices = c.to.emit("TopK", [x], [(shape, x.dtype), (shape, index)], attrs)
    both: list[Value] = [TensorVal(values), TensorVal(indices)]
    return {"values": both[0], "indices": both[1]}.get(c.site.text("ret_type", "both"), both)


@converter("argsort", "sort")
def _sort(c: OpCall) -> Value:
    x = c.x(0)
    attrs: dict[str, AttrValue] = {"axis": c.site.axis(len(x.shape)), "sorted": 1}
    attrs["largest"] = int(not c.site.get("is_ascend", True))
    index = c.dtype if c.op == "argsort" else DType.INT64
    values, indices = c.to.emit("TopK", [x], [(x.shape, x.dtype), (x.shape, index)], attrs)
    return TensorVal(indices if c.op == "argsort" else values)


@converter("cumsum", "cumprod")
def _cumulate(c: OpCall) -> Value:
    x = c.to.reshape(c.x(0), c.out)
    attrs: dict[str, AttrValue] = {"exclusive": int(bool(c.site.get("exclusive", False))), "reverse": 0}
    return c.emit("CumSum" if c.op == "cumsum" else "CumProd", [x], axis=c.site.axis(len(c.out), default=0), **attrs)
