"""The registry that turns Relay operators into ONNX-vocabulary nodes, and what its entries share.

A converter gets an `OpCall` and returns the value of the call. `frontends.relay_ops_nn` and `relay_ops_tensor` fill
the registry; an operator with a type but no converter becomes an opaque node `relay.<name>`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from costmodel.ir import AttrValue, DType
from frontends.relay_ast import TensorType, TupleType, Type
from frontends.relay_raw import IMAGE, Attrs, Recorder, Tensor, TensorVal, in_layout, ordered, to_dtype
from frontends.relay_relations import Layout, Site

Value = Any
"""TensorVal, a list (tuple) of values, or what `frontends.relay_lower` adds: closures, data and references."""


@dataclass(slots=True)
class OpCall:
    """One operator call: argument values, attributes (`site`) and the result's type."""

    op: str
    args: list[Value]
    site: Site
    type: Type
    to: Recorder

    @property
    def out(self) -> tuple[int, ...]:
        """The result's shape in the program's layout."""
        assert isinstance(self.type, TensorType)
        return tuple(d or 0 for d in self.type.shape)

    @property
    def dtype(self) -> DType:
        """The result's element type."""
        ty = self.type.fields[0] if isinstance(self.type, TupleType) else self.type
        assert isinstance(ty, TensorType)
        return to_dtype(ty.dtype)

    def value(self, i: int) -> TensorVal:
        """A tensor argument."""
        found = self.args[i]
        if not isinstance(found, TensorVal):
            raise self.site.error(f"argument {i} is no tensor")
        return found

    def x(self, i: int = 0) -> Tensor:
        """A tensor argument in the program's order of axes."""
        return self.to.from_ir(self.value(i))

    def parts(self, i: int = 0) -> list[TensorVal]:
        """The tensors of a tuple argument."""
        found = self.args[i] if isinstance(self.args[i], list) else [self.args[i]]
        if not all(isinstance(v, TensorVal) for v in found):
            raise self.site.error(f"argument {i} is no tuple of tensors")
        return found

    def emit(self, op: str, inputs: Sequence[Tensor | None], **attrs: AttrValue) -> TensorVal:
        """A node whose result has the call's own type."""
        return TensorVal(self.to.one(op, inputs, self.out, self.dtype, **attrs))

    def image(self, i: int, layout: Layout) -> Tensor:
        """An image argument as N, C, spatial."""
        return self.to.place_value(self.value(i), layout)

    def give(self, op: str, inputs: Sequence[Tensor | None], layout: Layout, attrs: Attrs) -> TensorVal:
        """A node whose result is an image that the program sees in `layout`."""
        sizes = layout.sizes(self.out)
        shape = [int(sizes[a] or 0) for a in ordered(layout, IMAGE)]
        return in_layout(self.to.emit(op, inputs, [(tuple(shape), self.dtype)], attrs)[0], layout)


Converter = Callable[[OpCall], Value]
CONVERTERS: dict[str, Converter] = {}


def converter(*names: str) -> Callable[[Converter], Converter]:
    """Registers a converter under operator names."""

    def add(rule: Converter) -> Converter:
        for name in names:
            CONVERTERS[name] = rule
        return rule

    return add


def unary(c: OpCall, op: str, **attrs: AttrValue) -> TensorVal:
    """An element-wise node; it keeps its operand's layout."""
    value = c.value(0)
    made = c.to.one(op, [value.tensor], value.tensor.shape, c.dtype, **attrs)
    return TensorVal(made, value.layout)


def aligned(c: OpCall, values: Sequence[TensorVal]) -> tuple[list[Tensor], Layout | None]:
    """Operands of an element-wise operator in one layout: that of the images among them, or the program's own."""
    layout = next((v.layout for v in values if v.layout is not None), None)
    plain = [c.to.from_ir(v) if v.layout is not None else v.tensor for v in values] if layout is None else []
    if layout is None:
        return plain, None
    full = next(v.tensor.shape for v in values if v.layout is layout)
    found: list[Tensor] = []
    for v in values:
        if v.layout is not None and v.layout.text == layout.text:
            found.append(v.tensor)
            continue
        shape = v.shape
        if len(shape) > len(layout.parts):
            return [c.to.from_ir(u) for u in values], None
        x = c.to.from_ir(v)
        if x.numel > 1:
            x = c.to.reshape(x, (1,) * (len(layout.parts) - len(shape)) + shape)
            x = c.to.to_ir(x, layout)
            if any(d not in (1, f) for d, f in zip(x.shape, full, strict=True)):
                return [c.to.from_ir(u) for u in values], None
        elif len(x.shape) > len(full):
            x = c.to.reshape(x, ())
        found.append(x)
    return found, layout


def elementwise(c: OpCall, op: str, values: Sequence[TensorVal], **attrs: AttrValue) -> TensorVal:
    """A broadcasting node."""
    tensors, layout = aligned(c, values)
    if layout is None:
        return c.emit(op, tensors, **attrs)
    return c.give(op, tensors, layout, attrs)


def ir_axis(value: TensorVal, axis: int) -> int | None:
    """Where an axis of the program is in the IR tensor; None if a block of it lies elsewhere."""
    if value.layout is None:
        return axis
    letter, factor = value.layout.parts[axis]
    blocked = sum(part[0] == letter for part in value.layout.parts) > 1
    return None if factor is not None or blocked else ordered(value.layout, IMAGE).index(letter)
