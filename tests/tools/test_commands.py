"""The command that result tables name."""

from __future__ import annotations

import argparse
from pathlib import Path

from tools.commands import command_line


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--networks", nargs="*", default=("a",))
    parser.add_argument("--out", type=Path)
    return parser


def test_names_what_was_given_and_no_path_of_this_machine(tmp_path):
    parser = _parser()
    args = parser.parse_args(["--data", str(tmp_path), "--rounds", "7", "--networks", "b", "c", "--out", "x.json"])
    said = command_line("/anywhere/tools/check.py", parser, args)
    assert said == "python tools/check.py --data DIR --rounds 7 --networks b c --out FILE"


def test_leaves_out_what_was_not_given():
    parser = _parser()
    assert command_line("check.py", parser, parser.parse_args([])) == "python tools/check.py"
