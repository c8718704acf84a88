"""Reads an ONNX model without its weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.message import DecodeError
from onnx import ModelProto

from costmodel.errors import LedgCostError, ModelLoadError
from costmodel.ir import Graph
from frontends.onnx_lower import MALFORMED, lower
from frontends.onnx_wire import missing_bytes, without_weights


def load(
    source: str | os.PathLike[str] | bytes | ModelProto,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
) -> Graph:
    """Lowers an ONNX file, its bytes or a ModelProto. Arguments and errors as for `frontends.load`."""
    try:
        if isinstance(source, ModelProto):
            return lower(source, batch, shapes, strict)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return lower(parse(bytes(source), "model"), batch, shapes, strict)
        path = Path(source)
        return lower(read(path), batch, shapes, strict, folder=path.parent, name=path.stem)
    except LedgCostError as error:
        error.args = tuple(_printable(a) if isinstance(a, str) else a for a in error.args)
        raise
    except MALFORMED as error:
        # Reached by files whose names or numbers are not what their protobuf fields promise, such as invalid UTF-8.
        reason = _printable(f"{type(error).__name__}: {error}")
        raise ModelLoadError(f"the ONNX model is damaged ({reason}); export the model again") from error


def _printable(text: str) -> str:
    """The text on one line: names in a damaged file can hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


def read(path: Path) -> ModelProto:
    """Parses a file; weights inside large files are skipped, not read."""
    try:
        content = without_weights(path)
    except OSError as error:
        raise ModelLoadError(f"'{path}' cannot be read ({error.strerror}); check the path") from error
    return parse(content, str(path))


def parse(content: bytes, what: str) -> ModelProto:
    """Parses the bytes of a model; ModelLoadError if they are empty, cut off or something else."""
    if not content:
        raise ModelLoadError(f"'{what}' is empty; export the model again")
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        lost = missing_bytes(content)
        if lost:
            raise ModelLoadError(
                f"'{what}' is a truncated ONNX file, at least {lost} bytes are missing; copy or download it again"
            ) from error
        raise ModelLoadError(f"'{what}' is not an ONNX file or is damaged; export the model again") from error
    if not model.HasField("graph"):
        raise ModelLoadError(f"'{what}' holds no ONNX graph; give an ONNX model file")
    if not model.opset_import:
        raise ModelLoadError(f"'{what}' names no operator set, so it is truncated or not ONNX; export it again")
    return model
