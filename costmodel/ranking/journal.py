"""Answers on disk as they come, so that a ranking that was stopped goes on where it was.

One JSON object per line: first the settings that the answers depend on, then one answer each, under its key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from costmodel.errors import DataError
from costmodel.ranking.work import Answer, Settings

FORMAT = 1


def settings_record(settings: Settings) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's answers."""
    bundle = settings.cost_model().bundle
    return {
        "format": FORMAT,
        "platforms": [p.name for p in settings.platforms],
        "batch": settings.batch,
        "shapes": {name: list(s) if isinstance(s, tuple) else s for name, s in settings.shapes.items()},
        "strict": settings.strict,
        "bundle": bundle.config["sha256"],
    }


class Journal:
    """The answers kept in a file; appends as they come, and is deleted when the ranking is complete.

    Raises DataError if the file belongs to a ranking with other settings or cannot be read or written.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        head = settings_record(settings)
        try:
            kept = self._read(head) if path.exists() else 0
            self._file: IO[str] = path.open("a", encoding="utf-8")
            self._file.truncate(kept)
        except OSError as error:
            raise DataError(f"cannot write {path} ({error.strerror}); choose another --out") from error
        if not kept:
            self._write(head)

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keeps answers by key."""
        for key, answer in answers.items():
            self._write({"key": key, **answer.as_record()})
        self._file.flush()

    def discard(self) -> None:
        """Deletes the file."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")

    def _read(self, head: Mapping[str, Any]) -> int:
        """Fills `answers`; the number of bytes that are whole lines of this ranking."""
        kept = 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file):
                if not raw.endswith(b"\n"):
                    break  # cut short while it was written
                try:
                    record = json.loads(raw)
                    if number and "error" not in record:  # what failed may have been repaired
                        key = record.pop("key")
                        self.answers[key] = Answer.of_record(record)
                except (ValueError, KeyError, TypeError, AttributeError):
                    raise self._foreign() from None
                if number == 0 and record != head:
                    raise self._foreign()
                kept += len(raw)
        return kept

    def _foreign(self) -> DataError:
        return DataError(
            f"{self.path} was left by a ranking with other settings; give the same options to go on, or delete it"
        )


def journal_of(out: Path) -> Path:
    """Where the answers of a ranking that is written to `out` are kept meanwhile."""
    return out.with_name(out.name + ".part")
