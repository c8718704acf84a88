"""Opening and upgrading the file."""

from __future__ import annotations

import json
import sqlite3
import zlib
from pathlib import Path

import pytest

from costmodel import graph_json
from costmodel.errors import DataError
from costmodel.samples import SampleStore, database
from tests.samples.conftest import measured, network


def synthetic(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE samples ADD COLUMN temperature_c REAL")
    db.execute("UPDATE samples SET temperature_c = 40 + batch")


def failing(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE samples ADD COLUMN half_done REAL")
    raise sqlite3.OperationalError("disk I/O error")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as schema 1 has it, with two samples and a graph, whatever today's code would write."""
    path = tmp_path / "old.sqlite"
    db = database.connect(path, database.MIGRATIONS[:1])
    graph = network()
    db.execute("INSERT INTO graphs VALUES (?, ?)", (graph.fingerprint, graph_json.to_bytes(graph)))
    db.execute("INSERT INTO environments VALUES (1, ?)", (json.dumps(measured().environment),))
    operators = zlib.compress(json.dumps(measured().operators).encode())
    for batch in (1, 2):
        row = (
            batch, graph.fingerprint, "t4", "fp32", "tensorrt-8.6.1", batch, 1.5, 1.6, 1.9, 0.02, 50, 123456789, 70.5,
            "gen/resnet/17", operators, 1, "profile", "2026-03-01T12:00:00.000001+00:00", '["noisy"]',
        )  # fmt: skip
        db.execute(f"INSERT INTO samples VALUES ({', '.join('?' * len(row))})", row)
    db.close()
    return path


def pragma(path: Path, name: str) -> int:
    db = sqlite3.connect(path)
    found = db.execute(f"PRAGMA {name}").fetchone()[0]
    db.close()
    return found


def test_a_new_file_has_the_newest_schema_and_logs_ahead(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "samples.sqlite"
    SampleStore(path).close()
    assert pragma(path, "user_version") == len(database.MIGRATIONS) >= 1
    assert pragma(path, "journal_mode") == "wal"


def test_the_first_schema_opens_with_the_newest_code(old: Path) -> None:
    with SampleStore(old) as store:
        assert store.query() == [measured(), measured(batch=2)]
        assert store.graph(network().fingerprint) == network()
    assert pragma(old, "user_version") == len(database.MIGRATIONS)


def test_a_later_migration_runs_once_and_keeps_the_data(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", [*database.MIGRATIONS, synthetic])
    with SampleStore(old) as store:
        assert store.query() == [measured(), measured(batch=2)]
        store.add(measured(batch=3))
    with SampleStore(old) as store:
        assert len(store) == 3
    db = sqlite3.connect(old)
    assert db.execute("SELECT temperature_c FROM samples ORDER BY id").fetchall() == [(41.0,), (42.0,), (None,)]
    db.close()


def test_a_new_file_goes_through_all_migrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "MIGRATIONS", [*database.MIGRATIONS, synthetic])
    with SampleStore(tmp_path / "new.sqlite") as store:
        store.add(measured())
        assert store.query() == [measured()]
    assert pragma(tmp_path / "new.sqlite", "user_version") == len(database.MIGRATIONS)


def test_a_migration_that_fails_leaves_the_old_file(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list(database.MIGRATIONS)
    monkeypatch.setattr(database, "MIGRATIONS", [*steps, failing])
    with pytest.raises(DataError, match="disk I/O error"):
        SampleStore(old)
    monkeypatch.setattr(database, "MIGRATIONS", steps)
    with SampleStore(old) as store:
        assert len(store) == 2
    assert pragma(old, "user_version") == len(steps)


def test_a_newer_file_is_refused_and_left_alone(old: Path) -> None:
    db = sqlite3.connect(old)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(DataError, match=r"has schema 99, this version knows \d+; update ledg-cost"):
        SampleStore(old)
    assert pragma(old, "user_version") == 99


def test_other_databases_are_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE cats (name TEXT)")
    db.close()
    with pytest.raises(DataError, match="database of another program"):
        SampleStore(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("cats",)]
    db.close()


@pytest.mark.parametrize("content", [b"this is a text file, and longer than a header of SQLite is" * 9, b"PAR1" * 999])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a sample store") as caught:
        SampleStore(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="unable to open"):
        SampleStore(tmp_path)


def test_a_file_in_the_way_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot open the sample store"):
        SampleStore(tmp_path / "file" / "samples.sqlite")


def test_a_lasting_lock_is_told(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    holder = sqlite3.connect(old, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with SampleStore(old) as store, pytest.raises(DataError, match="wait for the other writer"):
        store.add(measured(batch=4))
    holder.execute("ROLLBACK")
    holder.close()
