"""Reads the graph of a `.pt2` file. Neither weights nor pickles in it are ever opened."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from costmodel.errors import ModelLoadError

ZIP_MAGIC = b"PK\x03\x04"

_LEGACY_PROGRAM = "serialized_exported_program.json"


def read(source: str | os.PathLike[str] | bytes) -> tuple[Any, str]:
    """The program of an archive, its weights meta tensors, and its name.

    Raises ModelLoadError for a damaged archive, one without a torch.export program, or one of another torch version.
    """
    what = "model" if isinstance(source, bytes) else str(source)
    content = _program_json(source, what)
    from torch._export.serde import schema
    from torch._export.serde.serialize import ExportedProgramDeserializer, SerializeError, _dict_to_dataclass
    from torch.export.passes import move_to_device_pass

    try:
        described = _dict_to_dataclass(schema.ExportedProgram, json.loads(content))
        state, constants = _weights(described)
        program = ExportedProgramDeserializer().deserialize(described, state, constants)
        program = move_to_device_pass(program, "meta")
    except ImportError as error:
        raise ModelLoadError(
            f"'{what}' uses operators of a library that is not installed ({error}); install it"
        ) from error
    except (SerializeError, RuntimeError, AttributeError, KeyError, TypeError, ValueError, AssertionError) as error:
        reason = " ".join((str(error).strip() or type(error).__name__).split())[:200]
        raise ModelLoadError(
            f"'{what}' is not readable by the installed torch ({reason}); export it again with this version of torch"
        ) from error
    return program, Path(what).stem


def _program_json(source: str | os.PathLike[str] | bytes, what: str) -> bytes:
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            found = [n for n in names if n.rpartition("/")[2] == _LEGACY_PROGRAM]
            found += [n for n in names if "models" in n.split("/")[:-1] and n.endswith(".json")]
            if not found:
                raise ModelLoadError(
                    f"'{what}' is a zip archive without a torch.export program; save with torch.export.save"
                )
            if len(found) > 1:
                raise ModelLoadError(f"'{what}' holds {len(found)} programs; save one per file")
            return archive.read(found[0])
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ModelLoadError(f"'{what}' is a damaged or truncated archive ({error}); save it again") from error


def _weights(described: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Meta tensors for parameters and buffers, and for constants, from the shapes that the graph states."""
    state: dict[str, Any] = {}
    constants: dict[str, Any] = {}
    metas = described.graph_module.graph.tensor_values
    for spec in described.graph_module.signature.input_specs:
        kind, held = spec.type, spec.value
        if kind == "parameter":
            state[held.parameter_name] = _meta(metas[held.arg.name], parameter=True)
        elif kind == "buffer":
            target = state if held.persistent else constants
            target[held.buffer_name] = _meta(metas[held.arg.name])
        elif kind == "tensor_constant":
            constants[held.tensor_constant_name] = _meta(metas[held.arg.name])
    return state, constants


def _meta(described: Any, parameter: bool = False) -> Any:
    import torch
    from torch._export.serde.serialize import deserialize_scalar_type

    size = [d.as_int if d.type == "as_int" else 1 for d in described.sizes]
    tensor = torch.empty(size, dtype=deserialize_scalar_type(described.dtype), device="meta")
    return torch.nn.Parameter(tensor, requires_grad=False) if parameter else tensor
