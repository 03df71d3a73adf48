"""Which files a job reads: those that paths, folders and patterns stand for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path

from ggrank.errors import InputError
from ggrank.rows.reading import SUFFIXES, format_of

STDIN = "-"

RECORD, BAD = ".job", ".bad.jsonl"
"""How the names of what a job writes beside a single output file end."""

_KNOWN = ", ".join(suffix for suffix in SUFFIXES if suffix != ".json")


def find_sources(paths: Iterable[str], *, output: Path | None = None) -> tuple[str, ...]:
    """The files that paths stand for, in order: each a file, a folder, a pattern (``*``) or stdin (``-``).

    A folder stands for all files with a known suffix in it and below, sorted, except those whose name begins
    with a dot or an underscore; a pattern for what it matches, sorted.

    Args:
        output: where the job writes; what is there is not read.

    Raises:
        InputError: there is no such file, one is named twice, or stdin is not alone.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.csv", "a.csv", "_c.csv", "readme.md"):
        ...         _ = Path(folder, name).write_text("text")
        ...     [Path(source).name for source in find_sources([folder])]
        ['a.csv', 'b.csv']
    """
    names = [name for path in paths for name in _names(path, output)]
    seen: dict[Path, str] = {}
    for name in names:
        before = seen.setdefault(Path(name).resolve(), name)
        if before is not name:
            also = "" if before == name else f" (also as {before})"
            raise InputError(f"{name} is named twice{also}; name it once")
    if STDIN in names and len(names) > 1:
        raise InputError("stdin (-) goes alone; leave out the other files")
    return tuple(names)


def _names(path: str, output: Path | None) -> Iterator[str]:
    if path == STDIN:
        yield path
        return
    if Path(path).is_file():
        if _is_own(path, output):
            raise InputError(f"{path} is both read and written; name another --output")
        yield path
        return
    if Path(path).is_dir():
        found, otherwise = _below(path), f"{path}: the folder has no file of rows ({_KNOWN})"
    elif has_magic(path):
        found = sorted(name for name in glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207  (names stay as given)
        otherwise = f"{path}: no file matches this pattern"
    else:
        raise InputError(f"{path}: there is no such file; a pipe is read from -")
    names = [name for name in found if not _is_own(name, output)]
    if not names:
        raise InputError(otherwise)
    yield from names


def _is_own(name: str, output: Path | None) -> bool:
    """Whether a file is, or lies in, what the job writes."""
    if output is None:
        return False
    path, made = Path(name).resolve(), output.parent.resolve() / output.name  # which may be a link itself
    beside = (made.with_name(made.name + ending) for ending in (RECORD, BAD))
    return any(path.is_relative_to(one) for one in (made, made.resolve(), *beside))


def _below(folder: str) -> list[str]:
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        # A .json in a folder is mostly about the files beside it.
        wanted = (
            name for name in sorted(names) if name[0] not in "._" and format_of(name) not in (None, "json")
        )
        found += [os.path.join(parent, name) for name in wanted]  # noqa: PTH118  (names stay as they were given)
    return found
