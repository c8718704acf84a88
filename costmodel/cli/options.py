"""Option values shared by the commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from costmodel.cli.sources import GENERATED, generated
from costmodel.errors import InputError


def words(values: Sequence[str]) -> list[str]:
    """Options given several times or separated by commas, in order, as one list without repeats."""
    return list(dict.fromkeys(w.strip() for v in values for w in v.split(",") if w.strip()))


def batches(values: Sequence[str]) -> list[int | None]:
    """Batch sizes of `--batch`; [None] where none is given. Raises click.BadParameter."""
    found: list[int | None] = []
    for word in words(values):
        if not word.isdigit() or int(word) < 1:
            raise click.BadParameter(f"{word!r} is not a batch size; give whole numbers from 1, such as --batch 1,8")
        found.append(int(word))
    return found or [None]


def shapes(values: Sequence[str]) -> Mapping[str, int | tuple[int, ...]]:
    """`--shape NAME:1,128` (an input's whole shape) and `--shape SYMBOL=128` (one axis). Raises click.BadParameter."""
    found: dict[str, int | tuple[int, ...]] = {}
    for value in values:
        whole = re.fullmatch(r"(.+):\s*\[?(\d+(?:\s*[,x]\s*\d+)*)\]?", value)
        symbol = re.fullmatch(r"(.+)=(\d+)", value)
        if symbol:
            found[symbol[1]] = int(symbol[2])
        elif whole:
            found[whole[1]] = tuple(int(d) for d in re.split(r"[,x]", whole[2]))
        else:
            raise click.BadParameter(f"cannot read shape {value!r}; write INPUT:1,3,224,224 or SYMBOL=128")
    return found


def source(path: str) -> Any:
    """A model argument: `-` reads standard input, a name such as gen/resnet/17 is generated."""
    if path.startswith(GENERATED):
        return generated(path).content()
    if path != "-":
        return path
    raw = sys.stdin.buffer.read()
    if not raw:
        raise InputError("standard input is empty; pipe a model into `ledg-cost … -`")
    return raw


def label(path: str) -> str:
    """How tables name a model argument."""
    return path if path == "-" or path.startswith(GENERATED) else Path(path).stem


model_options = [
    click.option(
        "--shape",
        "shape",
        multiple=True,
        metavar="NAME:DIMS|SYMBOL=N",
        help="Bind an input's shape or a symbolic axis.",
    ),
    click.option("--strict", is_flag=True, help="Unknown operators are an error that lists all of them."),
]


def with_options(options: Sequence[Any]) -> Any:
    """Decorator that adds a list of click options in order."""

    def wrap(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return wrap
