"""The index on disk: one SQLite file for files, passages and words, and beside it one file of vectors.

    index.sqlite      what is there: settings, roots, files, passages, BM25's words, free rows
    vectors.float32   a passage's vector, at the row of its id (or vectors.int8)

Knows tables and transactions; no models, and not how a file is read. A vector is on the disk before the
transaction commits that makes its row count, and a row is used again only after the transaction that freed
it. So whenever a process is killed, what was committed is whole, and the rest is as if it had never been.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.search.folder import connect, damaged, read_settings, told
from ggrank.search.vectors import VectorFile

_FILE = "id, path, size, mtime_ns, sha256, version, is_complete"


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when it was last read to its end, and whether its newest version was.

    Passages of a version below ``version`` are those of the one before.
    """

    id: int
    path: str
    size: int
    mtime_ns: int
    sha256: str
    version: int
    is_complete: bool


@dataclass(frozen=True)
class StoredPassage:
    """A passage, the file that it is from, and where it stands there."""

    id: int
    path: str
    text: str
    start: int
    stop: int
    place: str
    record: str | float | None


@dataclass(frozen=True)
class NewPassage:
    """A passage to be stored; ``key`` is the same for the same text."""

    key: bytes
    text: str
    start: int
    stop: int
    place: str
    record: str | float | None


class Store:
    """An index's two files. Reading is for any number of processes and threads, writing for one.

    Raises:
        SearchIndexError: there is no index, or something else, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.lock = threading.RLock()
        self.db = connect(folder)
        self.settings = read_settings(self.db, folder)
        self.vectors = VectorFile(
            folder / f"vectors.{self.settings.vectors}",
            n_embd=self.settings.n_embd,
            vector_type=self.settings.vectors,
        )

    def check_whole(self) -> None:
        """Raises SearchIndexError where vectors are missing; the tables can be read all the same."""
        if self.vectors.n_rows() < self.n_rows():
            raise damaged(
                self._folder, f"{self.n_rows():,} vectors belong in it, {self.vectors.n_rows():,} are there"
            )

    def close(self) -> None:
        """Lets go of both files."""
        with self.lock:
            self.vectors.close()
            self.db.close()

    @contextmanager
    def transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """All that happens inside, or none of it; "DEFERRED" to read one state of everything."""
        with self.lock, told(self._folder):
            self.db.execute(f"BEGIN {kind}")
            try:
                yield
                self.db.execute("COMMIT")
            finally:
                if self.db.in_transaction:  # on an error; SQLite ends it by itself when the disk is full
                    self.db.execute("ROLLBACK")

    # -- reading

    def n_rows(self) -> int:
        """Rows of the vector file that may count: up to the last passage's."""
        return int(self._value("SELECT coalesce(max(id), -1) + 1 FROM passage"))

    def n_files(self) -> int:
        """Files in the index."""
        return int(self._value("SELECT count(*) FROM file"))

    def n_passages(self) -> int:
        """Passages in the index."""
        return int(self._value("SELECT count(*) FROM passage"))

    def free_rows(self, n_rows: int) -> NDArray[np.int64]:
        """Which of the first ``n_rows`` are no passage's."""
        rows = self._rows("SELECT row FROM free WHERE row < ? ORDER BY row", n_rows)
        return np.fromiter((row for (row,) in rows), np.int64)

    def data_version(self) -> int:
        """Changes when another connection has committed something."""
        return int(self._value("PRAGMA data_version"))

    def passage(self, id: int) -> StoredPassage:
        """One passage."""
        rows = self._rows(
            "SELECT passage.id, path, text, start, stop, place, record FROM passage "
            "JOIN file ON file.id = file WHERE passage.id = ?",
            id,
        )
        return StoredPassage(*rows[0])

    def roots(self) -> list[str]:
        """The files and folders that were asked for, in order."""
        return [path for (path,) in self._rows("SELECT path FROM root ORDER BY rowid")]

    def files(self) -> list[StoredFile]:
        """All files."""
        return [StoredFile(*row) for row in self._rows(f"SELECT {_FILE} FROM file")]

    def has_file(self, path: str) -> bool:
        """Whether a path is one of its files."""
        return bool(self._rows("SELECT 1 FROM file WHERE path = ?", path))

    def row_with(self, key: bytes) -> int | None:
        """The row of any passage with this key."""
        rows = self._rows("SELECT id FROM passage WHERE key = ? LIMIT 1", key)
        return int(rows[0][0]) if rows else None

    # -- writing, inside a transaction

    def add_roots(self, paths: Iterable[str]) -> None:
        """Remembers paths that were asked for."""
        self.db.executemany("INSERT OR IGNORE INTO root (path) VALUES (?)", ((path,) for path in paths))

    def remove_roots(self, paths: Iterable[str]) -> None:
        """Forgets paths that were asked for."""
        self.db.executemany("DELETE FROM root WHERE path = ?", ((path,) for path in paths))

    def start_file(self, path: str) -> StoredFile:
        """A file's next version, not complete."""
        self.db.execute(
            "INSERT INTO file (path, size, mtime_ns, sha256, version, is_complete) VALUES (?, 0, 0, '', 0, 0)"
            " ON CONFLICT (path) DO UPDATE SET version = version + 1, is_complete = 0",
            (path,),
        )
        return StoredFile(*self._rows(f"SELECT {_FILE} FROM file WHERE path = ?", path)[0])

    def keep(self, file: StoredFile, passage: NewPassage) -> bool:
        """Takes a passage of an earlier version over into this one; False where there is none like it."""
        rows = self._rows(
            "SELECT id FROM passage WHERE key = ? AND file = ? AND version < ? LIMIT 1",
            *(passage.key, file.id, file.version),
        )
        if not rows:
            return False
        self.db.execute(
            "UPDATE passage SET version = ?, start = ?, stop = ?, place = ?, record = ? WHERE id = ?",
            (file.version, passage.start, passage.stop, passage.place, passage.record, rows[0][0]),
        )
        return True

    def next_rows(self, n: int) -> NDArray[np.int64]:
        """Where ``n`` more vectors go, rising: free rows, then new ones. To be asked before any is freed."""
        free = [row for (row,) in self._rows("SELECT row FROM free ORDER BY row LIMIT ?", n)]
        last_free = int(self._value("SELECT coalesce(max(row), -1) FROM free"))
        behind = max(self.n_rows(), last_free + 1)
        return np.array(free + list(range(behind, behind + n - len(free))), np.int64)

    def insert(self, file: StoredFile, row: int, passage: NewPassage) -> None:
        """A passage whose vector is at ``row``."""
        self.db.execute(
            "INSERT INTO passage (id, file, version, key, start, stop, place, record, text) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(row, file.id, file.version, passage.key, passage.start, passage.stop),
                *(passage.place, passage.record, passage.text),
            ),
        )

    def finish_file(self, file: StoredFile, *, size: int, mtime_ns: int, sha256: str) -> None:
        """This version is complete: passages of earlier ones go."""
        self.db.execute("DELETE FROM passage WHERE file = ? AND version < ?", (file.id, file.version))
        self.db.execute(
            "UPDATE file SET size = ?, mtime_ns = ?, sha256 = ?, is_complete = 1 WHERE id = ?",
            (size, mtime_ns, sha256, file.id),
        )

    def touch(self, file: StoredFile, *, size: int, mtime_ns: int) -> None:
        """The same bytes under another time."""
        self.db.execute("UPDATE file SET size = ?, mtime_ns = ? WHERE id = ?", (size, mtime_ns, file.id))

    def remove_file(self, file: StoredFile) -> None:
        """A file goes, with its passages, and as a root."""
        self.db.execute("DELETE FROM root WHERE path = ?", (file.path,))
        self.db.execute("DELETE FROM passage WHERE file = ?", (file.id,))
        self.db.execute("DELETE FROM file WHERE id = ?", (file.id,))

    def _rows(self, statement: str, *values: object) -> list[Any]:
        with self.lock, told(self._folder):
            return self.db.execute(statement, values).fetchall()

    def _value(self, statement: str) -> Any:
        return self._rows(statement)[0][0]
