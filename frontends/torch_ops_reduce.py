"""Rules of reductions, softmax, scans and searches along an axis."""

from __future__ import annotations

import math

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.torch_ops import Attrs, Call, Result, Shape, Spec, Value, rule

_REDUCE = {
    "mean": "ReduceMean", "sum": "ReduceSum", "amax": "ReduceMax", "amin": "ReduceMin", "prod": "ReduceProd",
    "logsumexp": "ReduceLogSumExp",
}  # fmt: skip


def reduce(c: Call, op: str, x: Value, axes: Shape, keep: bool, dtype: DType | None = None) -> Value:
    """A Reduce node over axes."""
    if not x.shape:
        return x
    if keep:
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
    else:
        shape = tuple(d for i, d in enumerate(x.shape) if i not in axes)
    return c.emit(op, [x], (shape, dtype or x.dtype), {"axes": axes, "keepdims": int(keep)})


@rule(*_REDUCE)
def _reduce(c: Call) -> Result:
    x = c.cast(c.x, c.out[1])
    return reduce(c, _REDUCE[c.op], x, c.axes("dim", len(x.shape)), bool(c.get("keepdim")))


@rule("linalg_vector_norm", "norm", "frobenius_norm")
def _norm(c: Call) -> Result:
    x = c.cast(c.x, c.out[1])
    axes, keep = c.axes("dim", len(x.shape)), bool(c.get("keepdim"))
    order = c.get("ord", c.get("p", 2))
    if order in (1, 2):
        return reduce(c, f"ReduceL{int(order)}", x, axes, keep)
    if isinstance(order, (int, float)) and math.isinf(order):
        return reduce(c, "ReduceMax" if order > 0 else "ReduceMin", c.emit("Abs", [x], x.spec), axes, keep)
    powers = c.emit("Pow", [c.emit("Abs", [x], x.spec), c.scalar(order, x.dtype)], x.spec)
    return c.emit("Pow", [reduce(c, "ReduceSum", powers, axes, keep), c.scalar(order, x.dtype)])


@rule("cdist", "_cdist_forward")
def _cdist(c: Call) -> Result:
    """Norm of the difference of every pair of rows."""
    a, b = c.tensor("x1"), c.tensor("x2")
    left, right = c.unsqueeze(a, len(a.shape) - 1), c.unsqueeze(b, len(b.shape) - 2)
    shape = (*c.out[0], a.shape[-1])
    apart = c.emit("Sub", [left, right], (shape, a.dtype))
    return reduce(c, "ReduceL1" if c.get("p", 2) == 1 else "ReduceL2", apart, (len(shape) - 1,), False)


@rule("max", "min")
def _extreme(c: Call) -> Result:
    """Of the whole tensor, along an axis with its place, or of two tensors."""
    name = "Max" if c.op == "max" else "Min"
    x = c.x
    if "other" in c.args:
        return c.emit(name, [c.tensor("self", c.out[1]), c.tensor("other", c.out[1])])
    keep = bool(c.get("keepdim"))
    if "dim" not in c.args:
        return reduce(c, f"Reduce{name}", x, tuple(range(len(x.shape))), keep)
    axis = c.axis("dim", len(x.shape))
    values = reduce(c, f"Reduce{name}", x, (axis,), keep)
    if len(c.used) > 1 and not c.used[1]:
        return [values, None]
    return [values, _arg(c, f"Arg{name}", x, axis, keep)]


def _arg(c: Call, op: str, x: Value, axis: int, keep: bool) -> Value:
    shape = (*x.shape[:axis], *((1,) if keep else ()), *x.shape[axis + 1 :])
    return c.emit(op, [x], (shape, DType.INT64), {"axis": axis, "keepdims": int(keep)})


@rule("argmax", "argmin")
def _arg_extreme(c: Call) -> Result:
    x, op = c.x, "ArgMax" if c.op == "argmax" else "ArgMin"
    if c.get("dim") is None:
        place = _arg(c, op, c.reshape(x, (x.numel,)), 0, False)
        return c.reshape(place, c.out[0])
    return _arg(c, op, x, c.axis("dim", len(x.shape)), bool(c.get("keepdim")))


@rule("any", "all")
def _any_all(c: Call) -> Result:
    x = c.x
    wide = c.cast(c.cast(x, DType.BOOL), DType.INT64)
    found = reduce(c, "ReduceMax" if c.op == "any" else "ReduceMin", wide, c.axes("dim", len(x.shape)),
                   bool(c.get("keepdim")))  # fmt: skip
    return c.cast(found, c.out[1])


@rule("var", "std", "var_mean", "std_mean")
def _var(c: Call) -> Result:
    """Mean of squared deviations, corrected by n / (n - correction)."""
    x = c.x
    axes, keep = c.axes("dim", len(x.shape)), bool(c.get("keepdim"))
    correction = c.get("correction", 1 if c.get("unbiased", True) else 0)
    centred = c.emit("Sub", [x, reduce(c, "ReduceMean", x, axes, True)], x.spec)
    spread = reduce(c, "ReduceMean", c.emit("Mul", [centred, centred], x.spec), axes, keep)
    if correction:
        scaled = c.emit("Mul", [spread, c.scalar(1, x.dtype)])
        spread = c.emit("Div", [scaled, c.scalar(1, x.dtype)])
    if c.op.startswith("std"):
        spread = c.emit("Sqrt", [spread])
    if len(c.outs) == 1:
        return spread
    total = reduce(c, "ReduceSum", x, axes, keep)
    return [spread, c.emit("Div", [total, c.scalar(1, x.dtype)], total.spec)]


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "special_softmax", "special_log_softmax", "_safe_softmax")
def _softmax(c: Call) -> Result:
    x = c.cast(c.x, c.out[1])
    if not x.shape:
        raise ShapeInferenceError("it normalises a scalar")
    return c.emit("LogSoftmax" if "log" in c.op else "Softmax", [x], attrs={"axis": c.axis("dim", len(x.shape))})


@rule("cumsum", "cumprod")
def _cumulate(c: Call) -> Result:
    x = c.cast(c.x, c.out[1])
    attrs: Attrs = {"exclusive": 0, "reverse": 0, "axis": c.axis("dim", len(x.shape))}
    return c.emit("CumSum" if c.op == "cumsum" else "CumProd", [x], attrs=attrs)


@rule("topk", "sort", "argsort", "msort")
def _top_k(c: Call) -> Result:
    x = c.x
    axis = c.axis("dim", len(x.shape), -1 if c.op != "msort" else 0)
    largest = c.get("largest", True) if c.op == "topk" else bool(c.get("descending"))
    shape: Shape = c.out[0]
    attrs: Attrs = {"axis": axis, "k": shape[axis], "largest": int(largest), "sorted": int(c.get("sorted", True))}
    specs: list[Spec] = [(shape, x.dtype), (shape, DType.INT64)]
    values, places = c.emit_all("TopK", [x], specs, attrs)
    if c.op == "argsort":
        return places
    return values if len(c.outs) == 1 else [values, places]


@rule("bincount", "histc")
def _count(c: Call) -> Result:
    """One addition per element into its bin."""
    bins = c.constant(c.out[0], c.out[1])
    x = c.reshape(c.x, (c.x.numel,))
    places = c.cast(x, DType.INT64)
    return c.emit("ScatterElements", [bins, places, c.cast(x, c.out[1])], attrs={"axis": 0, "reduction": "add"})
