"""Makes a language folder: the sentence table and the student encoder.

    python tools/train_student.py --out DIR [--sentences FILE]… [--encoder NAME_OR_PATH] [--table-only]

The table holds the closed language, the sentences of every device of the library, and those of the files given (one per
line, such as `costmodel.language.corpus_sentences` gives for graphs). About nine minutes on one core, most of it the
teacher and the training; `--table-only` keeps the student that is there and takes one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from costmodel.embedding import CONFIG, EMBEDDINGS, SENTENCES, SentenceEncoder, write_config, write_table
from costmodel.errors import LedgCostError
from costmodel.language import closed_language, platform_language
from costmodel.teacher import DEFAULT_ENCODER, Teacher


class Embedder:
    """The teacher with a memory and a progress line."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        fresh = [s for s in dict.fromkeys(sentences) if s not in self.known]
        self.known.update(zip(fresh, self.teacher.encode(fresh, progress=_show_teacher), strict=True))
        return np.stack([self.known[s] for s in sentences])


def _show_teacher(done: int, total: int) -> None:
    print(f"\rteacher {done}/{total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)


def _show_student(message: str, done: int, total: int) -> None:
    print(f"\r{message} {done}/{total} ", end="", file=sys.stderr, flush=True)


def read_sentences(paths: Sequence[Path]) -> list[str]:
    """Distinct non-empty lines of the files, in order."""
    lines = (line for path in paths for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in dict.fromkeys(lines) if line]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the language folder")
    parser.add_argument("--sentences", type=Path, action="append", default=[], help="further sentences for the table")
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help="teacher: minilm, a folder or a hub name")
    parser.add_argument("--table-only", action="store_true", help="keep the student that is in the folder")
    parser.add_argument("--steps", type=int, help="training steps of the student")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        make_language(options)
    except (LedgCostError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_language(options: argparse.Namespace) -> None:
    out: Path = options.out
    extra = read_sentences(options.sentences)
    embed = Embedder(Teacher(options.encoder))
    if options.table_only:
        student = json.loads((out / CONFIG).read_text(encoding="utf-8"))["student"]
    else:
        from costmodel.student import StudentConfig, train_student

        config = replace(StudentConfig(), seed=options.seed)
        if options.steps:
            config = replace(config, steps=options.steps)
        student = train_student(out, embed, config, extra, _show_student)
    closed, platforms = closed_language(), platform_language()
    table = sorted({*closed, *platforms, *extra})
    write_table(out, table, embed(table))
    write_config(
        out,
        teacher={"name": options.encoder, "identity": embed.teacher.identity, "pooling": "mean"},
        table={
            "sentences": len(table),
            "closed": len(closed),
            "platforms": len(platforms),
            "given": len(set(extra) - {*closed, *platforms}),
            "bytes": sum((out / name).stat().st_size for name in (SENTENCES, EMBEDDINGS)),
        },
        student=student,
    )
    encoder = SentenceEncoder(out)
    worst = float(np.abs(encoder.encode(table) - embed(table)).max())
    print(
        f"{out}: {len(table)} sentences, largest rounding error {worst:.1e}; student {json.dumps(student['agreement'])}"
    )


if __name__ == "__main__":
    sys.exit(main())
