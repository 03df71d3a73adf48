"""Which files a job reads, what kind each is, and whether they are still what they were.

Knows names, sizes and sums; reads no row, and of stdin only whether it begins like JSON.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Literal

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of

Kind = Literal["jsonl", "csv", "parquet", "text"]

STDIN = "-"

_SUFFIXES: dict[str, Kind] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_KNOWN = ".jsonl, .ndjson, .csv (each also .gz) and .parquet"


@dataclass(frozen=True)
class Source:
    """A file of rows, or stdin; its size, time and sum as they were when the job began.

    Attributes:
        name: as it was asked for; "-" is stdin, of which nothing else is known before it is read.
        kind: how its rows are written.
        size: in bytes.
        mtime_ns: when it was changed last.
        sha256: of its bytes; "" where it was not taken yet.
        spool: where stdin's bytes were kept, so that they can be read again.
    """

    name: str
    kind: Kind
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    spool: str = ""

    @property
    def path(self) -> Path | None:
        """Where its bytes are; None for stdin that was not kept."""
        return Path(self.spool or self.name) if self.spool or self.name != STDIN else None

    @property
    def shown(self) -> str:
        """Its name in messages."""
        return "stdin" if self.name == STDIN else self.name

    @property
    def is_compressed(self) -> bool:
        """Whether its bytes are gzip's."""
        return self.name.lower().endswith(".gz")


def kind_of(name: str) -> Kind | None:
    """The kind that a file's suffix stands for.

    Example:
        >>> kind_of("Pairs.CSV"), kind_of("corpus.jsonl.gz"), kind_of("notes.txt")
        ('csv', 'jsonl', None)
    """
    name = name.lower()
    if name.endswith(".gz") and not name.endswith(".parquet.gz"):
        name = name.removesuffix(".gz")
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def holds_rows(path: str) -> bool:
    """Whether a path names files of rows: one of a known kind, a folder that has any, or a pattern.

    Example:
        >>> holds_rows("corpus.jsonl"), holds_rows("data/*"), holds_rows("notes.txt"), holds_rows("-")
        (True, True, False, False)
    """
    if Path(path).is_dir():
        return any(_below(path))
    return kind_of(path) is not None or (has_magic(path) and not Path(path).exists())


def find_sources(
    paths: Iterable[str],
    *,
    kind: Kind | None = None,
    otherwise: Kind | None = None,
    output: Path | None = None,
) -> tuple[Source, ...]:
    """The files that paths stand for, in order: each path a file, a folder, a pattern (``*``) or ``-``.

    A folder stands for all files of a known kind in it and below, sorted, but for those whose name begins
    with a dot or an underscore; a pattern for what it matches, sorted.

    Args:
        kind: of all of them, whatever their suffix says.
        otherwise: of files whose suffix says nothing, and of stdin that does not begin with a brace, as JSON
            lines do; None for an error.
        output: where the job writes; what is there is not read.

    Raises:
        InputError: nothing is there, a file is named twice, or the kinds differ.

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
        raise InputError("stdin (-) goes alone; leave out the other files, or name it as a file")
    sources = tuple(_look(name, kind, otherwise) for name in names)
    kinds = sorted({source.kind for source in sources})
    if len(kinds) > 1:
        raise InputError(
            f"the files are of several kinds ({', '.join(kinds)}); give each kind a job of its own"
        )
    return sources


def _check_once(names: Iterable[str]) -> None:
    seen: dict[Path, str] = {}
    for name in names:
        path = Path(name).resolve()
        if path in seen:
            also = "" if seen[path] == name else f" (also as {seen[path]})"
            raise InputError(f"{name} is named twice{also}, so its rows would be there twice; name it once")
        seen[path] = name


def _names(path: str, output: Path | None) -> Iterator[str]:
    if path == STDIN:
        yield path
    elif Path(path).is_file():
        if _is_own(path, output):
            raise InputError(f"{path} is both read and written; name another --output")
        yield path
    elif Path(path).is_dir():
        yield from _several(
            _below(path), output, f"{path}: the folder holds no file to read; files end in {_KNOWN}"
        )
    elif has_magic(path):
        found = sorted(name for name in glob(path, recursive=True) if Path(name).is_file())  # noqa: PTH207
        yield from _several(found, output, f"{path}: no file matches this pattern")
    else:
        raise InputError(f"{path}: there is no such file, or it is no regular file; a pipe is read from -")


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
    beside = (made.with_name(made.name + ending) for ending in (".parts", ".bad.jsonl", ".job.json"))
    return any(path.is_relative_to(one) for one in (made, made.resolve(), *beside))


def _below(folder: str) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        for name in sorted(names):
            if name[0] not in "._" and kind_of(name):
                yield os.path.join(parent, name)  # noqa: PTH118  (the name stays as it was given)


def _look(name: str, kind: Kind | None, otherwise: Kind | None) -> Source:
    if name == STDIN:
        return Source(name, kind or _kind_of_stdin(otherwise))
    found = kind or kind_of(name) or otherwise
    if found is None:
        raise InputError(f"{name}: what kind of file is it? Its name should end in one of {_KNOWN}")
    return with_facts(Source(name, found))


def begin_of_stdin() -> bytes:
    """Waits for stdin's first bytes, which stay there to be read; from the first that is no space on. Empty
    where there are none, and where a program has put something in its place that may not be looked into.
    """
    peek = getattr(sys.stdin.buffer, "peek", bytes)
    return bytes(peek()).removeprefix(b"\xef\xbb\xbf").lstrip()


def _kind_of_stdin(otherwise: Kind | None) -> Kind:
    begin = begin_of_stdin()
    if not begin or begin.startswith(b"{"):
        return "jsonl"
    if otherwise is None:
        first = begin.splitlines()[0][:40].decode("utf-8", "replace")
        raise InputError(
            f"stdin should be JSON lines, and begins with {first!r}; name another format, as in --format csv"
        )
    return otherwise


def with_facts(source: Source) -> Source:
    """A source with its size and time. Raises InputError where it cannot be looked at, or is no file."""
    if source.path is None:
        return source
    try:
        facts = source.path.stat()
    except OSError as error:
        raise InputError(f"{source.shown}: {error.strerror or error}") from error
    if not stat.S_ISREG(facts.st_mode):
        raise InputError(f"{source.shown}: it is no regular file; a pipe is read from -")
    return replace(source, size=facts.st_size, mtime_ns=facts.st_mtime_ns)


def with_sums(sources: Sequence[Source], known: Mapping[str, str]) -> tuple[Source, ...]:
    """Sources with their sha256.

    Args:
        known: sums that were taken before, by `stamp`.
    """
    return tuple(replace(one, sha256=known.get(stamp(one)) or _sum_of(one)) for one in sources)


def stamp(source: Source) -> str:
    """Stays the same as long as a file was most likely not changed."""
    return f"{source.shown}|{source.size}|{source.mtime_ns}"


def _sum_of(source: Source) -> str:
    if source.path is None:
        return ""
    try:
        return sha256_of(source.path)
    except OSError as error:
        raise InputError(f"{source.shown}: {error.strerror or error}") from error


def check_unchanged(source: Source) -> None:
    """Raises InputError where a file is no longer what it was when the job began."""
    if with_facts(source) != source:
        raise InputError(
            f"{source.shown} was changed while it was read, so the parts would not belong together; put the "
            "old file back, or begin anew with another --output"
        )
