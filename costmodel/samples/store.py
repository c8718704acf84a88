"""The growing collection of measurements, shared by all processes of a machine."""

from __future__ import annotations

import json
import os
import threading
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costmodel import graph_json
from costmodel.errors import DataError, SampleSchemaError
from costmodel.ir import Graph
from costmodel.platforms import Platform, user_directory
from costmodel.samples.sample import Sample

if TYPE_CHECKING:
    import sqlite3

_PLAIN = (
    "fingerprint", "device", "precision", "runtime", "batch", "latency_ms", "p90_ms", "p99_ms", "cv", "repeats",
    "peak_memory_bytes", "energy_mj", "name", "source", "measured_at",
)  # fmt: skip
_WRITTEN = (*_PLAIN, "operators", "flags", "environment")
_SELECT = (
    f"SELECT {', '.join('s.' + name for name in _PLAIN)}, s.operators, s.flags, e.json"
    " FROM samples s LEFT JOIN environments e ON e.id = s.environment"
)


def default_store() -> Path:
    """`samples.sqlite` in $LEDG_COST_HOME or ~/.ledg-cost."""
    return user_directory().parent / "samples.sqlite"


class SampleStore:
    """Samples and graphs in one SQLite file. Several processes and threads may write at once.

    The file is made where there is none and upgraded where it is older. Raises DataError if it is no sample store, is
    newer than this version or cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        from costmodel.samples import database

        self.path = Path(path) if path is not None else default_store()
        self._database = database
        self._lock = threading.RLock()
        self._db: sqlite3.Connection = database.connect(self.path)
        weakref.finalize(self, self._db.close)

    def __enter__(self) -> SampleStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._read("SELECT count(*) FROM samples")[0][0])

    def close(self) -> None:
        """Closes the file; the store is of no use afterwards."""
        with self._lock:
            self._db.close()

    def add(self, sample: Sample, graph: Graph | None = None) -> bool:
        """Keeps a sample and, once per fingerprint, its graph; on the disk when this returns.

        A second sample with the same fingerprint, device, precision, runtime, batch and time changes nothing. Returns
        whether the sample was new. Raises SampleSchemaError if the graph is not the one that was measured.
        """
        return self.add_many([(sample, graph)]) == 1

    def add_many(self, pairs: Iterable[tuple[Sample, Graph | None]]) -> int:
        """`add` for many samples in one transaction, all or none; returns how many were new."""
        added = 0
        with self._writing() as db:
            for sample, graph in pairs:
                if graph is not None and graph.fingerprint != sample.fingerprint:
                    raise SampleSchemaError(
                        f"sample {sample.name!r}: its graph has fingerprint {graph.fingerprint[:12]}, not"
                        f" {sample.fingerprint[:12]}; measure and store the same graph"
                    )
                added += self._insert(db, sample)
                if graph is not None:
                    self._insert_graph(db, graph)
        return added

    def flag(self, samples: Iterable[Sample], *flags: str) -> None:
        """Adds flags to samples of the store that lack them."""
        with self._writing() as db:
            for s in samples:
                key = (s.fingerprint, s.device, s.precision, s.runtime, s.batch, s.measured_at)
                db.execute(
                    "UPDATE samples SET flags = ? WHERE fingerprint = ? AND device = ? AND precision = ?"
                    " AND runtime = ? AND batch = ? AND measured_at = ?",
                    (_json(tuple(dict.fromkeys((*s.flags, *flags)))), *key),
                )

    def _insert(self, db: sqlite3.Connection, sample: Sample) -> int:
        row: dict[str, Any] = {name: getattr(sample, name) for name in _PLAIN}
        row["operators"] = zlib.compress(_json(sample.operators).encode()) if sample.operators else None
        row["flags"] = _json(sample.flags)
        row["environment"] = self._environment(db, sample)
        marks = ", ".join(":" + name for name in _WRITTEN)
        done = db.execute(f"INSERT INTO samples ({', '.join(_WRITTEN)}) VALUES ({marks}) ON CONFLICT DO NOTHING", row)
        return done.rowcount

    def _environment(self, db: sqlite3.Connection, sample: Sample) -> int | None:
        if not sample.environment:
            return None
        text = _json(sample.environment)
        db.execute("INSERT INTO environments (json) VALUES (?) ON CONFLICT DO NOTHING", (text,))
        return int(db.execute("SELECT id FROM environments WHERE json = ?", (text,)).fetchone()[0])

    def _insert_graph(self, db: sqlite3.Connection, graph: Graph) -> None:
        key = (graph.fingerprint,)
        if not db.execute("SELECT 1 FROM graphs WHERE fingerprint = ?", key).fetchone():
            db.execute("INSERT INTO graphs (fingerprint, data) VALUES (?, ?)", (*key, graph_json.to_bytes(graph)))

    def query(
        self,
        device: str | None = None,
        precision: str | None = None,
        runtime: str | None = None,
        fingerprint: str | None = None,
        batch: int | None = None,
        name: str | None = None,
        source: str | None = None,
        limit: int | None = None,
    ) -> list[Sample]:
        """Samples that match all that is given, in the order they were added.

        A runtime without a version matches every version, "tensorrt-8.6" also "tensorrt-8.6.1"; `name` and `source` may
        hold `*` and `?`; `limit` keeps the last ones.
        """  # fmt: skip
        exact = {"device": device, "precision": precision, "fingerprint": fingerprint, "batch": batch}
        conditions = [f"s.{column} = :{column}" for column, value in exact.items() if value is not None]
        values: dict[str, Any] = {column: value for column, value in exact.items() if value is not None}
        for column, pattern in (("name", name), ("source", source)):
            if pattern is not None:
                conditions.append(f"s.{column} GLOB :{column}")
                values[column] = pattern
        if runtime is not None:
            conditions.append("(s.runtime = :runtime OR s.runtime GLOB :versions)")
            values |= {"runtime": runtime, "versions": _versions(runtime)}
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        if limit is not None:
            rows = self._read(f"{_SELECT}{where} ORDER BY s.id DESC LIMIT :limit", values | {"limit": limit})[::-1]
        else:
            rows = self._read(f"{_SELECT}{where} ORDER BY s.id", values)
        return [_sample(row) for row in rows]

    def lookup(self, fingerprint: str, platform: Platform, batch: int | None = None) -> Sample | None:
        """The newest sample of a graph on a platform, one flagged noisy where there is no other, or None.

        A platform without a runtime version matches every version. The fingerprint covers all shapes, so `batch` only
        matters for graphs whose batch is not an axis.
        """
        found = self.query(platform.device.name, platform.precision.value, platform.runtime_label, fingerprint, batch)
        return max(reversed(found), key=lambda s: ("noisy" not in s.flags, s.measured_at)) if found else None

    def graph(self, fingerprint: str) -> Graph:
        """The graph of a fingerprint. Raises DataError if the store has no such graph."""
        data = self.graph_bytes(fingerprint)
        if data is None:
            raise DataError(f"{self.path} has no graph {fingerprint[:12]}; profile it here or import it with graphs")
        return graph_json.from_bytes(data)

    def graph_bytes(self, fingerprint: str) -> bytes | None:
        """The graph as `graph_json` writes it, or None."""
        rows = self._read("SELECT data FROM graphs WHERE fingerprint = ?", (fingerprint,))
        return rows[0][0] if rows else None

    def fingerprints(self) -> set[str]:
        """Fingerprints of all graphs that the store holds."""
        return {row[0] for row in self._read("SELECT fingerprint FROM graphs")}

    def platforms(self) -> list[tuple[str, str, str, int]]:
        """(device, precision, runtime, number of samples) of every platform with samples, sorted."""
        return self._read("SELECT device, precision, runtime, count(*) FROM samples GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")

    def _read(self, sql: str, values: Any = ()) -> list[Any]:
        with self._lock, self._database.explained(self.path):
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database.explained(self.path), self._database.transaction(self._db):
            yield self._db


def _versions(runtime: str) -> str:
    """GLOB pattern of the runtimes that are a release of this one."""
    literal = "".join(f"[{c}]" if c in "*?[" else c for c in runtime)
    versioned = any(part[:1].isdigit() for part in runtime.split("-")[1:])
    return literal + (".*" if versioned else "-[0-9]*")


def _json(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SampleSchemaError(f"JSON cannot hold this sample's environment ({error}); use plain values") from None


def _sample(row: tuple[Any, ...]) -> Sample:
    *plain, operators, flags, environment = row
    try:
        return Sample(
            **dict(zip(_PLAIN, plain, strict=True)),
            operators=tuple((n, t) for n, t in json.loads(zlib.decompress(operators))) if operators else (),
            flags=tuple(json.loads(flags)),
            environment=json.loads(environment) if environment else {},
        )
    except (ValueError, TypeError, zlib.error) as error:
        raise DataError(f"a stored sample of {plain[0][:12]} is damaged ({error}); remove and measure it") from None
