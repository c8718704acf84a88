"""Reads Relax programs: a live module or function, TVMScript, or the JSON that `tvm.ir.save_json` writes.

TVM (0.27, the extra `tvm`) is imported only to read files; a live module brings its own. TVMScript is parsed by TVM
itself and its metadata may hold arbitrary TVM objects: read such files only from sources you trust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from costmodel.errors import InputError, ModelLoadError
from costmodel.ir import Graph
from frontends.relax_types import kind

_SCRIPT = re.compile(
    rb"^\s*(@(I\.)?ir_module|@(R|relax)\.function|@T\.prim_func|from tvm\.script|# from tvm\.script|"
    rb"metadata = tvm\.ir\.load_json)",
    re.MULTILINE,
)
_IMPORT = re.compile(r"^(from tvm|import tvm)\b.*$", re.MULTILINE)
_INSTALL = "pip install 'ledg-cost[tvm]'"


def sniff(head: bytes) -> bool:
    """Whether the first bytes of a file are TVMScript, or JSON of a TVM whose high-level language is Relax."""
    text = head.lstrip()
    if text.startswith(b"{"):
        return b'"root_index"' in text and b'"type_key"' not in text
    return _SCRIPT.search(text) is not None


def load(
    source: Any,
    batch: int | None = None,
    shapes: Mapping[str, int | tuple[int, ...]] | None = None,
    strict: bool = False,
) -> Graph:
    """Lowers a Relax module or function, its TVMScript or its JSON. Arguments and errors as for `frontends.load`.

    The entry is `main`, or the only public Relax function. A module of TIR functions alone, or a PrimFunc, gives the
    loop graph of `tir_lower`. Where TVM is not installed a file gives ModelLoadError.
    """
    name = ""
    if isinstance(source, (str, Path)):
        name = Path(source).stem
        source = parse(_text(Path(source)), str(source))
    elif isinstance(source, (bytes, bytearray, memoryview)):
        source = parse(bytes(source).decode("utf-8", "replace"), "model")
    return lower_object(source, batch, shapes, strict, name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelLoadError(f"'{path}' cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ModelLoadError(f"'{path}' is neither TVMScript nor JSON; save the module again") from error


def parse(text: str, what: str) -> Any:
    """The TVM object that a text holds; ModelLoadError if TVM is missing or refuses it."""
    try:
        import tvm
        from tvm import relax  # noqa: F401  (registers the operators)
    except ImportError as error:
        raise ModelLoadError(f"'{what}' is a TVM program and TVM cannot be imported; {_INSTALL}") from error
    if text.lstrip().startswith("{"):
        try:
            return tvm.ir.load_json(text)
        except Exception as error:
            raise ModelLoadError(
                f"'{what}' is not JSON of this TVM ({_first_line(error)}); save it with apache-tvm {tvm.__version__}"
            ) from error
    if 'metadata["' in text and "metadata =" not in text:
        raise ModelLoadError(f"'{what}' leaves its constants out; print it with script(show_meta=True)")
    try:
        return tvm.script.from_source(_IMPORT.sub("", text))
    except Exception as error:
        raise ModelLoadError(
            f"'{what}' is not TVMScript of apache-tvm {tvm.__version__} ({_first_line(error)}); print it again"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    told = lines[0] if lines[0].startswith("error:") else lines[-1]
    return told.removeprefix("error:").strip()[:160].rstrip(".;")


def lower_object(
    source: Any,
    batch: int | None,
    shapes: Mapping[str, int | tuple[int, ...]] | None,
    strict: bool,
    name: str = "",
) -> Graph:
    """Lowers a live TVM object; InputError if it is none of those named in `load`."""
    from frontends import relax_entry, tir_lower

    what = kind(source)
    if what == "Function" and type(source).__module__.startswith("tvm.relax."):
        return relax_entry.lower(source, {}, batch, shapes, strict, name)
    if what in ("PrimFunc", "Schedule", "MeasureCandidate"):
        return tir_lower.lower(source, name)
    if what != "IRModule":
        raise InputError(f"a TVM object of type {type(source).__module__}.{what} is not a program; give an IRModule")
    functions = {str(variable.name_hint): function for variable, function in source.functions.items()}
    relax = {n: f for n, f in functions.items() if kind(f) == "Function"}
    if not relax:
        return tir_lower.lower(source, name)
    if any(type(f).__module__.startswith("tvm.relay.") for f in relax.values()):
        raise InputError("the module is Relay; save it as text with module.astext() and give that file")
    entry = _entry(relax)
    return relax_entry.lower(relax[entry], functions, batch, shapes, strict, name or entry)


def _entry(functions: Mapping[str, Any]) -> str:
    """Name of the function to lower."""
    if "main" in functions:
        return "main"
    public = [n for n, f in functions.items() if f.attrs is not None and "global_symbol" in f.attrs] or list(functions)
    if len(public) > 1:
        listed = ", ".join(sorted(public)[:8])
        raise InputError(f"the module has no 'main' but the functions {listed}; name one of them main")
    return public[0]
