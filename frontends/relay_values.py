"""What Relay expressions evaluate to besides tensors and tuples, and what a branch costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from costmodel.errors import DynamicShapeError
from frontends.relay_ast import Func, TensorType, TupleType, Type, Var
from frontends.relay_ops import Value
from frontends.relay_raw import RawNode, TensorVal


@dataclass(slots=True, eq=False)
class Frame:
    """Variables of one activation; free ones are found outwards."""

    outer: Frame | None = None
    values: dict[Var, Value] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Closure:
    """A function and the activation it was made in."""

    func: Func
    frame: Frame | None


@dataclass(slots=True, eq=False)
class Data:
    """A constructor, applied (`fields`) or not yet (None)."""

    ctor: str
    fields: list[Value] | None


@dataclass(slots=True, eq=False)
class Primitive:
    """An operator used as a value."""

    name: str


@dataclass(slots=True, eq=False)
class Cell:
    """A mutable reference."""

    value: Value


@dataclass(slots=True, eq=False)
class Choice:
    """A function, closure or data value that a run-time condition picks."""

    cond: TensorVal
    then: Value
    other: Value


def type_of(value: Value) -> Type | None:
    """The Relay type of a tensor or tuple, None for other values."""
    if isinstance(value, TensorVal):
        return value.type
    if isinstance(value, list):
        return TupleType(tuple(type_of(v) or TupleType(()) for v in value))
    return None


def content_of(value: Value) -> Any:
    """The content of a small constant tensor as nested lists, None for anything else."""
    if isinstance(value, TensorVal) and value.tensor.value is not None and value.layout is None:
        return value.tensor.value.tolist()
    return None


def static_shape(ty: TensorType, what: str) -> tuple[int, ...]:
    """A shape without `?`. Raises DynamicShapeError that names `what`."""
    if None in ty.shape:
        raise DynamicShapeError(f"Relay: {what} has type {ty}; give its shape with --shape", (what.rpartition("%")[2],))
    return tuple(d or 0 for d in ty.shape)


def branch_cost(nodes: list[RawNode]) -> tuple[int, int]:
    """Multiply-accumulates and elements written."""
    macs = written = 0
    for node in nodes:
        size = sum(t.numel for t in node.outputs)
        written += 0 if node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "If") else size
        first, second = (*node.inputs, None, None)[:2]
        if node.op == "Conv" and second is not None and second.shape and second.shape[0]:
            macs += size * second.numel // second.shape[0]
        elif node.op == "ConvTranspose" and first is not None and second is not None and second.shape[0]:
            macs += first.numel * second.numel // second.shape[0]
        elif node.op in ("Gemm", "MatMul") and first is not None and first.shape:
            macs += size * first.shape[0 if node.attrs.get("transA") else -1]
    return macs, written


def listing(nodes: list[RawNode]) -> str:
    """A branch in words: each operator and how often it occurs."""
    return (
        ", ".join(
            f"{count} {op}"
            for op, count in sorted(Counter("Add" if n.op == "BiasAdd" else n.op for n in nodes).items())
        )
        or "nothing"
    )
