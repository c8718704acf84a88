from __future__ import annotations

from pathlib import Path

import pytest

from costmodel.errors import InputError
from costmodel.ranking.inputs import collect

CELL = "nb201/|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


def is_model(path: str) -> bool:
    return Path(path).read_bytes().startswith(b"MODEL")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, content in {
        "b.onnx": b"MODEL", "a.onnx": b"broken", "sub/c.bin": b"MODEL", "notes.md": b"no model", ".git/d.onnx": b"MODEL"
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def names(*arguments: object, lines: tuple[str, ...] = ()) -> list[str]:
    return list(collect(map(str, arguments), lines, is_model))


def test_a_folder_gives_its_models_and_what_is_named_like_one(tree: Path) -> None:
    assert names(tree) == [str(tree / n) for n in ("a.onnx", "b.onnx", "sub/c.bin")]


def test_lists_give_paths_and_architectures(tree: Path) -> None:
    listing = tree / "list.txt"
    listing.write_text(f"# comment\n\n  b.onnx \n{CELL}\nmissing.onnx\n{tree / 'a.onnx'}\n")
    assert names(listing) == [str(tree / "b.onnx"), CELL, "missing.onnx", str(tree / "a.onnx")]


def test_standard_input_files_and_architectures_in_order(tree: Path) -> None:
    found = names(tree / "b.onnx", "-", CELL, "gone.onnx", lines=("fbnet/skip\n", "x.onnx\n"))
    assert found == [str(tree / "b.onnx"), "fbnet/skip", "x.onnx", CELL, "gone.onnx"]


def test_binary_files_that_are_no_list_stay_models(tree: Path) -> None:
    (tree / "blob").write_bytes(bytes(range(256)))
    (tree / "empty").write_bytes(b"")
    assert names(tree / "blob", tree / "empty") == [str(tree / "blob"), str(tree / "empty")]


def test_a_stream_is_read_no_further_than_asked() -> None:
    endless = (f"m{i}.onnx\n" for i in iter(int, 1))
    found = collect(["-"], endless, is_model)
    assert [next(found) for _ in range(3)] == ["m0.onnx"] * 3


def test_a_list_that_breaks_off_is_an_error(tree: Path) -> None:
    listing = tree / "list.txt"
    listing.write_bytes(b"a.onnx\n" * 1000 + b"\xff\xfe")
    with pytest.raises(InputError, match=r"list\.txt"):
        names(listing)
