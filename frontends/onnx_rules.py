"""The registry of ONNX lowering rules: one function per operator, from a call with known inputs to its canonical form.

A rule returns a `Result` (a node to keep: operator, inputs, output shapes and types, normalised attributes) or a list
of `Value`s that the outputs simply are (the operator does nothing at inference, or is a constant). The rules live in
`onnx_rules_*`; `find` imports them on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from costmodel.errors import ShapeInferenceError
from costmodel.ir import AttrValue, DType
from frontends.onnx_values import Shape, Spec, Value

if TYPE_CHECKING:
    from frontends.onnx_lower import Lowering

Attrs = dict[str, AttrValue]

_RULE_MODULES = tuple(
    f"frontends.onnx_rules_{part}"
    for part in ("pointwise", "tensor", "image", "index", "nn", "norm", "sequence", "contrib")
)
_registry: dict[tuple[str, str], Rule] = {}


class ContentNeeded(ShapeInferenceError):
    """A shape depends on the content of a tensor that is computed at run time."""


class Result:
    """The canonical form of one call: `op(inputs) -> specs` with `attrs`."""

    __slots__ = ("attrs", "inputs", "op", "opaque", "specs")

    def __init__(
        self,
        specs: Sequence[Spec],
        attrs: Attrs | None = None,
        inputs: Sequence[Value | None] | None = None,
        op: str | None = None,
        opaque: bool = False,
    ) -> None:
        self.specs = specs
        self.attrs = attrs if attrs is not None else {}
        self.inputs = inputs
        self.op = op
        self.opaque = opaque


Lowered = Result | list[Value]


class Call:
    """One ONNX node with the values of its inputs.

    attrs    attributes as in the file, decoded; tensors and graphs stay protobufs
    inputs   values in order, None where an optional one is absent
    outputs  names of the outputs, "" where not wanted
    version  opset of the operator's domain
    """

    __slots__ = ("attrs", "domain", "inputs", "lowering", "name", "op", "outputs", "version")

    def __init__(
        self,
        lowering: Lowering,
        op: str,
        domain: str,
        version: int,
        attrs: dict[str, Any],
        inputs: list[Value | None],
        outputs: list[str],
        name: str,
    ) -> None:
        self.lowering = lowering
        self.op = op
        self.domain = domain
        self.version = version
        self.attrs = attrs
        self.inputs = inputs
        self.outputs = outputs
        self.name = name

    def get(self, i: int) -> Value | None:
        """Input i, or None if absent."""
        return self.inputs[i] if i < len(self.inputs) else None

    def need(self, i: int) -> Value:
        """Input i; an error if absent."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise ShapeInferenceError(f"input {i} is missing")
        if value.items is not None:
            raise ShapeInferenceError(f"input {i} is a sequence, not a tensor")
        return value

    def content(self, i: int) -> np.ndarray:
        """Content of input i; ContentNeeded if it is only known at run time."""
        value = self.need(i)
        content = value.content
        if content is None:
            raise ContentNeeded(f"its output shape depends on the content of '{value.name}'")
        return content

    def ints(self, i: int) -> Shape:
        """Content of input i as a flat tuple of integers."""
        return tuple(int(v) for v in self.content(i).reshape(-1).tolist())

    def ints_or(self, i: int, attr: str) -> Shape | None:
        """Integers that newer opsets pass as input i and older ones as an attribute; None if neither is there."""
        if self.get(i) is not None:
            return self.ints(i)
        found = self.attrs.get(attr)
        if found is None:
            return None
        return tuple(found) if isinstance(found, (list, tuple)) else (int(found),)


Rule = Callable[[Call], Lowered]


def rule(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Registers a function as the rule of the operators named."""

    def register(function: Rule) -> Rule:
        for op in ops:
            _registry[domain, op] = function
        return function

    return register


@cache
def registry() -> dict[tuple[str, str], Rule]:
    """Every rule by (domain, operator)."""
    for module in _RULE_MODULES:
        importlib.import_module(module)
    return _registry


def axis_of(axis: int, rank: int) -> int:
    """A non-negative axis; an error if it is outside the rank."""
    if not -rank <= axis < max(rank, 1):
        raise ShapeInferenceError(f"axis {axis} is outside rank {rank}")
    return axis + rank if axis < 0 else axis


def axes_of(axes: Sequence[int], rank: int) -> Shape:
    """Non-negative axes in ascending order."""
    return tuple(sorted(axis_of(int(a), rank) for a in axes))


def broadcast(*shapes: Shape) -> Shape:
    """NumPy's broadcast of several shapes."""
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    rank = max(map(len, shapes))
    out = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for i, dim in enumerate(shape):
            if dim != 1:
                if out[offset + i] not in (1, dim):
                    raise ShapeInferenceError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
                out[offset + i] = dim
    return tuple(out)


def same(c: Call, attrs: Attrs | None = None, op: str | None = None) -> Result:
    """One output like the first input, which is the only one kept."""
    x = c.need(0)
    return Result([(x.shape, x.dtype)], attrs, [x], op)


def optional_specs(c: Call, specs: Sequence[Spec]) -> list[Spec]:
    """As many of the specs as the call has outputs, without unwanted ones at the end."""
    count = len(c.outputs)
    while count > 1 and not c.outputs[count - 1]:
        count -= 1
    return list(specs[:count])


def as_dtype(c: Call, attr: str, default: DType) -> DType:
    """The element type that an attribute names."""
    from frontends.onnx_values import dtype_of

    code = c.attrs.get(attr, 0)
    return dtype_of(code, c.name) if code else default
