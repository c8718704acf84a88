"""Samples in Parquet, the form in which they are exchanged.

One row per sample, compressed with zstd. `environment` and `flags` are JSON; the environment is a dictionary column, so
each distinct one is written once. `graph` holds the JSON of `costmodel.graph_json`, on the first row of each
fingerprint only; it is not compressed by itself, since the graphs of a file have more in common with each other. The
column may be left out. `operators` is a list of (name, ms) and may be left out too. Columns that are not known here are
ignored, and all but the first six may be missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costmodel import graph_json
from costmodel.errors import DataError, SampleSchemaError
from costmodel.ir import Graph
from costmodel.samples.sample import Sample

SCHEMA = 1
_KEY = b"ledg-cost-samples"
_NEEDED = {
    "fingerprint": "string", "device": "string", "precision": "string", "runtime": "string", "batch": "int64",
    "latency_ms": "float64",
}  # fmt: skip
_OPTIONAL = {
    "p90_ms": "float64", "p99_ms": "float64", "cv": "float64", "repeats": "int64", "peak_memory_bytes": "int64",
    "energy_mj": "float64", "name": "string", "source": "string", "measured_at": "string",
}  # fmt: skip
_JSON = ("flags", "environment")
_ROWS, _TEXT = 20_000, 64 << 20
"""A row group ends after so many rows or characters of graphs, so that memory stays small."""

_PAGE = 16 << 20
_READ_ROWS = 256
_REPEATED = ("device", "precision", "runtime", "source", "flags", "environment", "fingerprint", "name")
"""Columns whose values recur."""


def write(
    path: str | os.PathLike[str],
    samples: Iterable[Sample],
    graph_bytes: Callable[[str], bytes | None] | None = None,
    operators: bool = True,
) -> int:
    """Writes samples to one file, which appears when it is complete; returns their number.

    graph_bytes  gives the graph of a fingerprint, as `SampleStore.graph_bytes`; None leaves the graphs out
    operators    whether to keep the times of single operators

    Raises DataError if the file cannot be written or pyarrow is missing.
    """
    arrow, parquet = _pyarrow()
    schema = _schema(arrow, graph_bytes is not None, operators)
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    seen: set[str] = set()
    count = 0
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with parquet.ParquetWriter(
                partial, schema, compression="zstd", compression_level=12,
                data_page_size=_PAGE,
                use_dictionary=[*_REPEATED, *(["operators.list.element.name"] * operators)], store_schema=False,
            ) as writer:  # fmt: skip
                for rows in _chunks(_record(sample, graph_bytes, operators, seen) for sample in samples):
                    writer.write_table(arrow.Table.from_pylist(rows, schema))
                    count += len(rows)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    return count


def read(path: str | os.PathLike[str]) -> Iterator[tuple[Sample, Graph | None]]:
    """Samples of a file with their graphs; a graph comes with the first sample of its fingerprint.

    Raises SampleSchemaError if columns are missing or a value is impossible, DataError if it is no Parquet file.
    """
    _, parquet = _pyarrow()
    with _explained(Path(path)):
        file = parquet.ParquetFile(path)
    with file:
        names = set(file.schema_arrow.names)
        missing = sorted(_NEEDED.keys() - names)
        if missing:
            raise SampleSchemaError(f"{path} lacks the columns {', '.join(missing)}; export it from a sample store")
        version = int((file.schema_arrow.metadata or {}).get(_KEY, b"1"))
        if version > SCHEMA:
            raise SampleSchemaError(f"{path} has schema {version}, this version reads {SCHEMA}; update ledg-cost")
        wanted = [n for n in (*_NEEDED, *_OPTIONAL, *_JSON, "operators", "graph") if n in names]
        number = 0
        batches = file.iter_batches(_READ_ROWS, columns=wanted)
        while True:
            with _explained(Path(path)):
                batch = next(batches, None)
            if batch is None:
                return
            for row in batch.to_pylist():
                number += 1
                yield _pair(row, f"{path}, row {number}")


def _schema(arrow: Any, graphs: bool, operators: bool) -> Any:
    types = {"string": arrow.string(), "int64": arrow.int64(), "float64": arrow.float64()}
    fields = [arrow.field(name, types[kind], name in _OPTIONAL) for name, kind in (_NEEDED | _OPTIONAL).items()]
    fields += [arrow.field(name, arrow.string()) for name in _JSON]
    if operators:
        fields.append(
            arrow.field("operators", arrow.list_(arrow.struct([("name", arrow.string()), ("ms", arrow.float64())])))
        )
    if graphs:
        fields.append(arrow.field("graph", arrow.string()))
    return arrow.schema(fields, metadata={_KEY: str(SCHEMA).encode()})


def _record(
    sample: Sample, graph_bytes: Callable[[str], bytes | None] | None, operators: bool, seen: set[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(sample, name) for name in (*_NEEDED, *_OPTIONAL)}
    row["flags"] = json.dumps(sample.flags) if sample.flags else None
    row["environment"] = json.dumps(sample.environment, sort_keys=True) if sample.environment else None
    if operators:
        row["operators"] = [{"name": n, "ms": t} for n, t in sample.operators] or None
    if graph_bytes and sample.fingerprint not in seen:
        seen.add(sample.fingerprint)
        data = graph_bytes(sample.fingerprint)
        row["graph"] = graph_json.unpacked(data) if data else None
    return row


def _pair(row: dict[str, Any], where: str) -> tuple[Sample, Graph | None]:
    fields: dict[str, Any] = {name: row[name] for name in _NEEDED}
    fields |= {name: row[name] for name in _OPTIONAL if row.get(name) is not None}
    fields.setdefault("measured_at", "")
    fields.setdefault("source", "import")
    try:
        fields["flags"] = tuple(json.loads(row.get("flags") or "[]"))
        fields["environment"] = json.loads(row.get("environment") or "{}")
        fields["operators"] = tuple((o["name"], o["ms"]) for o in row.get("operators") or ())
        sample = Sample(**fields)
    except SampleSchemaError as error:
        raise SampleSchemaError(f"{where}: {error}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise SampleSchemaError(f"{where}: {error}; export it from a sample store") from None
    data = row.get("graph")
    graph = graph_json.from_json(data) if data else None
    if graph is not None and graph.fingerprint != sample.fingerprint:
        raise SampleSchemaError(f"{where}: the graph is not the one that was measured; export it again")
    return sample, graph


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    text = 0
    for row in rows:
        chunk.append(row)
        text += len(row.get("graph") or "")
        if len(chunk) == _ROWS or text > _TEXT:
            yield chunk
            chunk, text = [], 0
    if chunk:
        yield chunk


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("Parquet needs pyarrow, which is not installed; run `pip install pyarrow`") from None
    return pyarrow, pyarrow.parquet


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"no file {path}; check the path") from None
    except OSError as error:
        raise DataError(f"cannot use {path} ({' '.join(str(error).split())}); check the file and its folder") from None
    except pyarrow.ArrowException as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path} is not a readable Parquet file ({reason}); export it again") from None
