"""Evaluation of small constant tensors: the shape arithmetic and loop counters of Relay programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from frontends.relay_relations import Site
from frontends.relay_relations_shape import slice_ranges

LIMIT = 1024
"""Elements of the largest tensor that is evaluated."""

Array = np.ndarray
Rule = Callable[[Site, list[Array], tuple[int, ...], Any], Array]


def _divide(a: Array, b: Array) -> Array:
    return a / b if a.dtype.kind == "f" else np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))


_PLAIN: dict[str, Callable[..., Any]] = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": _divide, "floor_divide": np.floor_divide,
    "maximum": np.maximum, "minimum": np.minimum, "floor_mod": np.mod, "mod": np.mod, "equal": np.equal,
    "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_not": np.logical_not, "negative": np.negative, "abs": np.abs, "where": np.where,
}  # fmt: skip
_RESHAPED = frozenset(["reshape", "expand_dims", "squeeze", "cast", "on_device", "dyn.reshape"])


def fold(site: Site, inputs: list[Array], shape: tuple[int, ...], dtype: np.dtype) -> Array | None:
    """The content of a call's result, None if this operator is not evaluated."""
    with np.errstate(all="ignore"):
        found = _evaluate(site, inputs, shape)
    if found is None or np.shape(found) != shape:
        return None
    return np.asarray(found).astype(dtype)


def _evaluate(site: Site, inputs: list[Array], shape: tuple[int, ...]) -> Array | None:
    op = site.op
    if op in _PLAIN:
        return _PLAIN[op](*inputs)
    if op in _RESHAPED:
        return inputs[0].reshape(shape)
    if op in ("zeros", "ones"):
        return np.full(shape, op == "ones")
    if op == "full":
        return np.full(shape, inputs[0])
    if op == "arange":
        start, step = inputs[0].reshape(()), inputs[2].reshape(())
        return start + step * np.arange(shape[0])
    if op == "concatenate":
        return np.concatenate(inputs, axis=site.integer("axis", 0))
    if op == "take":
        axis = site.get("axis")
        return np.take(inputs[0], inputs[1], axis=axis, mode="clip")
    if op == "strided_slice":
        cut: list[slice] = [slice(None)] * inputs[0].ndim
        for axis, first, last, stride in slice_ranges(site, inputs[0].shape) or []:
            cut[axis] = slice(first, last, stride)
        return inputs[0][tuple(cut)]
    if op in ("prod", "sum") and site.get("axis") is None:
        return np.asarray(inputs[0].prod() if op == "prod" else inputs[0].sum()).reshape(shape)
    return None
