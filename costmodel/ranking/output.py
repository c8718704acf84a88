"""A ranking as a file: Parquet, CSV or JSON lines, one row per platform and model, sorted by platform and latency."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from costmodel.errors import BackendUnavailableError, DataError
from costmodel.ranking.run import Ranking

FIELDS = (
    "target", "precision", "runtime", "batch", "rank", "model", "latency_ms", "flops", "params", "nodes", "coverage",
)  # fmt: skip


def rows(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Rows of `FIELDS`; rank counts from 1 on each platform. `batch` is null where the models' own was taken."""
    for place, platform in enumerate(ranking.settings.platforms):
        head = {
            "target": platform.device.name, "precision": platform.precision.value, "runtime": platform.runtime_label,
            "batch": ranking.settings.batch,
        }  # fmt: skip
        for number, (name, a) in enumerate(ranking.order(place), 1):
            yield head | {
                "rank": number, "model": name, "latency_ms": a.latency_ms[place], "flops": a.flops, "params": a.params,
                "nodes": a.nodes, "coverage": a.coverage,
            }  # fmt: skip


def check(path: Path) -> None:
    """Raises DataError or BackendUnavailableError if `write` could not write a file of that name."""
    if path.suffix.lower() not in _WRITERS:
        raise DataError(f"cannot tell the format of {path}; name it .parquet, .csv or .jsonl")
    if not path.absolute().parent.is_dir():
        raise DataError(f"the folder of {path} does not exist; make it first")
    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise BackendUnavailableError("Parquet needs pyarrow; pip install pyarrow, or write .csv") from error


def write(ranking: Ranking, path: Path) -> None:
    """Writes the file whole or not at all. Raises DataError where that is not possible."""
    check(path)
    partial = path.with_name(path.name + ".tmp")
    try:
        _WRITERS[path.suffix.lower()](ranking, partial)
        os.replace(partial, path)
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}); choose another --out") from error


def _csv(ranking: Ranking, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows(ranking))


def _jsonl(ranking: Ranking, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(ranking))


def _parquet(ranking: Ranking, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"batch": pa.int64(), "rank": pa.int64(), "params": pa.int64(), "nodes": pa.int64()}
    kinds |= dict.fromkeys(("latency_ms", "flops", "coverage"), pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in FIELDS])
    pq.write_table(pa.Table.from_pylist(list(rows(ranking)), schema), path)


_WRITERS: dict[str, Callable[[Ranking, Path], None]] = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
