"""Whole Relax programs: files, shapes, control flow, fused functions, errors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from costmodel.errors import ModelLoadError
from frontends import sniff as detect
from frontends.relax_load import load, sniff

SCRIPT = "# from tvm.script import ir as I\n\n@I.ir_module\nclass Module:\n    pass\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (SCRIPT.encode(), True),
        (b'metadata = tvm.ir.load_json("""{', True),
        (b'{"root_index":1,"nodes":[{"type":"None"}', True),
        (b'{\n  "root": 1,\n  "nodes": [{"type_key": ""}]', False),
        (b'#[version = "0.0.5"]\ndef @main(%x: Tensor[(1), float32]) { %x }', False),
        (b"", False),
    ],
)
def test_sniff(head: bytes, expected: bool) -> None:
    assert sniff(head) is expected


def test_files_are_told_from_other_languages(tmp_path: Path) -> None:
    path = tmp_path / "net.txt"
    path.write_text(SCRIPT)
    assert detect(path).name == "relax"


def test_a_file_without_tvm_is_a_clean_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tvm", None)
    path = tmp_path / "net.py"
    path.write_text(SCRIPT)
    with pytest.raises(ModelLoadError, match=r"ledg-cost\[tvm\]"):
        load(path)
