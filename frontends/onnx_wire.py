"""Protobuf wire format, as far as needed to skip weights and to tell a truncated file from another one.

Field numbers are those of onnx.proto: ModelProto.graph 7, GraphProto.initializer 5, TensorProto.raw_data 9 and the
typed data fields beside it, TensorProto.data_location 14.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

STRIP_FROM_BYTES = 8 << 20
"""Smaller files are parsed whole; in larger ones the weights are skipped."""

_GRAPH, _INITIALIZER = 7, 5
_DATA_FIELDS = frozenset((4, 5, 6, 7, 9, 10, 11))
_KEPT_DATA_BYTES = 65536
_LOCATION_EXTERNAL = b"\x70\x01"
_MODEL_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))

Buffer = bytes | mmap.mmap


class Malformed(ValueError):
    """The bytes are not protobuf."""


class CutOff(Malformed):
    """A field reaches beyond the end by `lost` bytes."""

    def __init__(self, lost: int) -> None:
        super().__init__(lost)
        self.lost = lost


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise Malformed("varint")
    raise CutOff(1)


def fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(number, wire type, start of field, start of payload, end) of each field in a message."""
    while at < end:
        start = at
        key, at = _varint(data, at, end)
        wire = key & 7
        payload = at
        if wire == 0:
            _, at = _varint(data, at, end)
        elif wire == 1:
            at += 8
        elif wire == 5:
            at += 4
        elif wire == 2:
            size, payload = _varint(data, at, end)
            at = payload + size
        else:
            raise Malformed(f"wire type {wire}")
        if at > end:
            raise CutOff(at - end)
        yield key >> 3, wire, start, payload, at


def looks_like_model(head: bytes) -> bool:
    """Whether bytes from the start of a file can be an ONNX ModelProto."""
    seen = False
    try:
        for number, _, _, _, _ in fields(head, 0, len(head)):
            if number not in _MODEL_FIELDS:
                return False
            seen = True
    except CutOff:
        return seen or (bool(head) and head[0] >> 3 in _MODEL_FIELDS)
    except Malformed:
        return False
    return seen


def missing_bytes(content: bytes) -> int:
    """By how many bytes an ONNX file is too short, as far as its outermost fields tell; 0 if it is not just short."""
    seen = 0
    try:
        for number, _, _, _, _ in fields(content, 0, len(content)):
            if number not in _MODEL_FIELDS:
                return 0
            seen += 1
    except CutOff as error:
        return error.lost if seen else 0
    except Malformed:
        return 0
    return 0


def without_weights(path: Path) -> bytes:
    """The file's bytes; in a large file the data of each large initializer is left out and marked as external."""
    if path.stat().st_size < STRIP_FROM_BYTES:
        return path.read_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _strip(data)
        except Malformed:
            return bytes(data)


def _strip(data: mmap.mmap) -> bytes:
    out = bytearray()
    for number, wire, start, payload, end in fields(data, 0, len(data)):
        if number == _GRAPH and wire == 2:
            graph = _strip_graph(data, payload, end)
            out += b"\x3a" + _encoded(len(graph)) + graph
        else:
            out += data[start:end]
    return bytes(out)


def _strip_graph(data: mmap.mmap, at: int, stop: int) -> bytes:
    out = bytearray()
    for number, wire, start, payload, end in fields(data, at, stop):
        if number == _INITIALIZER and wire == 2 and end - payload > _KEPT_DATA_BYTES:
            tensor = bytearray()
            for inner, _, first, _, last in fields(data, payload, end):
                if inner not in _DATA_FIELDS or last - first <= 64:
                    tensor += data[first:last]
            tensor += _LOCATION_EXTERNAL
            out += b"\x2a" + _encoded(len(tensor)) + tensor
        else:
            out += data[start:end]
    return bytes(out)


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
