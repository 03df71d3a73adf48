"""An index's folder: which generation of the index counts, who may write, and what SQLite's errors mean.

current            the number of the generation that counts; replaced in one step
1/index.sqlite     its tables, see `ggrank.search.store`
1/vectors-0.int8   its vectors
writer.lock        locked by the one process that writes, as long as it lives
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ggrank.errors import ClosedError, GgrankError, InputError, SearchIndexError
from ggrank.rows.writing import locked, written
from ggrank.search.settings import command

CURRENT, LOCK, DATABASE = "current", "writer.lock", "index.sqlite"


class StaleError(SearchIndexError):
    """The files that were being read were replaced meanwhile; the search can be done again."""


def exists(folder: Path) -> bool:
    """Whether there is an index.

    Raises:
        SearchIndexError: there is something else under its name.
    """
    if folder.is_file():
        raise SearchIndexError(f"{folder} is a file, and an index is a folder: choose another name")
    return current(folder) is not None


def current(folder: Path) -> int | None:
    """The generation that counts; None where there is no index.

    Raises:
        SearchIndexError: the file that names it is something else.
    """
    path = folder / CURRENT
    try:
        return int(path.read_text("ascii"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise SearchIndexError(
            f"{path} does not belong to an index of ggrank, or is destroyed: choose another folder, or move "
            "it away"
        ) from error
    except OSError as error:
        raise SearchIndexError(f"{path}: {error.strerror}") from error


def generation(folder: Path, number: int | None = None) -> Path:
    """The folder of a generation, by default of the one that counts.

    Raises:
        SearchIndexError: there is no index.
    """
    number = current(folder) if number is None else number
    if number is None:
        raise SearchIndexError(f"{folder}: there is no index; make one with: {command(folder, 'PATH')}")
    return folder / str(number)


def switch(folder: Path, number: int) -> None:
    """Makes a generation the one that counts, in one step; readers follow at their next search."""
    with written(folder / CURRENT) as unfinished:
        unfinished.write_text(str(number), "ascii")


def remove_other_generations(folder: Path, *keep: int | None) -> None:
    """Removes generations that no longer count, or never did. A reader's open files stay readable."""
    for path in folder.iterdir():
        if path.name.isdigit() and int(path.name) not in keep:
            shutil.rmtree(path, ignore_errors=True)  # on Windows a reader can keep it until the next time


@contextmanager
def writer_lock(folder: Path) -> Iterator[None]:
    """Makes the folder where there is none; no one else can write meanwhile. The lock dies with its process.

    Raises:
        SearchIndexError: someone else holds it, or the folder cannot be written.
    """
    with translate_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n", "utf-8")
    taken = f"{folder}: the index is being updated by another process (or thread); wait until it is done"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / LOCK, taken=taken))
        except InputError as error:
            raise SearchIndexError(str(error)) from error
        yield


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


def damaged(folder: Path, found: object) -> SearchIndexError:
    """The error for an index whose contents cannot be right."""
    return SearchIndexError(
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
