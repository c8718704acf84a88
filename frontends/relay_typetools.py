"""Questions about and rewrites of Relay types. All are bounded: types share parts and may be huge when spelt out."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from costmodel.errors import ShapeInferenceError
from frontends.relay_ast import Dim, FuncType, Hole, NamedType, TensorType, TupleType, Type, resolve

MAX_TYPE_DEPTH = 60
MAX_TYPE_NODES = 10_000


def parts(ty: Type | None) -> tuple[Type, ...]:
    """The types that a type is made of."""
    if isinstance(ty, TupleType):
        return ty.fields
    if isinstance(ty, FuncType):
        return (*ty.params, ty.ret)
    return ty.args if isinstance(ty, NamedType) else ()


def walk(ty: Type | None) -> Iterator[Type]:
    """A type and all its parts. Raises ShapeInferenceError if it is too large or contains itself."""
    waiting: list[tuple[Type | None, int]] = [(ty, 0)]
    count = 0
    while waiting:
        item, depth = waiting.pop()
        item = resolve(item)
        if item is None:
            continue
        count += 1
        if count > MAX_TYPE_NODES or depth > MAX_TYPE_DEPTH:
            raise ShapeInferenceError("Relay: a type is too large or contains itself; simplify the program")
        yield item
        waiting += [(part, depth + 1) for part in parts(item)]


def _rebuild(ty: Type, change: Callable[[Type], Type]) -> Type:
    if isinstance(ty, TupleType):
        return TupleType(tuple(map(change, ty.fields)))
    if isinstance(ty, FuncType):
        return FuncType(tuple(map(change, ty.params)), change(ty.ret), ty.generics)
    if isinstance(ty, NamedType) and ty.args:
        return NamedType(ty.name, tuple(map(change, ty.args)))
    return ty


def full(ty: Type | None) -> Type:
    """A type with every solved hole replaced."""
    ty = resolve(ty)
    if ty is None:
        return Hole()
    if isinstance(ty, (TensorType, Hole)):
        return ty
    for _ in walk(ty):
        pass
    return _full(ty)


def _full(ty: Type) -> Type:
    return _rebuild(resolve(ty) or ty, _full)


def substitute(ty: Type, mapping: dict[str, Type]) -> Type:
    """A type with type parameters replaced."""
    for _ in walk(ty):
        pass
    return _substitute(ty, mapping)


def _substitute(ty: Type, mapping: dict[str, Type]) -> Type:
    ty = resolve(ty) or ty
    if isinstance(ty, NamedType) and not ty.args:
        return mapping.get(ty.name, ty)
    if isinstance(ty, FuncType) and ty.generics:
        mapping = {k: v for k, v in mapping.items() if k not in ty.generics}
    return _rebuild(ty, lambda part: _substitute(part, mapping))


def agree(a: Dim, b: Dim) -> bool:
    """Whether two lengths can be the same; `?` agrees with all."""
    return a is None or b is None or a == b


def occurs(hole: Hole, ty: Type) -> bool:
    """Whether a hole is part of a type (then they cannot be equal and nothing is learnt)."""
    return any(part is hole for part in walk(ty))


def has_hole(ty: Type | None) -> bool:
    """Whether part of a type is unknown."""
    return ty is None or any(isinstance(part, Hole) for part in walk(ty))


def has_shape(ty: Type) -> bool:
    """Whether a type mentions a tensor with axes."""
    return any(isinstance(part, TensorType) and part.shape for part in walk(ty))
