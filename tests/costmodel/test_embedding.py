"""The sentence table, the student's place behind it, and broken folders."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from costmodel.embedding import SentenceEncoder, write_config, write_table
from costmodel.errors import BundleVersionError, CorruptBundleError

SENTENCES = ["Act Relu", "Elem Add", "ParamL Conv 3x3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vectors = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    write_table(tmp_path, SENTENCES, vectors)
    write_config(tmp_path, teacher={"name": "test"})
    return tmp_path


class EchoStudent:
    """Answers each sentence with its length, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, sentences: list[str]) -> np.ndarray:
        self.asked += sentences
        return np.array([[len(s)] * 8 for s in sentences], np.float32)


def with_student(folder: Path) -> tuple[SentenceEncoder, EchoStudent]:
    encoder, student = SentenceEncoder(folder), EchoStudent()
    encoder.__dict__["_runner"] = student
    return encoder, student


def test_table_comes_back_in_order(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    table = np.load(folder / "embeddings.npy").astype(np.float32)
    got = encoder.encode(["ParamL Conv 3x3", "Act Relu", "ParamL Conv 3x3"])
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, table[[2, 0, 2]])
    assert encoder.width == 8
    assert encoder.encode([]).shape == (0, 8)
    assert "Act Relu" in encoder
    assert "Act Gelu" not in encoder
    assert not encoder.by_student


def test_student_answers_the_rest_once(folder: Path) -> None:
    encoder, student = with_student(folder)
    asked = ["Act Gelu", "Act Relu", "Act Gelu", "Norm Foo"]
    assert encoder.unseen(asked) == ["Act Gelu", "Norm Foo"]
    got = encoder.encode(asked)
    np.testing.assert_array_equal(got[[0, 2, 3], 0], [8, 8, 8])
    encoder.encode(asked)
    assert student.asked == ["Act Gelu", "Norm Foo"]
    assert list(encoder.by_student) == ["Act Gelu", "Norm Foo"]


def test_table_needs_no_student_and_no_runtime(folder: Path) -> None:
    code = (
        "import sys; from costmodel.embedding import SentenceEncoder;"
        f"SentenceEncoder({str(folder)!r}).encode(['Act Relu']);"
        "print([m for m in ('torch', 'onnxruntime', 'tokenizers', 'transformers', 'onnx') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["sentences.txt", "embeddings.npy", "encoder.json"])
def test_missing_file_is_one_line(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(CorruptBundleError, match=r"reinstall or retrain it$"):
        SentenceEncoder(folder).encode(["Act Relu"])


@pytest.mark.parametrize("name", ["embeddings.npy", "encoder.json"])
def test_broken_file_is_one_line(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\x00nonsense")
    with pytest.raises(CorruptBundleError) as caught:
        SentenceEncoder(folder)
    assert "\n" not in str(caught.value)


def test_table_of_another_length_is_refused(folder: Path) -> None:
    (folder / "sentences.txt").write_text("Act Relu\n")
    with pytest.raises(CorruptBundleError, match="1 sentences but 3 embeddings"):
        SentenceEncoder(folder).encode(["Act Relu"])


def test_missing_student_is_one_line(folder: Path) -> None:
    with pytest.raises(CorruptBundleError, match=r"student.onnx is missing"):
        SentenceEncoder(folder).encode(["Act Gelu"])


def test_broken_student_is_one_line(folder: Path) -> None:
    (folder / "student.onnx").write_bytes(b"no model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CorruptBundleError, match="cannot be loaded"):
        SentenceEncoder(folder).encode(["Act Gelu"])


def test_other_template_version_is_refused(folder: Path) -> None:
    config = json.loads((folder / "encoder.json").read_text())
    config["template_version"] += 1
    (folder / "encoder.json").write_text(json.dumps(config))
    with pytest.raises(BundleVersionError, match=r"reinstall or retrain it$"):
        SentenceEncoder(folder)


@pytest.mark.parametrize("sentences", [["a", "a"], ["a\nb", "c"], ["", "c"]])
def test_table_refuses_what_it_cannot_read_back(tmp_path: Path, sentences: list[str]) -> None:
    with pytest.raises(ValueError, match="distinct single lines"):
        write_table(tmp_path, sentences, np.zeros((2, 4)))


def test_rounding_of_the_table(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).normal(scale=0.4, size=(50, 384)).astype(np.float32)
    names = [f"s{i}" for i in range(50)]
    write_table(tmp_path, names, vectors)
    write_config(tmp_path)
    assert np.abs(SentenceEncoder(tmp_path).encode(names) - vectors).max() < 1e-3


def test_extending_the_table_adds_and_replaces(tmp_path: Path) -> None:
    from costmodel.embedding import EMBEDDINGS, SENTENCES, extend_table

    write_table(tmp_path, ["a", "b"], np.zeros((2, 3)))
    extend_table(tmp_path, ["b", "c"], np.ones((2, 3)))
    assert (tmp_path / SENTENCES).read_text().splitlines() == ["a", "b", "c"]
    np.testing.assert_array_equal(np.load(tmp_path / EMBEDDINGS)[:, 0], [0, 1, 1])
