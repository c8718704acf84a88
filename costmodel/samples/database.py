"""The SQLite file of a sample store: opening, numbered migrations, transactions that several processes share.

Write-ahead logging lets readers go on beside one writer; a writer waits its turn for up to `BUSY_S`. A transaction is
on the disk when it is acknowledged, so a process killed at any moment loses at most what it had not been told is kept.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from costmodel.errors import DataError

BUSY_S = 60.0
APPLICATION_ID = 0x4C654447  # "LeDG"

Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: list[Migration] = []
"""Number n of the schema (PRAGMA user_version) is made from n - 1 by the n-th entry. Never edit one that was released;
append."""


def migration(step: Migration) -> Migration:
    """Registers the next schema number."""
    MIGRATIONS.append(step)
    return step


@migration
def _first(db: sqlite3.Connection) -> None:
    db.execute("CREATE TABLE graphs (fingerprint TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID")
    db.execute("CREATE TABLE environments (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE)")
    db.execute(
        """
        CREATE TABLE samples (
            id INTEGER PRIMARY KEY,
            fingerprint TEXT NOT NULL,
            device TEXT NOT NULL,
            precision TEXT NOT NULL,
            runtime TEXT NOT NULL,
            batch INTEGER NOT NULL,
            latency_ms REAL NOT NULL,
            p90_ms REAL,
            p99_ms REAL,
            cv REAL,
            repeats INTEGER,
            peak_memory_bytes INTEGER,
            energy_mj REAL,
            name TEXT NOT NULL,
            operators BLOB,
            environment INTEGER REFERENCES environments (id),
            source TEXT NOT NULL,
            measured_at TEXT NOT NULL,
            flags TEXT NOT NULL,
            UNIQUE (fingerprint, device, precision, runtime, batch, measured_at)
        )
        """
    )
    db.execute("CREATE INDEX samples_by_platform ON samples (device, precision, runtime)")
    db.execute("CREATE INDEX samples_by_name ON samples (name)")


def connect(path: Path, migrations: Sequence[Migration] | None = None) -> sqlite3.Connection:
    """An open store of the newest schema; made where there is none, upgraded where it is older.

    Raises DataError if the file is no sample store, is newer than this version, or cannot be opened.
    """
    steps = MIGRATIONS if migrations is None else migrations
    with explained(path):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _log_ahead(db)
            db.execute("PRAGMA synchronous = FULL")
            _upgrade(db, path, steps)
        except BaseException:
            db.close()
            raise
    return db


def _log_ahead(db: sqlite3.Connection) -> None:
    """Switches to write-ahead logging; SQLite does not wait by itself where two processes do so at once."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _upgrade(db: sqlite3.Connection, path: Path, steps: Sequence[Migration]) -> None:
    if _version(db) == len(steps):
        return
    with transaction(db):
        version = _version(db)  # another process may have been first
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if tables and _pragma(db, "application_id") != APPLICATION_ID:
            raise DataError(f"{path} is a database of another program; give another file with --store")
        if version > len(steps):
            raise DataError(f"{path} has schema {version}, this version knows {len(steps)}; update ledg-cost")
        for step in steps[version:]:
            step(db)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(steps)}")


def _version(db: sqlite3.Connection) -> int:
    return _pragma(db, "user_version")


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that two writers wait instead of failing half-way."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system complain about into one line with the fix."""
    try:
        yield
    except sqlite3.OperationalError as error:
        busy = "locked" in str(error)
        fix = "wait for the other writer and run again" if busy else "check the folder, its permissions and its space"
        raise DataError(f"cannot use the sample store {path} ({error}); {fix}") from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path} is not a sample store ({error}); give another file with --store") from None
    except OSError as error:
        raise DataError(f"cannot open the sample store {path} ({error.strerror}); give another --store") from None
