"""Files of rows, read one at a time from any place on: JSON lines, CSV, plain lines, Parquet.

Knows how rows are written and where each begins; not what is done with them. What cannot be read is a row
with a problem, so that whoever counts rows counts it too.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any, NamedTuple, cast

from ggrank.errors import InputError
from ggrank.jobs.sources import Source

MOST_BYTES = 1 << 26
"""Of a line or a field, 64 MB: a quote that is never closed would else read the whole file into memory."""

_UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading raises: the disk's errors, a compressed file that was cut, one that is damaged."""

_TOO_LONG = f"a line of more than {MOST_BYTES >> 20} MB"


class Place(NamedTuple):
    """Where a row begins.

    Attributes:
        source: which of the job's sources.
        row: lines of it before (JSON lines, CSV, text), or rows (Parquet).
        offset: bytes of it before; of Parquet and compressed files only to tell how far a job is.
    """

    source: int = 0
    row: int = 0
    offset: int = 0


FIRST = Place()


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read.

    Attributes:
        source: which of the job's sources.
        line: where it begins, from 1; of Parquet the row's number.
        values: by column; of Parquet only the columns that were asked for.
        size: bytes, about.
        after: where the next row begins.
        problem: why it cannot be used; "" for a sound row.
        batch, index: where a Parquet row lies.
    """

    source: int
    line: int
    values: Mapping[str, Any]
    size: int
    after: Place
    problem: str = ""
    batch: Any = None
    index: int = 0


@dataclass
class RowReader:
    """The rows of all sources in order, from a place on; to be iterated over once.

    Args:
        sources: of one kind.
        columns: that are needed; of Parquet no others become Python values.
        start: where to begin.
    """

    sources: Sequence[Source]
    columns: Sequence[str]
    start: Place = FIRST

    def __iter__(self) -> Iterator[Row]:
        for number, source in enumerate(self.sources):
            if number >= self.start.source:
                start = self.start if number == self.start.source else Place(number)
                yield from self._rows(source, start)

    def _rows(self, source: Source, start: Place) -> Iterator[Row]:
        if source.kind == "parquet":
            from ggrank.jobs.parquet import read_rows

            yield from read_rows(source, start, columns=self.columns)
            return
        with _opened(source) as file:
            yield from _READERS[source.kind](_Lines(file, source, start))


def csv_header(source: Source) -> list[str]:
    """The columns of a CSV file.

    Raises:
        InputError: it has none, or one twice.
    """
    with _opened(source) as file:
        return _header(_Lines(file, source, Place()))[0]


def check_names(names: Sequence[str], source: Source) -> None:
    """Raises InputError where two columns have one name: which of them is meant?"""
    if len(set(names)) < len(names):
        twice = next(first for first, second in pairwise(sorted(names)) if first == second)
        raise InputError(f"{source.shown}: two columns are named {twice!r}; give each a name of its own")


class _Lines:
    """The physical lines of a source, counted. ``skip`` goes on at the place where reading should begin.

    Attributes:
        number, offset: lines and bytes that were read.
        problem: why the line that was read last is not given, but empty; "" for others.
        ended: whether a line was asked for behind the last one.
    """

    def __init__(self, file: IO[bytes], source: Source, start: Place) -> None:
        self.source, self.start = source, start
        self._file = file
        self._readline: Callable[[int], bytes] = file.readline
        self._can_seek = not source.is_compressed
        self.number = self.offset = 0
        self.problem = ""
        self.ended = False
        if source.kind == "csv" and self._has_carriage_returns():
            # As Excel's "CSV (Macintosh)" has them. Latin-1 gives each byte back as it was.
            text = io.TextIOWrapper(file, "latin-1", newline="\r")
            self._readline = lambda size: text.readline(size).encode("latin-1")
            self._can_seek = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._read(MOST_BYTES)
        if not line:
            self.ended = True
            raise StopIteration
        if self.number == 0 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{self.source.shown}: not UTF-8 (it looks like UTF-16); save the file as UTF-8")
        self.problem = ""
        if len(line) == MOST_BYTES and not line.endswith(b"\n"):
            line, self.problem = b"", _TOO_LONG
            while (rest := self._read(1 << 20)) and not rest.endswith(b"\n"):
                pass
        self.number += 1
        return line.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else line

    def _read(self, size: int) -> bytes:
        try:
            line = self._readline(size)
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        self.offset += len(line)
        return line

    def _has_carriage_returns(self) -> bool:
        """Whether lines end in CR alone; the first bytes are looked at, and stay there to be read."""
        try:
            begin = getattr(self._file, "peek", bytes)(1)  # more than one, all that was read at once
        except _UNREADABLE as error:
            raise self._unreadable(error) from error
        return b"\r" in begin[:-1] and b"\n" not in begin

    def _unreadable(self, error: Exception) -> InputError:
        reason = getattr(error, "strerror", None) or error
        return InputError(
            f"{self.source.shown}:{self.number + 1}: cannot be read ({reason}); is the file whole?"
        )

    def skip(self) -> None:
        """To where the start is; a file is not read up to there."""
        if self.start.row > self.number and self._can_seek:
            self._file.seek(self.start.offset)
            self.number, self.offset = self.start.row, self.start.offset
        while self.number < self.start.row:
            if next(self, None) is None:
                raise InputError(
                    f"{self.source.shown} ends before the row where the job stopped; it was changed"
                )

    def row(self, line: int, values: Mapping[str, Any], *, before: int, problem: str = "") -> Row:
        """The row that was read last; ``before`` is the offset where it began."""
        after = Place(self.start.source, self.number, self.offset)
        return Row(self.start.source, line, values, self.offset - before, after, problem)


def _opened(source: Source) -> IO[bytes]:
    try:
        if source.path is None:
            return sys.stdin.buffer
        if source.is_compressed:
            return cast("IO[bytes]", gzip.open(source.path, "rb"))
        return source.path.open("rb")
    except OSError as error:
        raise InputError(f"{source.shown}: {error.strerror or error}") from error


def _read_jsonl(lines: _Lines) -> Iterator[Row]:
    lines.skip()
    while True:
        before = lines.offset
        line = next(lines, None)
        if line is None:
            return
        if lines.problem or line.strip():
            values, problem = ({}, lines.problem) if lines.problem else _parsed(line)
            yield lines.row(lines.number, values, before=before, problem=problem)


def _parsed(line: bytes) -> tuple[Mapping[str, Any], str]:
    """A JSON object and "", or nothing and what is wrong."""
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 (byte {error.start + 1})"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return (value, "") if isinstance(value, dict) else ({}, f"not an object: {type(value).__name__}")


def _read_text(lines: _Lines) -> Iterator[Row]:
    lines.skip()
    while True:
        before = lines.offset
        line = next(lines, None)
        if line is None:
            return
        if not (lines.problem or line.strip()):
            continue
        try:
            text, problem = line.decode("utf-8").rstrip("\r\n"), lines.problem
        except UnicodeDecodeError as error:
            text, problem = "", f"not UTF-8 (byte {error.start + 1})"
        yield lines.row(lines.number, {"text": text}, before=before, problem=problem)


def _read_csv(lines: _Lines) -> Iterator[Row]:
    header, reader = _header(lines)
    lines.skip()
    while True:
        number, before = lines.number + 1, lines.offset
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{lines.source.shown}:{number}: not CSV ({error}); where the next row begins is not known"
            ) from error
        if fields is None:
            return
        if fields:
            values, problem = _named(header, fields)
            if lines.ended:  # `csv` asks for a line behind the last one only within quotes
                problem = f"a quote is never closed: all up to line {lines.number}, the last, is left out"
            yield lines.row(number, values, before=before, problem=problem)


def _header(lines: _Lines) -> tuple[list[str], Iterator[list[str]]]:
    csv.field_size_limit(MOST_BYTES)  # 128 kB otherwise; the module has one limit for everybody
    # Bytes that are no UTF-8 become lone surrogates here, so that the row can be named that has them.
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in _short(lines))
    try:
        header = next(reader, None) or []
    except csv.Error as error:
        raise InputError(
            f"{lines.source.shown}:1: the columns' names are not CSV ({error}); save the file as CSV anew"
        ) from error
    if not header:
        raise InputError(f"{lines.source.shown}: the first line should name the columns, and is empty")
    if lines.ended:
        raise InputError(f"{lines.source.shown}:1: the columns' names have a quote that is never closed")
    check_names(header, lines.source)
    return header, reader


def _short(lines: _Lines) -> Iterator[bytes]:
    """The lines. Raises InputError at one that is too long: within quotes it is only a piece of a row."""
    for line in lines:
        if lines.problem:
            raise InputError(f"{lines.source.shown}:{lines.number}: {lines.problem}; is it CSV?")
        yield line


def _named(header: list[str], fields: list[str]) -> tuple[Mapping[str, str], str]:
    if len(fields) != len(header):
        return {}, f"{len(fields)} fields, and the header names {len(header)}"
    try:
        "".join(fields).encode("utf-8")
    except UnicodeEncodeError:
        return {}, "not UTF-8"
    return dict(zip(header, fields, strict=True)), ""


_READERS: dict[str, Callable[[_Lines], Iterator[Row]]] = {
    "jsonl": _read_jsonl,
    "csv": _read_csv,
    "text": _read_text,
}
