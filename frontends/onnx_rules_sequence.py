"""Rules of sequences and optionals: lists of tensors that are known while lowering and leave no nodes."""

from __future__ import annotations

import numpy as np

from costmodel.errors import ShapeInferenceError
from costmodel.ir import DType
from frontends.onnx_rules import Call, Lowered, axis_of, rule
from frontends.onnx_values import CONTENT_LIMIT, Value, known


def _sequence(c: Call, items: list[Value]) -> Lowered:
    return [Value(c.outputs[0], (len(items),), DType.INT64, all(v.const for v in items), items=items)]


def _items(c: Call, i: int = 0) -> list[Value]:
    value = c.get(i)
    if value is None or value.items is None:
        raise ShapeInferenceError(f"input {i} is not a sequence")
    return value.items


@rule("SequenceConstruct")
def _construct(c: Call) -> Lowered:
    return _sequence(c, [c.need(i) for i in range(len(c.inputs))])


@rule("SequenceEmpty")
def _empty(c: Call) -> Lowered:
    return _sequence(c, [])


@rule("SequenceInsert")
def _insert(c: Call) -> Lowered:
    items = list(_items(c))
    items.insert(c.ints(2)[0] if c.get(2) is not None else len(items), c.need(1))
    return _sequence(c, items)


@rule("SequenceErase")
def _erase(c: Call) -> Lowered:
    items = list(_items(c))
    del items[c.ints(1)[0] if c.get(1) is not None else -1]
    return _sequence(c, items)


@rule("SequenceAt")
def _at(c: Call) -> Lowered:
    return [_items(c)[c.ints(1)[0]]]


@rule("SequenceLength")
def _length(c: Call) -> Lowered:
    return [known(c.outputs[0], np.array(len(_items(c)), dtype=np.int64))]


@rule("SplitToSequence")
def _split_to_sequence(c: Call) -> Lowered:
    x = c.need(0)
    axis = axis_of(c.attrs.get("axis", 0), len(x.shape))
    size = x.shape[axis]
    keep = True
    if c.get(1) is None:
        parts: tuple[int, ...] = (1,) * _few(size)
        keep = bool(c.attrs.get("keepdims", 1))
    elif c.need(1).shape:
        parts = c.ints(1)
    else:
        step = c.ints(1)[0]
        _few(-(-size // step))
        parts = tuple(min(step, size - at) for at in range(0, size, step))
    if sum(parts) != size:
        raise ShapeInferenceError(f"axis {axis} of {x.shape} cannot be split into {parts}")
    specs = [((*x.shape[:axis], part, *x.shape[axis + 1 :]), x.dtype) for part in parts]
    items = c.lowering.emit("Split", [x], specs, {"axis": axis, "split": parts}) if len(parts) > 1 else [x]
    if not keep:
        shape = x.shape[:axis] + x.shape[axis + 1 :]
        items = [c.lowering.emit("Squeeze", [v], [(shape, x.dtype)], {"axes": (axis,)})[0] for v in items]
    return _sequence(c, items)


def _few(count: int) -> int:
    if count > CONTENT_LIMIT:
        raise ShapeInferenceError(f"a sequence of {count} tensors is too long; the limit is {CONTENT_LIMIT}")
    return count


@rule("ConcatFromSequence")
def _concat_from_sequence(c: Call) -> Lowered:
    items = list(_items(c))
    if not items:
        raise ShapeInferenceError("the sequence is empty")
    rank = len(items[0].shape)
    if c.attrs.get("new_axis"):
        axis = axis_of(c.attrs["axis"], rank + 1)
        shape = (*items[0].shape[:axis], 1, *items[0].shape[axis:])
        items = [c.lowering.emit("Unsqueeze", [v], [(shape, v.dtype)], {"axes": (axis,)})[0] for v in items]
    else:
        axis = axis_of(c.attrs["axis"], rank)
    if len(items) == 1:
        return items
    first = items[0].shape
    shape = (*first[:axis], sum(v.shape[axis] for v in items), *first[axis + 1 :])
    return c.lowering.emit("Concat", items, [(shape, items[0].dtype)], {"axis": axis}, c.outputs, c.name)


@rule("Optional", "OptionalGetElement")
def _optional(c: Call) -> Lowered:
    value = c.get(0)
    if value is None:
        raise ShapeInferenceError("it holds nothing")
    return [value]


@rule("OptionalHasElement")
def _has_element(c: Call) -> Lowered:
    return [known(c.outputs[0], np.array(c.get(0) is not None))]
