"""Sentences to vectors without a language model: a table for what is known, a small student for the rest.

A language folder holds
    sentences.txt     one known sentence per line
    embeddings.npy    their embeddings by the teacher, float16 [sentences, width], memory mapped
    student.onnx      the student encoder: token ids → embedding  (run by onnxruntime)
    tokenizer.json    its WordPiece vocabulary                             (read by tokenizers)
    encoder.json      format, template version, teacher and the student's measured agreement
onnxruntime and tokenizers are imported only when a sentence is not in the table.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costmodel.errors import BundleVersionError, CorruptBundleError
from costmodel.prompts import TEMPLATE_VERSION
from costmodel.sessions import open_session

FORMAT = 1
SENTENCES, EMBEDDINGS, STUDENT, TOKENIZER, CONFIG = (
    "sentences.txt",
    "embeddings.npy",
    "student.onnx",
    "tokenizer.json",
    "encoder.json",
)
Vectors = NDArray[np.float32]


class SentenceEncoder:
    """The encoder of a language folder; keeps every answer in memory.

    width           size of an embedding
    by_student      sentences answered by the student since it was opened, in order: not in the table

    Raises CorruptBundleError if a file is missing or broken, BundleVersionError if it was made for other sentences.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.config = self._read_config()
        self._table = self._open_table()
        self.width = int(self._table.shape[1])
        self._place: dict[str, int] = {}
        self._vectors = np.empty((256, self.width), np.float32)
        self._learning = Lock()
        self.by_student: dict[str, None] = {}

    def __contains__(self, sentence: str) -> bool:
        return sentence in self._rows

    def encode(self, sentences: Sequence[str]) -> Vectors:
        """Embeddings float32 [n, width], in order. A sentence has one vector, whatever stands beside it."""
        place = self._place
        if not place.keys() >= set(sentences):
            with self._learning:
                self._learn([s for s in dict.fromkeys(sentences) if s not in place])
        return self._vectors[[place[s] for s in sentences]] if sentences else np.zeros((0, self.width), np.float32)

    def _learn(self, fresh: Sequence[str]) -> None:
        """Puts sentences that were never asked for behind those that were."""
        count = len(self._place)
        if count + len(fresh) > len(self._vectors):
            grown = np.empty((2 * (count + len(fresh)), self.width), np.float32)
            grown[:count] = self._vectors[:count]
            self._vectors = grown
        seen = [s for s in fresh if s in self._rows]
        unseen = self.unseen(fresh)
        if seen:
            self._vectors[count : count + len(seen)] = self._table[[self._rows[s] for s in seen]]
        if unseen:
            self._vectors[count + len(seen) : count + len(fresh)] = self._student(unseen)
            self.by_student.update(dict.fromkeys(unseen))
        self._place.update(zip([*seen, *unseen], range(count, count + len(fresh)), strict=True))

    def unseen(self, sentences: Iterable[str]) -> list[str]:
        """The sentences that are not in the table, each once: the student would answer them."""
        return [s for s in dict.fromkeys(sentences) if s not in self._rows]

    @cached_property
    def _rows(self) -> dict[str, int]:
        text = self._file(SENTENCES).read_text(encoding="utf-8")
        rows = {sentence: row for row, sentence in enumerate(text.splitlines())}
        if len(rows) != len(self._table):
            raise CorruptBundleError(
                f"{self.directory}: {len(rows)} sentences but {len(self._table)} embeddings; reinstall or retrain it"
            )
        return rows

    @cached_property
    def _runner(self) -> StudentRunner:
        return StudentRunner(self._file(STUDENT), self._file(TOKENIZER))

    def _student(self, sentences: Sequence[str]) -> Vectors:
        return self._runner.encode(sentences)

    def _file(self, name: str) -> Path:
        path = self.directory / name
        if not path.is_file():
            raise CorruptBundleError(f"language file {path} is missing; reinstall or retrain it")
        return path

    def _read_config(self) -> dict[str, Any]:
        path = self._file(CONFIG)
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            found = (config["format"], config["template_version"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptBundleError(f"language file {path} cannot be read; reinstall or retrain it") from error
        if found != (FORMAT, TEMPLATE_VERSION):
            raise BundleVersionError(
                f"language folder {self.directory} has format and template {found}, this version reads"
                f" {(FORMAT, TEMPLATE_VERSION)}; reinstall or retrain it"
            )
        return dict(config)

    def _open_table(self) -> NDArray[np.float16]:
        path = self._file(EMBEDDINGS)
        try:
            table: NDArray[np.float16] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise CorruptBundleError(f"language file {path} cannot be read; reinstall or retrain it") from error
        if table.ndim != 2 or table.dtype != np.float16:
            raise CorruptBundleError(f"language file {path} is no float16 matrix; reinstall or retrain it")
        return table


class StudentRunner:
    """The student encoder in onnxruntime. Raises CorruptBundleError if its files are broken."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises plain Exceptions
            raise CorruptBundleError(
                f"bundle file {tokenizer} cannot be loaded ({type(error).__name__}); reinstall or retrain it"
            ) from error
        self._session = open_session(str(model), str(model))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)

    def encode(self, sentences: Sequence[str], batch_size: int = 256) -> Vectors:
        """Embeddings float32 [n, width], in order; sentences of one length run together, so nothing is padded."""
        ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(sentences))]
        lengths: dict[int, list[int]] = {}
        for i, tokens in enumerate(ids):
            lengths.setdefault(len(tokens), []).append(i)
        vectors: list[Vectors] = [np.empty(0, np.float32)] * len(ids)
        for alike in lengths.values():
            for start in range(0, len(alike), batch_size):
                part = alike[start : start + batch_size]
                (made,) = self._session.run(None, {"ids": np.array([ids[i] for i in part], np.int64)})
                for i, vector in zip(part, made, strict=True):
                    vectors[i] = vector
        return np.stack(vectors)


MAX_TOKENS = 64
"""Tokens the student reads of one sentence; the language's sentences have at most about 40."""


def write_table(directory: Path, sentences: Sequence[str], embeddings: NDArray[np.floating[Any]]) -> None:
    """Writes the table: sentences (no line breaks, no repeats) and their embeddings [n, width] as float16.

    Raises ValueError on sentences that cannot be stored.
    """
    if len(set(sentences)) != len(sentences) or any(len(s.splitlines()) != 1 for s in sentences):
        raise ValueError("sentences must be distinct single lines")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SENTENCES).write_text("".join(f"{s}\n" for s in sentences), encoding="utf-8")
    np.save(directory / EMBEDDINGS, np.asarray(embeddings, np.float16), allow_pickle=False)


def extend_table(directory: Path, sentences: Sequence[str], embeddings: NDArray[np.floating[Any]]) -> None:
    """Puts sentences into a table: what a network was trained with, so that inference sees the same vectors."""
    known = (directory / SENTENCES).read_text(encoding="utf-8").splitlines()
    table = dict(zip(known, np.load(directory / EMBEDDINGS, allow_pickle=False), strict=True))
    table.update(zip(sentences, np.asarray(embeddings, np.float16), strict=True))
    write_table(directory, list(table), np.stack(list(table.values())))


def write_config(directory: Path, **facts: Any) -> None:
    """Writes `encoder.json` with this version's format and template version and the given facts."""
    config = {"format": FORMAT, "template_version": TEMPLATE_VERSION, **facts}
    (directory / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
