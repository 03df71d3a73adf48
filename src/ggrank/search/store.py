"""One generation of an index: SQLite tables for what it holds, and the vectors that they name.

    document -> blocks of its text           a document's text is stored once
    place: a span of a document -> passage   equal texts are one passage with several places
    passage: one vector, one row of words    its id is the row of its vector

A vector is on the disk before the transaction commits that makes its row count, and no row is written twice.
So whenever a process is killed, what was committed is whole, and a search reads one committed state to its
end, whatever is written meanwhile. A row that nothing needs any more is free; when more than 30 % are, the
last ones move into the free ones, in a new vector file that the same transaction names.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ClosedError, GgrankError, SearchIndexError
from ggrank.search.chunking import embedded_text
from ggrank.search.files import FileRules
from ggrank.search.lexical import add_functions, create_words
from ggrank.search.settings import IndexSettings, command
from ggrank.search.vectors import Vectors
from ggrank.search.words import WORDS_VERSION

DATABASE = "index.sqlite"
APPLICATION_ID = int.from_bytes(b"ggrk", "big")
FORMAT = 4
"""Of the tables below; an index with another number is another version's."""

BLOCK = 512
"""Characters of a stored block of text: a passage is read without the rest of a long document, and small
blocks fill SQLite's pages of 4,096 bytes."""

MOST_FREE, LEAST_FREE = 0.3, 256
"""The share of free rows above which the vectors are compacted, and the number below which they are not."""

COPIED = 10_000
"""Vectors that are copied at a time."""

DOCUMENT_BLOCKS = 1 << 24
"""Block ids of a document: its own id times this number, and what follows."""

TABLES = (
    """CREATE TABLE meta (
        settings TEXT, unrelated REAL, words TEXT, vectors TEXT, n_rows INTEGER, state INTEGER,
        updated REAL, folder TEXT)""",
    "CREATE TABLE root (path TEXT PRIMARY KEY, is_forgotten INTEGER NOT NULL)",
    "CREATE TABLE rules (root TEXT PRIMARY KEY, rules TEXT NOT NULL)",
    """CREATE TABLE file (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        sha256 TEXT NOT NULL, is_complete INTEGER NOT NULL, version INTEGER NOT NULL)""",
    # An id keeps its type: BLOB stands for "no conversion" here. file is 0 where a document is no file's.
    """CREATE TABLE document (
        id INTEGER PRIMARY KEY, file INTEGER NOT NULL, version INTEGER NOT NULL, key BLOB, name BLOB,
        title TEXT NOT NULL, metadata TEXT NOT NULL, place TEXT NOT NULL)""",
    "CREATE INDEX document_file ON document (file, key)",
    "CREATE INDEX document_name ON document (name) WHERE name IS NOT NULL",
    "CREATE TABLE block (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE TABLE passage (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE)",
    """CREATE TABLE place (
        document INTEGER NOT NULL, number INTEGER NOT NULL, passage INTEGER NOT NULL, start INTEGER NOT NULL,
        stop INTEGER NOT NULL, line INTEGER NOT NULL, headings TEXT NOT NULL, page TEXT NOT NULL,
        PRIMARY KEY (document, number)) WITHOUT ROWID""",
    "CREATE INDEX place_passage ON place (passage)",
    "CREATE TABLE free (row INTEGER PRIMARY KEY)",
    f"""CREATE VIEW place_text AS SELECT *, substr(
        (SELECT group_concat(text, '') FROM (SELECT text FROM block WHERE block.id BETWEEN
            document * {DOCUMENT_BLOCKS} + start / {BLOCK} AND
            document * {DOCUMENT_BLOCKS} + (stop - 1) / {BLOCK} ORDER BY block.id)),
        start % {BLOCK} + 1, stop - start) AS text FROM place""",
    """CREATE VIEW passage_text AS SELECT id, (SELECT embedded_text(headings, text) FROM place_text
        WHERE passage = passage.id LIMIT 1) AS text FROM passage""",
)


class StaleError(SearchIndexError):
    """The files that were being read were replaced meanwhile; the search can be done again."""


class DamagedError(SearchIndexError):
    """The index is damaged or another version's, so that it can only be made anew."""


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when it was last read to its end; documents below ``version`` are older."""

    id: int
    path: str
    size: int
    mtime_ns: int
    sha256: str
    version: int
    is_complete: bool


class Snapshot:
    """One committed state of an index, as long as the ``with`` block of `Store.snapshot` lasts."""

    def __init__(self, store: Store, db: sqlite3.Connection) -> None:
        self.db = db
        self.store = store
        meta = db.execute("SELECT unrelated, vectors, n_rows, state, updated FROM meta").fetchone()
        self.unrelated: float = meta[0]
        self.n_rows: int = meta[2]
        self.state: int = meta[3]
        self.updated: float = meta[4]
        self.vectors = store.vectors_named(meta[1])

    def value(self, statement: str, *values: object) -> Any:
        """The first column of the first row, or None."""
        row = self.row(statement, *values)
        return row[0] if row else None

    def row(self, statement: str, *values: object) -> Any:
        """The first row, or None."""
        return self.db.execute(statement, values).fetchone()

    def rows(self, statement: str, *values: object) -> list[Any]:
        """All rows."""
        return self.db.execute(statement, values).fetchall()

    def text_of(self, document: int) -> str:
        """A document's whole text."""
        first = document * DOCUMENT_BLOCKS
        blocks = self.db.execute(
            "SELECT text FROM block WHERE id BETWEEN ? AND ? ORDER BY id",
            (first, first + DOCUMENT_BLOCKS - 1),
        )
        return "".join(text for (text,) in blocks)

    def free_rows(self) -> NDArray[np.int64]:
        """Rows without a passage, read once for each state."""
        known = self.store.free_rows
        if known is None or known[0] != self.state:
            rows = self.db.execute("SELECT row FROM free WHERE row < ?", (self.n_rows,))
            known = (self.state, np.fromiter((row for (row,) in rows), np.int64))
            self.store.free_rows = known
        return known[1]

    def n_passages(self) -> int:
        """Equal passages are counted once."""
        return self.n_rows - len(self.free_rows())


class Store:
    """An index's tables and vectors. Reading is for any number of threads and processes, writing for one.

    ``folder`` is the index's, for messages; ``path`` the generation's, None in memory.
    """

    def __init__(self, folder: Path, path: Path | None, *, make: IndexSettings | None = None) -> None:
        self.folder = folder
        self.path = path
        self.free_rows: tuple[int, NDArray[np.int64]] | None = None
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._lock = threading.RLock()  # of the one connection in memory, and of what is opened
        self._is_closed = False
        self._vectors: dict[str, Vectors] = {}
        if make is not None:
            self._make(make)
        try:
            self.settings = self._read_settings()
        except BaseException:
            self.close()
            raise

    # -- connections

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The last committed state, unchanged until the block ends; a connection for each thread at work."""
        with translate_errors(self.folder), self._reader() as db:
            db.execute("BEGIN")
            try:
                yield Snapshot(self, db)
            finally:
                db.rollback()

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if self.path is None:
            with self._lock:
                yield self._write_connection()
            return
        path, stays = self.path / DATABASE, True
        before = path.stat().st_mtime_ns
        try:
            db = self._idle.pop()
        except IndexError:
            db, stays = connect_to_read(path)
        try:
            yield db
            if not stays and path.stat().st_mtime_ns != before:
                raise StaleError(f"{self.folder}: the index changed while it was read; try again")
        finally:
            if stays and not self._is_closed:
                self._idle.append(db)
            else:
                db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that happens inside, or none of it. The writer's lock is held."""
        with self._lock, translate_errors(self.folder):
            db = self._write_connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("UPDATE meta SET state = state + 1, updated = ?", (time.time(),))
                db.execute("COMMIT")
                # A reader without the right to write needs this state's mark in the log, which a read sets.
                db.execute("SELECT state FROM meta").fetchall()
            finally:
                if db.in_transaction:  # on an error; SQLite ends it by itself when the disk is full
                    db.execute("ROLLBACK")

    def _write_connection(self) -> sqlite3.Connection:
        if self._writer is None:
            if self.path is None:
                self._writer = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            else:
                self._writer = connect(self.path / DATABASE, "rwc")
                # What was acknowledged survives a power cut.
                self._writer.execute("PRAGMA synchronous = FULL")
            add_functions(self._writer)
            self._writer.create_function("embedded_text", 2, embedded_text, deterministic=True)
        return self._writer

    def close(self) -> None:
        """Lets go of the files; searches that are under way end undisturbed."""
        with self._lock:
            self._is_closed = True
            while self._idle:
                self._idle.pop().close()
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            self._vectors.clear()

    # -- making and opening

    def _make(self, settings: IndexSettings) -> None:
        with translate_errors(self.folder), self._lock:
            if self.path is not None:
                self.path.mkdir()
            db = self._write_connection()
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")  # searches go on while something is written
            db.execute("BEGIN IMMEDIATE")
            for table in TABLES:
                db.execute(table)
            create_words(db)
            name = f"vectors-0.{settings.vectors}"
            facts = json.dumps(asdict(settings))
            values = (facts, None, WORDS_VERSION, name, time.time(), str(self._place()))
            db.execute("INSERT INTO meta VALUES (?, ?, ?, ?, 0, 0, ?, ?)", values)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {FORMAT}")
            db.execute("COMMIT")

    def _read_settings(self) -> IndexSettings:
        with translate_errors(self.folder), self._reader() as db:
            mark = db.execute("PRAGMA application_id").fetchone()[0]
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if mark != APPLICATION_ID:
                raise damaged(self.folder, "its database is not ggrank's")
            if found != FORMAT:
                raise DamagedError(
                    f"{self.folder}: the index has format {found}, this version of ggrank reads {FORMAT}: "
                    "use the version that made it, or make it anew with: "
                    + command(self.folder, "PATH... --rebuild")
                )
            text = db.execute("SELECT settings FROM meta").fetchone()[0]
        try:
            return IndexSettings(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise damaged(self.folder, error) from error

    def vectors_named(self, name: str) -> Vectors:
        """A vector file by its name in ``meta``."""
        vectors = self._vectors.get(name)
        if vectors is None:
            vectors = self._new_vectors(name)
            self._vectors = {name: vectors}
        return vectors

    def _new_vectors(self, name: str) -> Vectors:
        path = None if self.path is None else self.path / name
        return Vectors(path, n_embd=self.settings.n_embd, vector_type=self.settings.vectors)

    def check_whole(self) -> None:
        """Raises SearchIndexError where vectors are missing; the tables can be read all the same."""
        with self.snapshot() as snapshot:
            n_there = snapshot.vectors.n_rows()
            if n_there < snapshot.n_rows:
                raise damaged(self.folder, f"{snapshot.n_rows:,} vectors belong in it, {n_there:,} are there")

    # -- what the writer reads

    def files(self) -> list[StoredFile]:
        """All files."""
        with self.snapshot() as snapshot:
            fields = "id, path, size, mtime_ns, sha256, version, is_complete"
            return [StoredFile(*row) for row in snapshot.rows(f"SELECT {fields} FROM file")]

    def roots(self, *, forgotten: bool = False) -> list[str]:
        """The files and folders that were asked for, in order; or those below them that were forgotten."""
        statement = "SELECT path FROM root WHERE is_forgotten = ? ORDER BY rowid"
        with self.snapshot() as snapshot:
            return [path for (path,) in snapshot.rows(statement, forgotten)]

    def rules(self) -> dict[str, FileRules]:
        """Which files of a folder that was asked for are read; of the others the default counts."""
        with self.snapshot() as snapshot:
            rows = snapshot.rows("SELECT root, rules FROM rules")
            return {root: FileRules(*json.loads(rules)) for root, rules in rows}

    # -- writing

    def refill_words(self) -> None:
        """Fills the words again where another version of Python or ggrank filled them."""
        with self.snapshot() as snapshot:
            if snapshot.value("SELECT words FROM meta") == WORDS_VERSION:
                return
        with self.transaction() as db:
            db.execute("INSERT INTO words (words) VALUES ('delete-all')")
            db.execute("INSERT INTO words (rowid, terms) SELECT id, terms(text) FROM passage_text")
            db.execute("UPDATE meta SET words = ?", (WORDS_VERSION,))

    def follow_move(self) -> None:
        """Gives files and the model their new paths where the index was moved together with its folder."""
        with self.snapshot() as snapshot:
            old, new = Path(snapshot.value("SELECT folder FROM meta")), self._place()
        if old == new or old.exists():
            return
        paths = [Path(path) for path in [*self.roots(), *(file.path for file in self.files())]]
        moved = [new / path.relative_to(old) for path in paths if path.is_relative_to(old)]
        if not any(path.exists() for path in moved):
            return
        with self.transaction() as db:
            for table, column in (("file", "path"), ("root", "path"), ("rules", "root")):
                db.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (str(new), len(str(old)) + 1, str(old), len(str(old)) + 1, f"{old}{os.sep}"),
                )
            db.execute("UPDATE meta SET folder = ?", (str(new),))
        if (model := Path(self.settings.model)).is_relative_to(old):
            self.set_model(new / model.relative_to(old))

    def _place(self) -> Path:
        """The folder that the index's own folder lies in."""
        return self.folder.absolute().parent

    def set_model(self, path: Path) -> None:
        """Remembers where the model is now."""
        if str(path) != self.settings.model:
            settings = replace(self.settings, model=str(path))
            with self.transaction() as db:
                db.execute("UPDATE meta SET settings = ?", (json.dumps(asdict(settings)),))
            self.settings = settings

    def compact(self) -> None:
        """Moves the last passages into free rows where too many are free, and shrinks both files."""
        with self.snapshot() as snapshot:
            free, n_rows, old = np.sort(snapshot.free_rows()), snapshot.n_rows, snapshot.vectors
            number = int(snapshot.value("SELECT vectors FROM meta").split(".")[0].split("-")[1])
        if len(free) < LEAST_FREE or len(free) <= MOST_FREE * n_rows or old.n_rows() < n_rows:
            return
        n_left = n_rows - len(free)
        holes = free[free < n_left]
        moved = np.setdiff1d(np.arange(n_left, n_rows), free, assume_unique=True)
        source = np.arange(n_left)
        source[holes] = moved
        name = f"vectors-{number + 1}.{self.settings.vectors}"
        new = self._new_vectors(name)
        with translate_errors(self.folder):
            for first in range(0, n_left, COPIED):
                new.write(first, old.read(source[first : first + COPIED]))
        with self.transaction() as db:
            _move_passages(db, zip(moved.tolist(), holes.tolist(), strict=True))
            db.execute("UPDATE meta SET n_rows = ?, vectors = ?", (n_left, name))
            self._vectors = {name: new}
        with self._lock, translate_errors(self.folder):
            db.execute("PRAGMA incremental_vacuum").fetchall()
        if self.path is not None:
            for path in self.path.glob("vectors-*"):
                if path.name != name:
                    with suppress(OSError):  # on Windows a reader can keep it until the next time
                        path.unlink()


def connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection to an SQLite file: "rwc" to make it, "rw", "ro", or "ro&immutable=1"."""
    address = f"{path.resolve().as_uri()}?mode={mode}"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)


def connect_to_read(path: Path) -> tuple[sqlite3.Connection, bool]:
    """A connection for a reader, who may lack the right to write, and whether it sees later commits.

    SQLite reads the log of a living or killed writer without writing, as long as the log's index is there. A
    database without a log can only be read as one that no one changes; such a connection is for one search.
    """
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return connect(path, "rw"), True
    db = connect(path, "ro")
    try:
        db.execute("SELECT 1 FROM meta").fetchall()
    except sqlite3.OperationalError:
        db.close()
        log = path.with_name(f"{path.name}-wal")
        if not path.exists() or (log.exists() and log.stat().st_size):
            raise
        return connect(path, "ro&immutable=1"), False
    return db, True


def damaged(folder: Path, found: object) -> DamagedError:
    """The error for an index whose contents cannot be right."""
    return DamagedError(
        f"{folder}: the index is damaged ({found}); make it anew with: {command(folder, '--rebuild')}"
    )


@contextmanager
def translate_errors(folder: Path) -> Iterator[None]:
    """Errors of SQLite and of files, in ggrank's words."""
    try:
        yield
    except GgrankError:
        raise
    except sqlite3.ProgrammingError as error:
        raise ClosedError(f"{folder}: the index was closed; open it again ({error})") from error
    except FileNotFoundError as error:
        raise StaleError(f"{error.filename or folder}: {error.strerror or error}") from error
    except sqlite3.OperationalError as error:
        if "unable to open" in str(error):
            raise StaleError(f"{folder}: {error}") from error
        hint = "; what was there before is kept" if "full" in str(error) else ""
        raise SearchIndexError(f"{folder}: {error}{hint}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(folder, error) from error
    except OSError as error:
        raise SearchIndexError(f"{error.filename or folder}: {error.strerror or error}") from error


def _move_passages(db: sqlite3.Connection, pairs: Iterable[tuple[int, int]]) -> None:
    """Gives passages free rows; no row is free afterwards."""
    db.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
    db.executemany("INSERT INTO moved VALUES (?, ?)", pairs)
    db.execute(
        "INSERT INTO words (words, rowid, terms) "
        "SELECT 'delete', id, terms(text) FROM passage_text WHERE id IN (SELECT old FROM moved)"
    )
    db.execute(
        "INSERT INTO words (rowid, terms) "
        "SELECT new, terms(text) FROM moved JOIN passage_text ON passage_text.id = old"
    )
    for table, column in (("passage", "id"), ("place", "passage")):
        db.execute(
            f"UPDATE {table} SET {column} = (SELECT new FROM moved WHERE old = {column}) "
            f"WHERE {column} IN (SELECT old FROM moved)"
        )
    db.execute("DELETE FROM free")
    db.execute("DROP TABLE moved")
