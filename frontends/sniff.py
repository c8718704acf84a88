"""Tells the language of a model from its content and hands it to that language's reader."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costmodel.canonical import canonical
from costmodel.errors import InputError, ModelLoadError
from costmodel.ir import Graph

HEAD_BYTES = 4096


@dataclass(frozen=True)
class Language:
    """One input language.

    name      for messages
    module    where its `load(source, batch, shapes, strict)` is, imported when needed
    by_bytes  whether the first bytes of a file are of this language
    by_type   module path prefixes of Python objects of this language, or of classes that they derive from
    by_method a method that, in objects of the packages in `by_type`, marks this language
    traced    module path prefix of the Python objects that are traced on example inputs
    """

    name: str
    module: str
    by_bytes: Callable[[bytes], bool]
    by_type: tuple[str, ...] = ()
    by_method: str = ""
    traced: str = ""


def _is_onnx(head: bytes) -> bool:
    from frontends.onnx_wire import looks_like_model

    return looks_like_model(head)


def _is_relay(head: bytes) -> bool:
    from frontends.relay_sniff import sniff as looks_like_relay

    return looks_like_relay(head)


def _is_relax(head: bytes) -> bool:
    from frontends.relax_load import sniff as looks_like_relax

    return looks_like_relax(head)


def _is_torch(head: bytes) -> bool:
    from frontends.torch_export import sniff as looks_like_torch

    return looks_like_torch(head)


_MODULE = "torch.nn.modules.module."

LANGUAGES: list[Language] = [
    Language("torch", "frontends.torch_export", _is_torch, (_MODULE, "torch.export."), traced=_MODULE),
    Language("relay", "frontends.relay_load", _is_relay, ("tvm.",), "astext"),
    Language("relax", "frontends.relax_load", _is_relax, ("tvm.",)),
    Language("onnx", "frontends.onnx_load", _is_onnx, ("onnx.",)),
]
"""Tried in this order; binary ONNX, the least distinctive, stays last."""


def sniff(source: Any) -> Language:
    """The language of a path, bytes or a Python object. Raises ModelLoadError if it is none that is known."""
    if isinstance(source, (str, os.PathLike)):
        what, head = str(source), _head(Path(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        what, head = "model", bytes(source[:HEAD_BYTES])
    else:
        kinds = _kinds(source)
        for language in LANGUAGES:
            ours = any(k.startswith(language.by_type) for k in kinds)
            if ours and hasattr(source, language.by_method or "__class__"):
                return language
        raise ModelLoadError(f"an object of type {kinds[0]} is not a model; give {_known()} or a path")
    if not head:
        raise ModelLoadError(f"'{what}' is empty; export the model again")
    for language in LANGUAGES:
        if language.by_bytes(head):
            return language
    raise ModelLoadError(f"'{what}' is not a model in a known language; give {_known()}")


def _kinds(source: Any) -> list[str]:
    """The class of an object and those it derives from, by full name."""
    return [f"{t.__module__}.{t.__qualname__}" for t in type(source).__mro__]


def _head(path: Path) -> bytes:
    if path.is_dir():
        raise ModelLoadError(f"'{path}' is a directory; give the model file inside it")
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except FileNotFoundError as error:
        raise ModelLoadError(f"'{path}' does not exist; check the path") from error
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"'{path}' cannot be read ({error}); check the path and its permissions") from error


def _known() -> str:
    return " or ".join(language.name for language in LANGUAGES)


def load(
    source: Any,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
    example_inputs: Any = None,
) -> Graph:
    """Lowers a model to the IR, in its canonical form (see `costmodel.canonical`).

    source          path, bytes, or an object of a known library (onnx.ModelProto, torch.nn.Module, tvm.IRModule)
    batch           size of the leading axis where it is symbolic (default 1), or in place of the exported size
    shapes          input name → whole shape, or symbolic axis → size
    strict          refuse operators without a lowering instead of keeping them as opaque nodes
    example_inputs  for a torch.nn.Module: a tensor, a shape, a sequence of them, or a mapping from argument name to
                    them; only shapes and types are looked at

    Raises ModelLoadError if it cannot be read, DynamicShapeError for axes left open, ShapeInferenceError where a shape
    stays unknown, UnsupportedOpError under `strict` with all such operators, InputError for graphs that are not valid
    and for example inputs of anything but a module.
    """
    language = sniff(source)
    options: dict[str, Any] = {}
    if example_inputs is not None:
        if not (language.traced and any(kind.startswith(language.traced) for kind in _kinds(source))):
            raise InputError(
                f"example_inputs are for torch modules, and this {language.name} model declares its own inputs;"
                " give batch or shapes instead"
            )
        options["example_inputs"] = example_inputs
    reader: Any = importlib.import_module(language.module)
    graph: Graph = reader.load(source, batch=batch, shapes=shapes, strict=strict, **options)
    return canonical(graph)
