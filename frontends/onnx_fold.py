"""NumPy evaluation of the operators that shape arithmetic is made of, on small constants only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from frontends.onnx_rules import Attrs
from frontends.onnx_values import NUMPY_TYPES, Spec

Array = np.ndarray
Evaluator = Callable[[list[Array], Attrs, Sequence[Spec]], list[Array]]

EVALUATORS: dict[str, Evaluator] = {}


def _plain(op: str, function: Callable[..., Array]) -> None:
    EVALUATORS[op] = lambda arrays, attrs, specs: [function(*arrays)]


def _register(*ops: str) -> Callable[[Evaluator], Evaluator]:
    def register(function: Evaluator) -> Evaluator:
        for op in ops:
            EVALUATORS[op] = function
        return function

    return register


_NUMPY: dict[str, Callable[..., Array]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Pow": np.power, "Neg": np.negative, "Abs": np.abs,
    "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Sin": np.sin, "Cos": np.cos, "Tan": np.tan, "Tanh": np.tanh,
    "Floor": np.floor, "Ceil": np.ceil, "Round": np.round, "Sign": np.sign, "Not": np.logical_not,
    "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "Less": np.less, "LessOrEqual": np.less_equal, "Where": np.where,
    "Reciprocal": np.reciprocal, "IsNaN": np.isnan, "IsInf": np.isinf, "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or, "BitwiseXor": np.bitwise_xor, "BitwiseNot": np.bitwise_not,
}  # fmt: skip

for _op, _function in _NUMPY.items():
    _plain(_op, _function)


@_register("Div")
def _div(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    """Integer division truncates towards zero."""
    a, b = arrays
    if a.dtype.kind == "f":
        return [a / b]
    quotient = np.floor_divide(np.abs(a), np.abs(b))
    return [(quotient * np.sign(a) * np.sign(b)).astype(a.dtype)]


@_register("Mod")
def _mod(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.fmod(*arrays) if attrs.get("fmod") else np.mod(*arrays)]


def _fold_pairs(function: Callable[[Array, Array], Array]) -> Evaluator:
    def evaluate(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
        result = arrays[0]
        for array in arrays[1:]:
            result = function(result, array)
        return [result]

    return evaluate


EVALUATORS["Max"], EVALUATORS["Min"] = _fold_pairs(np.maximum), _fold_pairs(np.minimum)
EVALUATORS["Sum"] = _fold_pairs(np.add)


@_register("Cast", "CastLike")
def _cast(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [arrays[0].astype(NUMPY_TYPES[specs[0][1]])]


@_register("Clip")
def _clip(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    low, high = attrs.get("min"), attrs.get("max")
    return [np.clip(arrays[0], low, high).astype(arrays[0].dtype)]


@_register("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [arrays[0].reshape(specs[0][0])]


@_register("Transpose")
def _transpose(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.transpose(arrays[0], attrs["perm"])]  # type: ignore[arg-type]


@_register("Expand")
def _expand(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.broadcast_to(arrays[0], specs[0][0])]


@_register("Tile")
def _tile(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.tile(arrays[0], attrs["repeats"])]  # type: ignore[arg-type]


@_register("Concat")
def _concat(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.concatenate(arrays, axis=attrs["axis"])]  # type: ignore[arg-type]


@_register("Split")
def _split(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    cuts = np.cumsum(attrs["split"])[:-1]
    return list(np.split(arrays[0], cuts, axis=attrs["axis"]))  # type: ignore[arg-type]


@_register("Slice")
def _slice(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    cut: list[slice] = [slice(None)] * arrays[0].ndim
    for axis, start, end, step in zip(*(attrs[k] for k in ("axes", "starts", "ends", "steps")), strict=False):
        cut[axis] = slice(start, None if end < 0 else end, step)
    return [arrays[0][tuple(cut)]]


@_register("Gather")
def _gather(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.take(arrays[0], arrays[1], axis=attrs["axis"])]  # type: ignore[arg-type]


@_register("GatherElements")
def _gather_elements(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [np.take_along_axis(arrays[0], arrays[1], axis=attrs["axis"])]  # type: ignore[arg-type]


@_register("GatherND")
def _gather_nd(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    if attrs["batch_dims"]:
        return []
    return [arrays[0][tuple(np.moveaxis(arrays[1], -1, 0))]]


@_register("ScatterND")
def _scatter_nd(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    if attrs["reduction"] != "none":
        return []
    out = arrays[0].copy()
    out[tuple(np.moveaxis(arrays[1], -1, 0))] = arrays[2]
    return [out]


@_register("ScatterElements")
def _scatter_elements(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    if attrs["reduction"] != "none":
        return []
    out = arrays[0].copy()
    np.put_along_axis(out, arrays[1], arrays[2], axis=attrs["axis"])  # type: ignore[arg-type]
    return [out]


@_register("CumSum")
def _cumsum(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    if attrs.get("reverse") or attrs.get("exclusive") or "axis" not in attrs:
        return []
    return [np.cumsum(arrays[0], axis=attrs["axis"], dtype=arrays[0].dtype)]  # type: ignore[arg-type]


@_register("Trilu")
def _trilu(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    return [(np.triu if attrs["upper"] else np.tril)(arrays[0], attrs["k"])]  # type: ignore[arg-type]


@_register("OneHot")
def _one_hot(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    indices, (off, on) = arrays
    axis, depth = int(attrs["axis"]), specs[0][0][int(attrs["axis"])]  # type: ignore[arg-type]
    rows = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
    steps = np.arange(depth).reshape([-1 if i == axis else 1 for i in range(rows.ndim)])
    return [np.where(rows == steps, on, off)]


def _reducer(function: Callable[..., Array]) -> Evaluator:
    def evaluate(arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
        found = function(arrays[0], axis=attrs["axes"], keepdims=bool(attrs["keepdims"]))
        return [np.asarray(found).astype(arrays[0].dtype)]

    return evaluate


EVALUATORS.update(
    ReduceSum=_reducer(np.sum),
    ReduceProd=_reducer(np.prod),
    ReduceMax=_reducer(np.max),
    ReduceMin=_reducer(np.min),
    ReduceMean=_reducer(np.mean),
)


def evaluate(op: str, arrays: list[Array], attrs: Attrs, specs: Sequence[Spec]) -> list[Array]:
    """Contents of an operator's outputs, or [] if they are not worked out.

    Only contents whose shape and type agree with what was inferred are given back. Call it under `np.errstate`:
    divisions by zero and overflows are the model's own.
    """
    evaluator = EVALUATORS.get(op)
    if evaluator is None:
        return []
    try:
        found = evaluator(arrays, attrs, specs)
    except (ValueError, IndexError, TypeError, OverflowError, ZeroDivisionError, FloatingPointError):
        return []
    for array, (shape, dtype) in zip(found, specs, strict=False):
        if array.shape != shape or array.dtype != NUMPY_TYPES.get(dtype):
            return []
    return found
