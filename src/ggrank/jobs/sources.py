"""Which files a job reads: those that paths, folders and patterns stand for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from ggrank.errors import InputError
from ggrank.rows.reading import SUFFIXES, FileFormat, format_of

STDIN = "-"

BESIDE = (".shards", ".bad.jsonl", ".job.json")
"""How the names of what a job writes beside a single output file end."""

_KNOWN = ", ".join(suffix for suffix in SUFFIXES if suffix != ".json")


@dataclass(frozen=True)
class Source:
    """A file of rows by the name that it was asked for, or stdin ("-")."""

    name: str
    file_format: FileFormat = "auto"

    @property
    def is_parquet(self) -> bool:
        """Whether it is read as Parquet."""
        return (format_of(self.name) if self.file_format == "auto" else self.file_format) == "parquet"

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return "stdin" if self.name == STDIN else self.name


def find_sources(
    paths: Iterable[str], *, file_format: FileFormat = "auto", output: Path | None = None
) -> tuple[Source, ...]:
    """The files that paths stand for, in order: each path a file, a folder, a pattern (``*``) or ``-``.

    A folder stands for all files with a known suffix in it and below, sorted, except those whose name begins
    with a dot or an underscore; a pattern for what it matches, sorted.

    Args:
        file_format: of all of them; "auto" as `read_rows` has it.
        output: where the job writes; what is there is not read.

    Raises:
        InputError: there is no such file, one is named twice, or stdin is not alone.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.csv", "a.csv", "_c.csv", "readme.md"):
        ...         _ = Path(folder, name).write_text("text")
        ...     [Path(source.name).name for source in find_sources([folder])]
        ['a.csv', 'b.csv']
    """
    names = [name for path in paths for name in _names(path, output)]
    _check_once(names)
    if STDIN in names and len(names) > 1:
        raise InputError("stdin (-) goes alone; leave out the other files")
    return tuple(Source(name, file_format) for name in names)


def _check_once(names: Iterable[str]) -> None:
    seen: dict[Path, str] = {}
    for name in names:
        path = Path(name).resolve()
        if path in seen:
            also = "" if seen[path] == name else f" (also as {seen[path]})"
            raise InputError(f"{name} is named twice{also}; name it once")
        seen[path] = name


def _names(path: str, output: Path | None) -> Iterator[str]:
    if path == STDIN:
        yield path
    elif Path(path).is_file():
        if _is_own(path, output):
            raise InputError(f"{path} is both read and written; name another --output")
        yield path
    elif Path(path).is_dir():
        yield from _several(_below(path), output, f"{path}: the folder has no file of rows ({_KNOWN})")
    elif has_magic(path):
        found = sorted(name for name in glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207  (names stay as given)
        yield from _several(found, output, f"{path}: no file matches this pattern")
    else:
        raise InputError(f"{path}: there is no such file; a pipe is read from -")


def _several(found: Iterable[str], output: Path | None, otherwise: str) -> Iterator[str]:
    names = [name for name in found if not _is_own(name, output)]
    if not names:
        raise InputError(otherwise)
    yield from names


def _is_own(name: str, output: Path | None) -> bool:
    """Whether a file is, or lies in, what the job writes."""
    if output is None:
        return False
    path, made = Path(name).resolve(), output.parent.resolve() / output.name  # which may be a link itself
    beside = (made.with_name(made.name + ending) for ending in BESIDE)
    return any(path.is_relative_to(one) for one in (made, made.resolve(), *beside))


def _below(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(names):
            # A .json in a folder is mostly about the files beside it.
            if name[0] not in "._" and format_of(name) not in (None, "json"):
                yield os.path.join(parent, name)  # noqa: PTH118  (names stay as they were given)
