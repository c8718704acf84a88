"""Types in Relay text: those of the syntax tree and those that comments spell."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from lark import Token, Tree

from costmodel.errors import ModelLoadError
from frontends.relay_ast import Dim, FuncType, Hole, NamedType, TensorType, TupleType, Type, is_dtype
from frontends.relay_grammar import parse_type

MAX_NESTING = 100

_TENSOR = re.compile(r"Tensor\[\s*\(([^()]*)\)\s*,\s*(\w+)\s*\]")
PRELUDE = {
    "List": (("A",), (("Cons", (NamedType("A"), NamedType("List", (NamedType("A"),)))), ("Nil", ()))),
    "Option": (("A",), (("Some", (NamedType("A"),)), ("None", ()))),
}
"""Data types of Relay's prelude that programs use without declaring them."""


@lru_cache(maxsize=4096)
def type_of_text(text: str) -> Type | None:
    """The type that a type comment spells, None if it cannot be read."""
    tree = parse_type(text)
    return None if tree is None else read_type(tree, 0)


@lru_cache(maxsize=4096)
def _tensor(text: str) -> TensorType:
    found = _TENSOR.match(text)
    if found is None:
        raise ModelLoadError(f"Relay text: '{text}' is no tensor type; write Tensor[(dims), dtype]")
    dims: list[Dim] = []
    for word in found[1].split(","):
        word = word.strip()
        if word:
            number = re.match(r"(\d+)(?:i\d+)?$", word)
            dims.append(int(number[1]) if number and len(number[1]) < 20 else None)
    return TensorType(tuple(dims), found[2])


def read_type(tree: Tree[Token], depth: int) -> Type:
    """The type of a syntax tree; `depth` counts how deep it lies in another."""
    if depth > MAX_NESTING:
        raise ModelLoadError("Relay text: a type nests too deep; simplify it")
    kind, kids = tree.data, tree.children
    if kind == "tensor":
        return _tensor(str(kids[0]))
    if kind == "t_name":
        name = str(kids[0])
        return TensorType((), name) if is_dtype(name) else NamedType(name)
    if kind == "t_any":
        return Hole()
    generics: tuple[str, ...] = ()
    parts: list[Type] = []
    for kid in kids:
        if isinstance(kid, Tree):
            if kid.data == "generics":
                generics = tuple(map(str, kid.children))
            elif kid.data == "types":
                parts += [read_type(t, depth + 1) for t in kid.children]  # type: ignore[arg-type]
            else:
                parts.append(read_type(kid, depth + 1))
    if kind == "t_tuple":
        return TupleType(tuple(parts))
    if kind == "t_fn":
        return FuncType(tuple(parts[:-1]), parts[-1], generics)
    return NamedType(str(kids[0]), tuple(parts))


def is_type(tree: Any) -> bool:
    """Whether a call's argument is one of the type arguments that old printers show."""
    if tree.data == "tensor":
        return True
    if tree.data == "name":
        return is_dtype(str(tree.children[0]))
    return tree.data == "tuple" and bool(tree.children) and all(map(is_type, tree.children))
