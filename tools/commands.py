"""The command that a tool was started with, as its result tables note it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path


def command_line(tool: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """The command with every option that was given another value than its default; files and folders by their kind."""
    words = ["python", f"tools/{Path(tool).name}"]
    for action in parser._actions:
        if not action.option_strings or action.dest == "help":
            continue
        value = getattr(args, action.dest)
        if value == action.default or value is None:
            continue
        words.append(action.option_strings[-1])
        if isinstance(value, Path):
            words.append("DIR" if value.is_dir() else "FILE")
        elif not isinstance(value, bool):
            words += [str(part) for part in value] if isinstance(value, (list, tuple)) else [str(value)]
    return shlex.join(words)
