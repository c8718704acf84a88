"""The node table of Relay JSON: references, attributes, types and constants.

The file is a list of nodes that refer to each other by index, written as strings. Only headers of the base64 tensors
are decoded, and the content of small ones.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Any

from costmodel.errors import ModelLoadError
from frontends.relay_ast import Const, FuncType, Hole, NamedType, TensorType, TupleType, Type, words
from frontends.relay_typetools import walk

Metadata = dict[str, Const]

MAX_NESTING = 100
SMALL = 64
"""Constants of at most this many elements keep their content (axes, scalars, crops)."""

_CODES = {0: "int", 1: "uint", 2: "float", 3: "handle", 4: "bfloat"}
_UNPACK = {
    "int8": "b", "int16": "h", "int32": "i", "int64": "q", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q",
    "float16": "e", "float32": "f", "float64": "d", "bool": "?",
}  # fmt: skip

# Attributes that hold a number itself; every other number in `attrs` is the index of a node.
_LITERALS = frozenset(
    words(
        """groups index epsilon center scale ceil_mode count_include_pad keepdims exclude num_newaxis transpose_a
    transpose_b is_ascend select_last_index unbiased allowzero reverse auto_scheduler_rewritten_layout_dummy
    rate alpha bias beta size_dummy a_min a_max depth block_size num_groups eps cubic_alpha cubic_exclude
    extrapolation_value scale_h scale_w scale_d align_corners constrain_body constrain_result device_type_int
    virtual_device_id tag kind deformable_groups spatial_scale sample_ratio pooled_size_dummy kernel_size_dummy
    max_displacement stride1 stride2 is_multiply num_class clip threshold iou_threshold top_k id_index
    coord_start score_index force_suppress max_output_size return_indices invalid_to_bottom multiplier"""
    )
)
_LITERAL_AXIS = frozenset(
    """Concatenate Softmax BiasAdd BatchNorm LayerNorm GroupNorm InstanceNorm ExpandDims Split TopK Argsort OneHot LRN
    PRelu Requantize Quantize Dequantize Simulated_Quantize SequenceMask GatherND Sort FixedPointMultiplyPerAxis
    BroadcastAxis Glu""".lower().split()
)
_LITERAL_SIZE = frozenset(("LRN",))


def read_table(text: str) -> dict[str, Any]:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelLoadError(f"Relay JSON: {str(error)[:120]}; save the module again with tvm.ir.save_json") from None
    nodes = table.get("nodes") if isinstance(table, dict) else None
    if not isinstance(nodes, list) or not all(
        isinstance(n, dict) and isinstance(n.get("type_key"), str) for n in nodes
    ):
        raise ModelLoadError("Relay JSON: no table of nodes with type_key; save the module with tvm.ir.save_json")
    return table


class NodeTable:
    """Follows references of one node table."""

    def __init__(self, table: dict[str, Any]) -> None:
        self.nodes: list[dict[str, Any]] = table["nodes"]
        self.root = self.ref(table.get("root", 1))
        tensors = table.get("b64ndarrays") or []
        self.tensors: list[Any] = tensors if isinstance(tensors, list) else []
        self.types: dict[int, Type] = {}
        self.plains: dict[int, Any] = {}

    # references

    def ref(self, value: Any) -> int:
        """A node index; raises ModelLoadError if it points nowhere."""
        try:
            index = int(value)
        except (TypeError, ValueError):
            index = -1
        if not 0 <= index < len(self.nodes):
            raise ModelLoadError(f"Relay JSON: '{str(value)[:24]}' is no node; the file is truncated, save it again")
        return index

    def node(self, value: Any) -> dict[str, Any]:
        """The node that a reference points to."""
        return self.nodes[self.ref(value)]

    def kind(self, value: Any) -> str:
        """Its type key, `""` for null."""
        return str(self.node(value)["type_key"])

    def attr(self, value: Any, name: str) -> Any:
        """A raw attribute of a node."""
        attrs = self.node(value).get("attrs")
        if not isinstance(attrs, dict) or name not in attrs:
            raise ModelLoadError(
                f"Relay JSON: a {self.kind(value) or 'null'} node has no '{name}'; the file is damaged, save it again"
            )
        return attrs[name]

    def list(self, value: Any) -> list[Any]:
        """References that an Array node holds."""
        data = self.node(value).get("data") or []
        return data if isinstance(data, list) else []

    def name(self, value: Any) -> str:
        """The text of a string node, or of a node's `name_hint`."""
        node = self.node(value)
        if "repr_str" in node:
            return str(node["repr_str"])
        attrs = node.get("attrs") or {}
        hint = attrs.get("name_hint") if isinstance(attrs, dict) else None
        if hint is None:
            return ""
        text = str(hint)
        return self.name(text) if text.isdigit() and self.node(text).get("type_key") == "runtime.String" else text

    # plain values and types

    def plain(self, value: Any, depth: int = 0) -> Any:
        """An attribute value: number, bool, string, list or dict; None for null and for objects that do not matter."""
        index = self.ref(value)
        if index in self.plains:
            return self.plains[index]
        if depth > MAX_NESTING:
            raise ModelLoadError("Relay JSON: attributes nest too deep; the file is damaged, save it again")
        kind = self.kind(index)
        result: Any = None
        if kind in ("IntImm", "FloatImm"):
            number = str(self.attr(index, "value"))
            result = literal(number)
            if kind == "IntImm" and self.attr(index, "dtype") == "bool":
                result = bool(result)
        elif kind == "Array":
            result = [self.plain(v, depth + 1) for v in self.list(index)]
        elif kind == "Map":
            keys = self.node(index).get("keys") or []
            result = {str(k): self.plain(v, depth + 1) for k, v in zip(keys, self.list(index), strict=False)}
        elif kind in ("runtime.String", "StringImm"):
            result = self.name(index)
        elif kind.endswith("Constant"):
            result = self.constant(index).value
        self.plains[index] = result
        return result

    def attrs(self, value: Any) -> dict[str, Any]:
        """The attributes of a call."""
        node = self.node(value)
        kind = str(node["type_key"]).rpartition(".")[2].removesuffix("Attrs").lower()
        raw = node.get("attrs") or {}
        if node["type_key"] == "DictAttrs" or kind == "dict":
            inner = raw.get("__dict__")
            return self.plain(inner) or {} if inner is not None else {}
        found: dict[str, Any] = {}
        for name, text in raw.items():
            text = str(text)
            plain = (
                name in _LITERALS or (name == "axis" and kind in _LITERAL_AXIS) or (name == "size" and kind == "lrn")
            )
            number = literal(text)
            if plain or not isinstance(number, int) or not 0 <= number < len(self.nodes):
                found[name] = number
            else:
                found[name] = self.plain(number)
        return found

    def type(self, value: Any, depth: int = 0) -> Type | None:
        """A type; None for null."""
        index = self.ref(value)
        if index in self.types:
            return self.types[index]
        if depth > MAX_NESTING:
            raise ModelLoadError("Relay JSON: a type nests too deep; the file is damaged, save it again")
        kind = self.kind(index)
        found: Type | None

        def inner(name: str) -> tuple[Type, ...]:
            return tuple(self.type(v, depth + 1) or Hole() for v in self.list(self.attr(index, name)))

        if kind in ("", "IncompleteType"):
            return None if kind == "" else Hole()
        if kind == "relay.TensorType":
            dims = [self.plain(v) for v in self.list(self.attr(index, "shape"))]
            shape = tuple(d if isinstance(d, int) and d >= 0 else None for d in dims)
            found = TensorType(shape, str(self.attr(index, "dtype")).replace("uint1", "bool"))
            if found.dtype.startswith("bool") and found.dtype != "bool":
                found = TensorType(shape, str(self.attr(index, "dtype")))
        elif kind == "TupleType":
            found = TupleType(inner("fields"))
        elif kind == "FuncType":
            generics = tuple(self.name(v) for v in self.list(self.attr(index, "type_params")))
            found = FuncType(inner("arg_types"), self.type(self.attr(index, "ret_type"), depth + 1) or Hole(), generics)
        elif kind == "TypeCall":
            found = NamedType(self.name(self.attr(index, "func")), inner("args"))
        elif kind == "relay.RefType":
            found = NamedType("ref", (self.type(self.attr(index, "value"), depth + 1) or Hole(),))
        elif kind in ("TypeVar", "GlobalTypeVar"):
            found = NamedType(self.name(index))
        else:
            raise ModelLoadError(f"Relay JSON: '{kind}' is no type; save the module before it is lowered further")
        for _ in walk(found):
            pass
        self.types[index] = found
        return found

    def constant(self, value: Any) -> Const:
        """A constant's type, and its content if small."""
        index = self.ref(value)
        data = self.attr(index, "data")
        try:
            raw = self.tensors[int(data)]
            return _tensor(raw)
        except (IndexError, TypeError, ValueError, struct.error, binascii.Error):
            raise ModelLoadError(
                f"Relay JSON: tensor {str(data)[:24]} is missing or damaged; save the module again"
            ) from None


def read_metadata(text: str) -> Metadata:
    """Constants of a program's metadata section, under the names the text uses (`meta[relay.Constant][0]`)."""
    table = NodeTable(read_table(text))
    found: Metadata = {}
    root = table.node(table.root)
    for kind, index in zip(root.get("keys") or (), root.get("data") or (), strict=False):
        for i, member in enumerate(table.list(index)):
            key = f"meta[{kind}][{i}]"
            if table.kind(member).endswith("Constant"):
                found[key] = table.constant(member)
            else:
                found[key] = Const(None, table.plain(member), key)
    return found


def literal(text: str) -> int | float | str:
    """A number or the text itself."""
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _tensor(encoded: Any) -> Const:
    """Type and small content of a serialised NDArray: magic, reserved, device (2 int32), rank, dtype, shape, bytes."""
    head = base64.b64decode(str(encoded)[: 4 * 400])
    rank, code, bits, lanes = struct.unpack_from("<iBBH", head, 24)
    if not 0 <= rank <= 16 or code not in _CODES or lanes != 1:
        raise ValueError("not a tensor")
    shape = struct.unpack_from(f"<{rank}q", head, 32)
    dtype = "bool" if code == 1 and bits == 1 else _CODES[code] + str(bits)
    if any(d < 0 for d in shape):
        raise ValueError("negative dimension")
    return Const(TensorType(shape, dtype), _content(head, 32 + 8 * rank + 8, shape, dtype))


def _content(raw: bytes, start: int, shape: tuple[int, ...], dtype: str) -> Any:
    count = math.prod(shape)
    letter = _UNPACK.get(dtype)
    if letter is None or count > SMALL or len(raw) < start + count * struct.calcsize(letter):
        return None
    values: list[Any] = list(struct.unpack_from(f"<{count}{letter}", raw, start))
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [values[i : i + size] for i in range(0, len(values), size)] if size else []
    return values
