"""Attributes of ONNX nodes as Python values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import AttributeProto


def decode_attrs(attributes: Sequence[AttributeProto], bound: Mapping[str, Any] | None) -> dict[str, Any]:
    """Attributes as Python values; references to a function's attributes take the caller's."""
    found: dict[str, Any] = {}
    for a in attributes:
        if a.ref_attr_name:
            if bound and a.ref_attr_name in bound:
                found[a.name] = bound[a.ref_attr_name]
            continue
        decode = _DECODERS.get(a.type or _guess(a))
        if decode is not None:
            found[a.name] = decode(a)
    return found


_DECODERS: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda a: a.f,
    AttributeProto.INT: lambda a: a.i,
    AttributeProto.STRING: lambda a: a.s.decode("utf-8", "replace"),
    AttributeProto.TENSOR: lambda a: a.t,
    AttributeProto.GRAPH: lambda a: a.g,
    AttributeProto.SPARSE_TENSOR: lambda a: a.sparse_tensor,
    AttributeProto.FLOATS: lambda a: tuple(a.floats),
    AttributeProto.INTS: lambda a: tuple(a.ints),
    AttributeProto.STRINGS: lambda a: tuple(s.decode("utf-8", "replace") for s in a.strings),
}


def _guess(a: AttributeProto) -> int:
    """Type of an attribute that files of IR version 1 leave out."""
    for field, code in (("f", 1), ("i", 2), ("s", 3), ("t", 4), ("g", 5)):
        if a.HasField(field):
            return code
    return 6 if a.floats else 7 if a.ints else 8 if a.strings else 0
