"""The student encoder, on a toy teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from costmodel.embedding import SentenceEncoder, StudentRunner, write_config, write_table  # noqa: E402
from costmodel.opwords import operator_words  # noqa: E402
from costmodel.student import (  # noqa: E402
    Student,
    StudentConfig,
    agreement,
    build_language,
    build_tokenizer,
    export,
    train_student,
)

SMALL = StudentConfig(width=32, layers=1, nodes=400, paper=50, platforms=50, held_out=40, batch=64, steps=150)


def toy_teacher(sentences: Sequence[str]) -> np.ndarray:
    """Counts letters: a vector of 26 numbers that a student can learn to read off."""
    counts = [[s.lower().count(chr(97 + i)) for i in range(26)] for s in sentences]
    return np.array(counts, np.float32) / 5 + 0.1


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("language")
    report = train_student(folder, toy_teacher, SMALL)
    write_table(folder, ["Act Relu"], toy_teacher(["Act Relu"]))
    write_config(folder, student=report)
    return folder, report


def test_test_groups_share_nothing_with_training() -> None:
    language = build_language(SMALL, ["Act Unheard Of"])
    train = set(language.train)
    assert "Act Unheard Of" in train
    for name, group in language.tests.items():
        assert len(group) == SMALL.held_out, name
        assert train.isdisjoint(group), name
    words = {w for s in train for w in s.split()}
    assert all(set(s.split()) - words for s in language.tests["new words"])
    assert language == build_language(SMALL, ["Act Unheard Of"])


def test_held_out_operators_are_not_in_training() -> None:
    language = build_language(SMALL)
    rest = {s.partition(" ")[2] for s in language.train}
    for sentence in language.tests["held-out operators"]:
        assert sentence.partition(" ")[2] not in rest, sentence


def test_digits_are_read_one_by_one() -> None:
    tokenizer = build_tokenizer(["ParamL Conv 3x3", "Nv GPU FP32 8.1 Turing 70W"] * 5, 200)
    assert tokenizer.encode("312").tokens == ["[CLS]", "3", "1", "2", "[SEP]"]
    assert "[UNK]" not in tokenizer.encode("Other Zorbify 8.14").tokens
    assert len(tokenizer.encode("conv " * 500).ids) == 64


def test_it_learns(trained: tuple[Path, dict[str, Any]]) -> None:
    figures = trained[1]["agreement"]
    assert figures["random"]["centred_cosine_median"] > 0.35  # the mean of the language would score 0
    assert set(figures) == {"training", "random", "held-out operators", "new words", "platforms", "paper"}


def test_one_sentence_has_one_vector_whatever_its_batch(trained: tuple[Path, dict[str, Any]]) -> None:
    folder = trained[0]
    runner = StudentRunner(folder / "student.onnx", folder / "tokenizer.json")
    sentences = ["Act Gelu", "Other Zorbify 3x3 stride 2 depthwise", "Act Gelu", "Nv GPU FP16 65 Turing 70W TensorRT"]
    together = runner.encode(sentences)
    alone = np.concatenate([runner.encode([s]) for s in sentences])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(SentenceEncoder(folder).encode(sentences[:1]), runner.encode(sentences[:1]))


def test_exported_network_equals_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["Act Relu", "ParamL Conv 3x3"], 100)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    student = Student(SMALL, tokenizer.get_vocab_size(), 12).eval()
    for parameter in student.parameters():
        parameter.data = parameter.data.half().float()  # what is stored
    export(student, tmp_path / "student.onnx")
    got = StudentRunner(tmp_path / "student.onnx", tmp_path / "tokenizer.json").encode(["Act Relu"])
    with torch.no_grad():
        wanted = student(torch.tensor([tokenizer.encode("Act Relu").ids])).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_export_is_small(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, report = trained
    weights = report["parameters"] * 2
    assert weights < (folder / "student.onnx").stat().st_size < weights + 60_000


def test_agreement_of_equals_is_one() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    same = agreement(vectors, vectors, vectors.mean(0))
    assert (same["cosine_mean"], same["nearest_is_own"], same["relative_distance_median"]) == (1, 1, 0)
    mirrored = agreement(-vectors, vectors, np.zeros(8, np.float32))
    assert mirrored["cosine_median"] == -1


def test_frequent_operators_are_never_held_out() -> None:
    language = build_language(SMALL)
    assert not [s for s in language.tests["held-out operators"] if f" {operator_words('Conv')} 3x3" in s]
