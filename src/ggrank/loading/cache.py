"""A cache of results on disk: the same key gives the same numbers again, bit by bit.

Any number of processes and threads may share a folder, and each may be killed at any moment.

A cache never raises an error. If its file cannot be read or written, it warns once and is empty from then on;
if the file is damaged, it warns and starts a new one; if the file was deleted, it makes it again. Every row
has a checksum over its key and numbers, because SQLite does not see all damage.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import warn

log = logging.getLogger("ggrank.loading.cache")

FILE = "results-1.sqlite"
"""The number is the format's: versions of ggrank with different formats use different files."""

TIMEOUT_SECONDS = 5.0
"""For another process that writes; then the results are computed instead."""

_N_EVICTED = 128
"""Rows that go at once when the file is full."""

_DAMAGED = ("unsupported file format", "no such table", "no such column")
"""Operational errors caused by the file's bytes; all others are caused by the disk or its permissions."""

_TABLES = (
    # used: the day of the last use, so that a row which is read again and again is written once a day.
    """CREATE TABLE IF NOT EXISTS result (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, numbers BLOB NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS result_used ON result (used)",
)


@dataclass(frozen=True)
class CacheCounts:
    """How many results were requested since the model was loaded, and how many of them were found."""

    n_asked: int = 0
    n_found: int = 0


class ResultCache:
    """The results of one model with one set of settings, in a file that several caches may share.

    Args:
        folder: made if it does not exist.
        limit: approximate bytes of the file; above it, the results that were unused for longest are removed.
        context: everything that results depend on except their own input; caches with different contexts
            share nothing.
    """

    def __init__(self, folder: Path, *, limit: int, context: bytes) -> None:
        self._path = folder / FILE
        self._limit = limit
        self._context = hashlib.blake2b(context, digest_size=32).digest()
        self._process_id = os.getpid()
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self.counts = CacheCounts()
        with self._lock:
            self._guarded(self._open)

    def keys(self, inputs: Iterable[bytes]) -> list[bytes]:
        """The key of each input in this context: 16 bytes."""
        return [hashlib.blake2b(data, digest_size=16, key=self._context).digest() for data in inputs]

    def get_many(self, keys: Sequence[bytes], *, width: int) -> NDArray[np.float32]:
        """The result for each key: shape (n, width), float32; a row of NaN for a key without one."""
        found = np.full((len(keys), width), np.nan, dtype=np.float32)
        not_today: list[tuple[int]] = []

        def read(db: sqlite3.Connection) -> None:
            select = "SELECT id, used, numbers FROM result WHERE key = ?"
            for i, key in enumerate(keys):
                for id, used, numbers in db.execute(select, (key,)):
                    found[i] = _unsealed(key, numbers, width)
                    if used != _today():
                        not_today.append((id,))

        def touch(db: sqlite3.Connection) -> None:
            db.executemany(f"UPDATE result SET used = {_today()} WHERE id = ?", not_today)

        self._transaction("DEFERRED", read)
        if not_today:
            self._transaction("IMMEDIATE", touch)
        with self._lock:
            n_found = int(np.isfinite(found[:, 0]).sum())
            self.counts = CacheCounts(self.counts.n_asked + len(keys), self.counts.n_found + n_found)
        return found

    def put_many(self, keys: Sequence[bytes], results: NDArray[np.float32]) -> None:
        """Stores results, shape (n, width), except those that are not finite or stored already."""
        sound = np.flatnonzero(np.isfinite(results).all(axis=1)).tolist()
        rows = [(keys[i], _sealed(keys[i], results[i])) for i in sound]

        def write(db: sqlite3.Connection) -> None:
            insert = f"INSERT OR IGNORE INTO result (key, used, numbers) VALUES (?, {_today()}, ?)"
            db.executemany(insert, rows)
            oldest = f"SELECT id FROM result ORDER BY used, id LIMIT {_N_EVICTED}"
            while _n_bytes(db) > self._limit:
                if not db.execute(f"DELETE FROM result WHERE id IN ({oldest})").rowcount:
                    break

        self._transaction("IMMEDIATE", write)

    def close(self) -> None:
        """Closes the file; from then on nothing is found. Closing twice is fine."""
        with self._lock:
            self._close()

    def _transaction(self, kind: str, use: Callable[[sqlite3.Connection], None]) -> None:
        """Runs ``use`` in one transaction."""

        def run() -> None:
            # A forked child must not use the parent's connection.
            if self._db is None or self._process_id != os.getpid():
                return
            db = self._db
            if _identity(self._path) != self._file:  # It was deleted, and SQLite would go on writing into it.
                log.info("%s is gone; it is made again", self._path)
                self._close()
                db = self._open()
            db.execute(f"BEGIN {kind}")
            try:
                use(db)
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

        with self._lock:
            self._guarded(run)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                log.info("%s is busy; going on without it this time", self._path)
            elif any(words in str(error) for words in _DAMAGED):
                self._start_afresh(error)
            else:
                self._give_up(error)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter: SQLite quotes what it read
            self._start_afresh(error)
        except OSError as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._db = db = sqlite3.connect(
            self._path, timeout=TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        db.execute("PRAGMA page_size = 16384")  # of a new file; vectors leave less room between them
        _log_writes(db)
        db.execute("PRAGMA synchronous = NORMAL")  # a power cut may take the last results, no more
        for statement in _TABLES:
            db.execute(statement)
        self._file = _identity(self._path)
        return db

    def _start_afresh(self, error: Exception) -> None:
        warn(f"the cache {self._path} is damaged ({error}); it is started afresh")
        try:
            self._close()
            # The log first: a new file must not find the old one's.
            for name in (f"{FILE}-wal", f"{FILE}-shm", FILE):
                self._path.with_name(name).unlink(missing_ok=True)
            self._open()
        except (OSError, sqlite3.Error) as failure:
            self._give_up(failure)

    def _give_up(self, error: Exception) -> None:
        warn(f"the cache {self._path} cannot be used ({error}); results are computed and not kept")
        self._close()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None and self._process_id == os.getpid():
            db.close()


def _log_writes(db: sqlite3.Connection) -> None:
    """Switches to SQLite's write-ahead log, with which readers never wait for writers.

    SQLite itself does not wait here while another process makes the same new file.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and number of the file at this path; None if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _today() -> int:
    return int(time.time() / 86_400)


def _n_bytes(db: sqlite3.Connection) -> int:
    """The bytes in use, without free pages."""
    names = ("page_size", "page_count", "freelist_count")
    page_size, n_pages, n_free = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return page_size * (n_pages - n_free)


def _sealed(key: bytes, row: NDArray[np.float32]) -> bytes:
    data = row.astype("<f4").tobytes()
    return data + zlib.crc32(key + data).to_bytes(4, "little")


def _unsealed(key: bytes, numbers: object, width: int) -> NDArray[np.float32]:
    data = numbers[:-4] if isinstance(numbers, bytes) else b""
    if len(data) != 4 * width or numbers != data + zlib.crc32(key + data).to_bytes(4, "little"):
        raise sqlite3.DatabaseError("a stored result is not what was stored")
    return np.frombuffer(data, "<f4").astype(np.float32)
