"""Which models the arguments of a ranking name: files, folders, lists and search-space networks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from costmodel.corpora import can_build
from costmodel.errors import InputError

MODEL_SUFFIXES = frozenset((".onnx", ".pt2", ".relay", ".relax"))
"""Files of a folder that are models even if their content does not say so; they are reported when unreadable."""

IsModel = Callable[[str], bool]


def collect(arguments: Iterable[str], lines: Iterable[str], is_model: IsModel) -> Iterator[str]:
    """Model paths and architecture strings (`nb201/…`, see `costmodel.corpora`), in order, as they are read.

    A folder gives the models in it and below, sorted. A text file that is no model, and `-`, which stands for `lines`,
    give one path or architecture string per line; empty lines and those that begin with # are skipped, and relative
    paths may start from the list's folder.
    is_model  tells a model file by its content

    Raises InputError for a list that cannot be read.
    """
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            yield from _listed(lines, "standard input", None)
        elif is_architecture(argument):
            yield argument
        elif path.is_dir():
            yield from _folder(path, is_model)
        elif path.is_file() and not is_model(argument) and _is_text(path):
            with path.open(encoding="utf-8") as file:
                yield from _listed(file, argument, path.parent)
        else:
            yield argument


def is_architecture(name: str) -> bool:
    """Whether a name is an architecture string; an existing file of that name comes first."""
    return can_build(name) and not os.path.exists(name)


def _folder(folder: Path, is_model: IsModel) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and (path.suffix.lower() in MODEL_SUFFIXES or is_model(str(path))):
            yield str(path)


def _listed(lines: Iterable[str], source: str, folder: Path | None) -> Iterator[str]:
    try:
        for line in lines:
            name = line.strip()
            if not name or name.startswith("#"):
                continue
            beside = folder / name if folder and not os.path.isabs(name) else None
            yield str(beside) if beside and beside.is_file() and not os.path.exists(name) else name
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the list of models in {source} ({error}); give UTF-8 text") from error


def _is_text(path: Path) -> bool:
    """Whether the first block of a file is UTF-8 without control characters."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        text = head.decode("utf-8", errors="strict" if len(head) < 4096 else "ignore")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(text.strip()) and all(c.isprintable() or c in "\t\r\n" for c in text)
