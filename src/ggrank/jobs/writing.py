"""Files that are written whole or not at all, and on the disk when that is said.

Knows paths and syncs, JSON lines and .npy; not what a job is.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError


def check_place(path: Path) -> None:
    """Raises InputError where a file's folder is missing (a name that is mistyped makes no folders), or where
    a folder is in the file's place.
    """
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, and a file should go there; name another --output, or end the name with a "
            "slash for a folder of parts"
        )


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which it replaces, on the disk, when all went well.

    Raises:
        InputError: it cannot be written; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    with told(path):
        try:
            yield temporary
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Errors of writing a file, in ggrank's words."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be written ({reason}); what is done is kept") from error


def sync(path: Path) -> None:
    """Returns when the disk has it, a file's bytes or a folder's names."""
    if path.is_dir() and os.name != "posix":
        return  # Windows opens no folder, and keeps its names by itself
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def append(path: Path, text: str) -> None:
    """Adds to a file, and returns when the disk has it. Raises InputError where it cannot be written."""
    with told(path), path.open("ab") as file:
        file.write(encoded(text))
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """One JSON object, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(encoded(json.dumps(value, indent=1, ensure_ascii=False) + "\n"))


def encoded(text: str) -> bytes:
    """JSON as UTF-8; lone surrogates, as in a file's name that is no UTF-8, become JSON's own escapes."""
    return text.encode("utf-8", "backslashreplace")


def concatenate(target: IO[bytes], parts: Iterable[Path]) -> None:
    """Files behind one another."""
    for part in parts:
        with part.open("rb") as file:
            shutil.copyfileobj(file, target, 1 << 20)


# -- JSON lines


def json_lines(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """A line for each row, with the new columns behind its own.

    Numbers have as many digits as give back the same float32 (9) or float16 (5).
    """
    lists = {name: _numbers(values) for name, values in columns.items()}
    for i, row in enumerate(rows):
        record = {**row, **{name: values[i] for name, values in lists.items()}}
        line = json.dumps(record, ensure_ascii=False, default=_plain)
        try:
            line.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate: only an escape can carry it
            line = json.dumps(record, default=_plain)
        yield line + "\n"


def _numbers(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind != "f":
        return list(values.tolist())
    digits = 5 if values.dtype == np.float16 else 9
    if values.ndim == 1:
        return [float(f"{value:.{digits}g}") for value in values.tolist()]
    return [[float(f"{value:.{digits}g}") for value in row] for row in values.tolist()]


def _plain(value: Any) -> Any:
    """What Parquet has and JSON has not: times in ISO 8601, bytes in base64, decimals as text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


# -- .npy


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """One array."""
    with path.open("wb") as file:
        np.save(file, array)


def assemble_npy(path: Path, parts: Sequence[Path]) -> None:
    """One array of many, a row behind the other; none of them is held whole beside another."""
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(arrays[0].dtype), "fortran_order": False, "shape": shape}
    del arrays
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.load(part).tobytes())
