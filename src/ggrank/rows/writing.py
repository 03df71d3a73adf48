"""Files that are written whole or not at all, JSON lines, and a lock that ends with its process."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ggrank.errors import InputError

UNFINISHED = ".unfinished"
"""How the name of a file ends that is being written; a killed process leaves it."""


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; on success it is synced to the disk and takes the name ``path``.

    Raises:
        InputError: the file cannot be written; what was there before stays.
    """
    # Two threads or processes may write the same file at once; the later one wins.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{UNFINISHED}")
    with write_errors(path):
        try:
            yield unfinished
            sync(unfinished)
            unfinished.replace(path)
            sync(path.parent)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError into an InputError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be written ({reason})") from error


def sync(path: Path) -> None:
    """Returns when the disk has a file's bytes, or a folder's names."""
    if path.is_dir() and os.name != "posix":
        return  # Windows opens no folder, and writes its names by itself
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextmanager
def locked(path: Path, *, taken: str) -> Iterator[None]:
    """Holds a lock on ``path``, a file that is made for it; the lock ends with its process.

    Raises:
        InputError: with the message ``taken`` where another process holds it; or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with write_errors(path):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(taken) from error
    try:
        yield
    finally:
        lock.release()


def json_line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON in UTF-8, its end included.

    NumPy arrays are lists; times are in ISO 8601, bytes in base64, and other values that JSON lacks are text.
    """
    try:
        import orjson

        options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(record, default=json_default, option=options)
    except (ImportError, TypeError):  # a TypeError is a whole number beyond 64 bits, or a lone surrogate
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":"), default=json_default)
    try:
        return f"{line}\n".encode()
    except UnicodeEncodeError:  # a lone surrogate: only an escape can hold it
        return f"{json.dumps(record, separators=(',', ':'), default=json_default)}\n".encode()


def json_default(value: Any) -> Any:
    """What JSON has in place of a value that it lacks."""
    if hasattr(value, "tolist"):  # a NumPy array or number
        numbers = value.tolist()
        if value.dtype.kind != "f":
            return numbers
        digits = 5 if value.dtype.itemsize == 2 else 9  # enough to give back the same number
        return [float(f"{x:.{digits}g}") for x in numbers] if value.ndim else float(f"{numbers:.{digits}g}")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON object as a file. Raises what `written` raises."""
    with written(path) as unfinished:
        unfinished.write_text(json.dumps(value, indent=1), "utf-8")
