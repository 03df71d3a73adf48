"""Files of rows, read one at a time from any place on: JSON lines, CSV, plain lines, Parquet.

Knows how rows are written and where each begins; not what is done with them. What cannot be read is a row
with a problem, so that whoever counts rows counts it too.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import IO, Any, NamedTuple, cast

from ggrank.corpus.sources import Source
from ggrank.errors import InputError

MOST_BYTES = 1 << 26
"""Of a line or a field, 64 MB: a quote that is never closed would else read the whole file into memory."""


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
                try:
                    yield from self._rows(source, start)
                except (OSError, EOFError) as error:
                    reason = getattr(error, "strerror", None) or error
                    raise InputError(f"{source.shown}: cannot be read ({reason})") from error

    def _rows(self, source: Source, start: Place) -> Iterator[Row]:
        if source.kind == "parquet":
            from ggrank.corpus.parquet import read_rows

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


class _Lines:
    """The physical lines of a source, counted. ``skip`` goes on at the place where reading should begin."""

    def __init__(self, file: IO[bytes], source: Source, start: Place) -> None:
        self.source, self.start = source, start
        self._file = file
        self.number = self.offset = 0
        self.ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(MOST_BYTES)
        if not line:
            self.ended = True
            raise StopIteration
        if len(line) == MOST_BYTES:
            raise InputError(
                f"{self.source.shown}:{self.number + 1}: a line of more than {MOST_BYTES >> 20} MB"
            )
        if self.number == 0 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise InputError(f"{self.source.shown}: not UTF-8 (it looks like UTF-16); save the file as UTF-8")
        self.number += 1
        self.offset += len(line)
        return line.removeprefix(b"\xef\xbb\xbf") if self.number == 1 else line

    def skip(self) -> None:
        """To where the start is; a file is not read up to there."""
        if self.start.row > self.number and not self.source.is_compressed:
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
        if line.strip():
            values, problem = _parsed(line)
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
        if not line.strip():
            continue
        try:
            text, problem = line.decode("utf-8").rstrip("\r\n"), ""
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
    reader = csv.reader(line.decode("utf-8", "surrogateescape") for line in lines)
    header = next(reader, None) or []
    if not header:
        raise InputError(f"{lines.source.shown}: the first line should name the columns, and is empty")
    if lines.ended:
        raise InputError(f"{lines.source.shown}:1: the columns' names have a quote that is never closed")
    if len(set(header)) < len(header):
        twice = next(first for first, second in pairwise(sorted(header)) if first == second)
        raise InputError(
            f"{lines.source.shown}: two columns are named {twice!r}; give each a name of its own"
        )
    return header, reader


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
