"""An index's folder: is there an index in it, whose is it, and who may write.

Knows file names, SQLite's header, settings and locks; not what the tables are for, beyond their making. Every
error of SQLite becomes one here that says what to do.

    index.sqlite, vectors.float32    see `ggrank.search.store`
    writer.lock                      locked by the one process that writes, as long as it lives
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ggrank.errors import ClosedError, SearchIndexError
from ggrank.search.lexical import add_functions, create_words
from ggrank.search.settings import IndexSettings, command

DATABASE, LOCK = "index.sqlite", "writer.lock"

APPLICATION_ID = b"ggrk"
"""Marks the SQLite file as ours: four bytes of its header, from byte 68."""

FORMAT = 1
"""Of the tables below; an index with another number is another version's."""

TABLES = (
    "CREATE TABLE settings (json TEXT NOT NULL)",
    "CREATE TABLE root (path TEXT PRIMARY KEY)",
    """CREATE TABLE file (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
        sha256 TEXT NOT NULL, is_complete INTEGER NOT NULL, version INTEGER NOT NULL)""",
    # A record's id keeps its type: BLOB stands for "no conversion" here.
    """CREATE TABLE passage (
        id INTEGER PRIMARY KEY, file INTEGER NOT NULL, version INTEGER NOT NULL, key BLOB NOT NULL,
        start INTEGER NOT NULL, stop INTEGER NOT NULL, place TEXT NOT NULL, record BLOB,
        text TEXT NOT NULL)""",
    "CREATE INDEX passage_key ON passage (key, file, version)",
    "CREATE INDEX passage_file ON passage (file, version)",
    "CREATE TABLE free (row INTEGER PRIMARY KEY)",
    """CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
        INSERT INTO words (rowid, terms) VALUES (new.id, terms(new.text));
        DELETE FROM free WHERE row = new.id;
    END""",
    """CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
        INSERT INTO words (words, rowid, terms) VALUES ('delete', old.id, terms(old.text));
        INSERT INTO free (row) VALUES (old.id);
    END""",
)


def exists(folder: Path) -> bool:
    """Whether there is an index; its making may have been cut off before anything was in it.

    Raises:
        SearchIndexError: there is something else under its name.
    """
    path = folder / DATABASE
    if folder.is_file():
        raise SearchIndexError(f"{folder} is a file, and an index is a folder: choose another name")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SearchIndexError(f"{path}: {error.strerror}") from error
    if header[68:72] == APPLICATION_ID:
        return True
    if header and header[:16] != b"SQLite format 3\0":
        raise _foreign(path)
    return _has_tables(path)


def _has_tables(path: Path) -> bool:
    """Whether it is ours, or nobody's yet; the header itself may still be in SQLite's log of writes."""
    with told(path.parent), closing(sqlite3.connect(path)) as db:
        mark = int(db.execute("PRAGMA application_id").fetchone()[0])
        n_tables = int(db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])
    if n_tables and mark != int.from_bytes(APPLICATION_ID, "big"):
        raise _foreign(path)
    return n_tables > 0


def _foreign(path: Path) -> SearchIndexError:
    return SearchIndexError(
        f"{path} is not an index of ggrank, or its first bytes are destroyed: choose another folder, or move "
        "it away"
    )


def make(folder: Path, settings: IndexSettings) -> None:
    """Makes an empty index in place of the one that is there, if any. The lock is held.

    Raises:
        SearchIndexError: something else is there, or the folder cannot be written.
    """
    if exists(folder):
        _remove(folder)
    with told(folder), closing(sqlite3.connect(folder / DATABASE, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")  # searches go on while something is written
        db.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            db.execute(table)
        create_words(db)
        db.execute("INSERT INTO settings (json) VALUES (?)", (settings.to_json(),))
        db.execute(f"PRAGMA application_id = {int.from_bytes(APPLICATION_ID, 'big')}")
        db.execute(f"PRAGMA user_version = {FORMAT}")
        db.execute("COMMIT")


def _remove(folder: Path) -> None:
    with told(folder):
        for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", "vectors.float32", "vectors.int8"):
            (folder / name).unlink(missing_ok=True)


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Makes the folder where there is none; nobody else can write meanwhile. The lock dies with its process.

    Raises:
        SearchIndexError: someone else holds it, or the folder cannot be written.
    """
    with told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n", "utf-8")
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
    with closing(lock):
        try:
            lock.execute("BEGIN EXCLUSIVE")  # of SQLite only its locks are used, which every system has
        except sqlite3.OperationalError as error:
            raise SearchIndexError(
                f"{folder}: the index is being updated by another process (or thread); wait until it is done"
            ) from error
        yield


def connect(folder: Path) -> sqlite3.Connection:
    """A connection to the index. One that may not be written can still be read.

    Raises:
        SearchIndexError: there is no index.
    """
    if not exists(folder):
        raise SearchIndexError(f"{folder}: there is no index; make one with: {command(folder, 'PATH')}")
    mode = "rw" if os.access(folder, os.W_OK) else "ro&immutable=1"
    with told(folder):
        address = f"{(folder / DATABASE).resolve().as_uri()}?mode={mode}"
        db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
        add_functions(db)
        db.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power cut too
        return db


def read_settings(db: sqlite3.Connection, folder: Path) -> IndexSettings:
    """What the index was made with.

    Raises:
        SearchIndexError: it is damaged, or another version's.
    """
    with told(folder):
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        if found != FORMAT:
            raise SearchIndexError(
                f"{folder}: the index has format {found}, this version of ggrank reads {FORMAT}: use the "
                f"version that made it, or make it anew with: {command(folder, 'PATH... --rebuild')}"
            )
        text = db.execute("SELECT json FROM settings").fetchone()[0]
    try:
        return IndexSettings.from_json(text)
    except ValueError as error:
        raise damaged(folder, str(error)) from error


def settings_of(folder: Path) -> IndexSettings:
    """What the index in a folder was made with. Errors as for `connect` and `read_settings`."""
    with closing(connect(folder)) as db:
        return read_settings(db, folder)


def damaged(folder: Path, found: object) -> SearchIndexError:
    """The error for an index whose contents cannot be right."""
    return SearchIndexError(
        f"{folder}: the index is damaged ({found}); make it anew with: {command(folder, '--rebuild')}"
    )


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Errors of SQLite and of files, in ggrank's words."""
    try:
        yield
    except sqlite3.ProgrammingError as error:
        raise ClosedError(f"{folder}: the index was closed; open it again ({error})") from error
    except sqlite3.OperationalError as error:
        hint = "; what was there before is kept" if "full" in str(error) else ""
        raise SearchIndexError(f"{folder}: {error}{hint}") from error
    except sqlite3.DatabaseError as error:
        raise damaged(folder, error) from error
    except SearchIndexError:
        raise
    except OSError as error:
        raise SearchIndexError(f"{error.filename or folder}: {error.strerror or error}") from error
