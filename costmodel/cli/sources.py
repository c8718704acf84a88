"""Models named on the command line: files, lists of them and generated networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from costmodel.errors import InputError

if TYPE_CHECKING:
    from costmodel.ir import Graph

GENERATED = "gen/"
POOL_PER_FAMILY = 20


@dataclass(frozen=True)
class Source:
    """A model to measure: its name and a function that gives a file's path or an ONNX model's bytes."""

    name: str
    content: Callable[[], str | bytes]


def sources_of(
    models: Sequence[str], lists: Sequence[str], families: Sequence[str], select: int | None
) -> list[Source]:
    """All models asked for, in order, without repeats. Raises InputError for names and files that do not exist."""
    found = [_source(m) for m in models]
    for path in lists:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the list {path!r} ({error}); give a text file of models") from None
        for line in filter(str.strip, lines):
            name, tab, file = line.strip().partition("\t")
            found.append(_source(file if tab else name, name if tab else ""))
    for family in families:
        found += _family(family)
    if not found and select:
        from profiler.workloads import FAMILIES

        found = [s for f in FAMILIES for s in _family(f"{f}:{POOL_PER_FAMILY}")]
    if not found:
        raise InputError("nothing to measure; name models, or use --family resnet:20, --list FILE or --select 20")
    return list({s.name: s for s in found}.values())


def _source(text: str, name: str = "") -> Source:
    if text.startswith(GENERATED):
        return generated(text)
    if not Path(text).is_file():
        raise InputError(f"no file {text!r}; check the path, or name a generated model such as gen/resnet/17")
    return Source(name or Path(text).stem, lambda: str(text))


def generated(text: str) -> Source:
    """The generated network of a name such as gen/resnet/17. Raises InputError."""
    from profiler.workloads import parse_name

    family, seed = parse_name(text)
    _check(family)
    return _generated(family, seed)


def _generated(family: str, seed: int) -> Source:
    def content() -> bytes:
        from profiler.workloads import generate

        model: bytes = generate(family, seed).SerializeToString()
        return model

    return Source(f"{GENERATED}{family}/{seed}", content)


def generated_graph(name: str) -> Graph:
    """The graph of a generated network by its name, such as gen/resnet/17. Raises InputError."""
    from costmodel.api import load_graph
    from profiler.workloads import generate, parse_name

    return load_graph(generate(*parse_name(name)))


def _family(text: str) -> Iterator[Source]:
    name, _, count = text.partition(":")
    first, dash, last = count.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise click.BadParameter(f"cannot read family {text!r}; write resnet:150 or resnet:100-149")
    _check(name)
    for seed in range(int(first), int(last) + 1) if dash else range(int(first)):
        yield _generated(name, seed)


@cache
def _check(family: str) -> None:
    """Raises InputError for an unknown family, before anything is measured."""
    _generated(family, 0).content()
