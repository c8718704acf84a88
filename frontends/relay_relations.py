"""Type relations of Relay operators: a registry, and what the relations share.

A relation gets a `Site` (argument types, attributes, values of constant arguments) and returns the result's type. It
raises `Waiting` while an argument it needs is unknown, and may `assign` types that the operator dictates, as those of
a convolution's weights. `frontends.relay_relations_nn` and `relay_relations_tensor` fill the registry.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from costmodel.errors import ShapeInferenceError
from frontends.relay_ast import Dim, Shape, TensorType, TupleType, Type, resolve


class Waiting(Exception):
    """An argument's type is not known yet."""


@dataclass(slots=True)
class Site:
    """One call: `types` of its arguments (None if unknown), `values` of those that are constants, and attributes."""

    op: str
    types: list[Type | None]
    attrs: dict[str, Any]
    values: list[Any] = field(default_factory=list)
    assigned: dict[int, TensorType] = field(default_factory=dict)

    def known(self, i: int) -> TensorType | None:
        """The tensor type of an argument, None while it is unknown."""
        ty = resolve(self.types[i]) if i < len(self.types) else None
        return ty if isinstance(ty, TensorType) else None

    def tensor(self, i: int = 0) -> TensorType:
        """The tensor type of an argument."""
        ty = resolve(self.types[i]) if i < len(self.types) else None
        if isinstance(ty, TensorType):
            return ty
        if i >= len(self.types) or isinstance(ty, TupleType):
            raise self.error(f"argument {i} is {'a tuple' if ty else 'missing'}, a tensor is needed")
        raise Waiting

    def tensors(self, i: int = 0) -> list[TensorType]:
        """The tensor types in a tuple argument."""
        ty = resolve(self.types[i]) if i < len(self.types) else None
        if isinstance(ty, TensorType):
            return [ty]
        if not isinstance(ty, TupleType):
            raise Waiting
        fields = [resolve(f) for f in ty.fields]
        if not all(isinstance(f, TensorType) for f in fields):
            raise Waiting
        return fields  # type: ignore[return-value]

    def assign(self, i: int, ty: TensorType) -> None:
        """Gives an argument without a type the one that the operator dictates."""
        if i < len(self.types) and self.known(i) is None and not isinstance(resolve(self.types[i]), TupleType):
            self.assigned[i] = ty

    def value(self, i: int) -> Any:
        """The content of a constant argument, None if it has none or is too large."""
        return self.values[i] if i < len(self.values) else None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; None and absent are the default."""
        found = self.attrs.get(name)
        return default if found is None else found

    def text(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self.attrs.get(name)
        return found if isinstance(found, str) and found not in ("", "None", "void") else default

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self.attrs.get(name)
        return int(found) if isinstance(found, (int, float)) and math.isfinite(found) else default

    def integers(self, name: str, count: int, default: int = 1) -> tuple[int, ...]:
        """A list of `count` integers; a single one is repeated."""
        found = self.attrs.get(name)
        if found is None:
            return (default,) * count
        values = found if isinstance(found, list) else [found]
        if not all(isinstance(v, int) for v in values):
            raise self.error(f"{name}={found} is not a list of numbers")
        if len(values) == 1:
            values = values * count
        if len(values) != count:
            raise self.error(f"{name} has {len(values)} entries, {count} are needed")
        return tuple(values)

    def axis(self, rank: int, name: str = "axis", default: int = -1) -> int:
        """A non-negative axis attribute."""
        return self.wrap(self.integer(name, default), rank)

    def wrap(self, axis: Any, rank: int) -> int:
        """A non-negative axis of a tensor of that rank."""
        if not isinstance(axis, int) or not -rank <= axis < rank:
            raise self.error(f"axis {axis} does not exist in a tensor of rank {rank}")
        return axis % rank

    def axes(self, rank: int, name: str = "axis") -> tuple[int, ...] | None:
        """Non-negative sorted axes, None if the attribute is absent."""
        found = self.attrs.get(name)
        if found is None:
            return None
        values = found if isinstance(found, list) else [found]
        return tuple(sorted({self.wrap(v, rank) for v in values}))

    def error(self, message: str) -> ShapeInferenceError:
        """The error that this call cannot be typed."""
        return ShapeInferenceError(f"Relay {self.op}: {message}; correct the shapes or attributes of the call")


Relation = Callable[[Site], Type]
RELATIONS: dict[str, Relation] = {}


def relation(*names: str) -> Callable[[Relation], Relation]:
    """Registers a relation under operator names."""

    def add(rule: Relation) -> Relation:
        for name in names:
            RELATIONS[name] = rule
        return rule

    return add


_LAYOUT = re.compile(r"(\d+)([a-z])|([A-Z])")


class Layout:
    """A layout string such as NCHW or NCHW4c: upper case names axes, `4c` a block of 4 along C."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[tuple[str, int | None]] = []
        position = 0
        while position < len(text):
            found = _LAYOUT.match(text, position)
            if found is None or (found[1] and not 0 < int(found[1][:6]) < 100000):
                raise ShapeInferenceError(
                    f"Relay layout '{text[:24]}' is not understood; use letters as in NCHW or NCHW4c"
                )
            self.parts.append((found[3], None) if found[3] else (found[2].upper(), int(found[1])))
            position = found.end()

    @property
    def axes(self) -> str:
        """Upper-case letters in order."""
        return "".join(letter for letter, factor in self.parts if factor is None)

    def sizes(self, shape: Sequence[Dim]) -> dict[str, Dim]:
        """Length of each axis, blocks multiplied in."""
        if len(shape) != len(self.parts):
            raise ShapeInferenceError(
                f"Relay layout {self.text}: a tensor of rank {len(shape)} does not fit; correct the layout or the shape"
            )
        found: dict[str, Dim] = {}
        for (letter, _), dim in zip(self.parts, shape, strict=True):
            before = found.get(letter, 1)
            found[letter] = None if dim is None or before is None else before * dim
        return found

    def shape(self, sizes: dict[str, Dim]) -> Shape:
        """The shape of a tensor in this layout."""
        factors: dict[str, int] = {}
        for letter, factor in self.parts:
            if factor is not None:
                factors[letter] = factors.get(letter, 1) * factor
        found: list[Dim] = []
        for letter, factor in self.parts:
            size = sizes.get(letter, 1)
            if factor is not None:
                found.append(factor)
            else:
                found.append(None if size is None else -(-size // factors.get(letter, 1)))
        return tuple(found)


def broadcast(site: Site, *shapes: Shape) -> Shape:
    """The common shape; a `?` against a length above 1 is that length."""
    rank = max(map(len, shapes))
    result: list[Dim] = []
    for axis in range(-rank, 0):
        dim: Dim = 1
        for shape in shapes:
            if -axis > len(shape) or shape[axis] == 1:
                continue
            other = shape[axis]
            if dim == 1 or dim is None:
                dim = other if other is not None or dim == 1 else dim
            elif other is not None and other != dim:
                raise site.error(f"shapes {' and '.join(map(_spell, shapes))} do not broadcast")
        result.append(dim)
    return tuple(result)


def _spell(shape: Shape) -> str:
    return "(" + ", ".join("?" if d is None else str(d) for d in shape) + ")"


def product(dims: Sequence[Dim]) -> Dim:
    """Product of lengths, None if any is unknown."""
    total = 1
    for dim in dims:
        if dim is None:
            return None
        total *= dim
    return total


def wanted_shape(site: Site, position: int, *names: str) -> Shape:
    """A shape given as an attribute or as a constant argument."""
    for name in names:
        found = site.get(name)
        if found is not None:
            values = found if isinstance(found, list) else [found]
            return tuple(v if isinstance(v, int) else None for v in values)
    value = site.value(position)
    if isinstance(value, (list, int)):
        values = value if isinstance(value, list) else [value]
        return tuple(v if isinstance(v, int) else None for v in values)
    shape = site.tensor(position)
    rank = shape.shape[0] if shape.shape else 1
    if rank is None or rank > 64:
        raise site.error("the rank of the result is not known")
    return (None,) * rank


def padding(site: Site, spatial: int, name: str = "padding") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial axis, from 1, `spatial` or 2 * `spatial` numbers."""
    found = site.get(name, 0)
    values = found if isinstance(found, list) else [found]
    if not all(isinstance(v, int) for v in values):
        raise site.error(f"{name}={found} is not a list of numbers")
    if len(values) == 1:
        values = values * spatial
    if len(values) == spatial:
        values = values * 2
    if len(values) != 2 * spatial:
        raise site.error(f"{name} has {len(values)} entries, 1, {spatial} or {2 * spatial} are needed")
    return tuple(values[:spatial]), tuple(values[spatial:])


def solve(site: Site) -> Type | None:
    """The type of a call's result; None without a relation or while arguments are unknown.

    Raises ShapeInferenceError where shapes contradict each other, or attributes are of the wrong kind.
    """
    rule = RELATIONS.get(site.op)
    if rule is None:
        return None
    try:
        return rule(site)
    except Waiting:
        return None
    except MISFITS as error:
        raise misfit(site.op, error) from None


MISFITS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What code raises that meets attributes or arguments of the wrong kind or number."""


def misfit(op: str, error: Exception) -> ShapeInferenceError:
    """The error for attributes or arguments of the wrong kind or number."""
    detail = " ".join(str(error).split())[:80]
    return ShapeInferenceError(
        f"Relay {op}: its arguments or attributes do not fit ({type(error).__name__}: {detail}); correct the call"
    )
