"""`read_rows`: the rows of a file or a stream, one at a time, in flat memory.

A row that cannot be read is a `Row` with a problem, so that the rows after it are still read and numbered
right. What cannot be read at all is an InputError.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, cast

from ggrank.errors import InputError
from ggrank.rows.encodings import SAMPLE_BYTES, decode, encoding_of

FileFormat = Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text"]

MOST_CHARACTERS = 1 << 26
"""Of a line or a field: else a quote that is never closed would read the whole file into memory."""

SUFFIXES: Mapping[str, FileFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_UNREADABLE = (OSError, EOFError, zlib.error)  # the last two: a .gz that is cut off or damaged


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Attributes:
        values: by column.
        line: where it begins, from 1; in Parquet the row's number.
        problem: why it cannot be used; "" where it can.
        size: its length in characters or bytes, about.
        batch, index: the Arrow batch that a row of Parquet is in, and where.
    """

    values: Mapping[str, Any]
    line: int
    problem: str = ""
    size: int = 0
    batch: Any = None
    index: int = 0


def format_of(name: str) -> FileFormat | None:
    """The format that a file's suffix stands for; ``.gz`` is passed over.

    Example:
        >>> format_of("Pairs.CSV"), format_of("corpus.jsonl.gz"), format_of("notes.txt")
        ('csv', 'jsonl', None)
    """
    path = Path(name.lower().removesuffix(".gz"))
    return SUFFIXES.get(path.suffix)


def read_rows(
    source: str | Path | BinaryIO,
    file_format: FileFormat = "auto",
    *,
    columns: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of a file or a binary stream, which is read to its end and not closed.

    Args:
        source: where ``.gz`` ends its name, it is decompressed.
        file_format: "auto" goes by the name; without a known suffix, what begins with a brace is JSON lines,
            and all else is text: each line is a row with the column ``text``.
        columns: of Parquet, those that are read; None for all.

    Raises:
        InputError: the file cannot be read; the message begins with its name.

    Example:
        >>> stream = io.BytesIO(b'{"text": "cats"}\\nbroken')
        >>> [(row.line, row.values, row.problem[:8]) for row in read_rows(stream)]
        [(1, {'text': 'cats'}, ''), (2, {}, 'not JSON')]
    """
    name = str(source) if isinstance(source, (str, Path)) else "stdin"
    if file_format == "auto" and name != "stdin":
        file_format = format_of(name) or "auto"
    if file_format == "parquet":
        from ggrank.rows.parquet import read_parquet

        yield from read_parquet(name, source, columns=columns)
        return
    with _read_errors(name), _opened(source) as stream:
        sample = stream.peek()[:SAMPLE_BYTES]
        if file_format == "auto":
            begin = decode(sample).lstrip() if sample else ""
            file_format = "jsonl" if begin.startswith("{") else "text"
        with _text(stream, sample, file_format) as text:
            yield from _READERS[file_format](text)


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}: cannot be read ({reason})") from error
    except InputError as error:
        raise InputError(f"{name}:{error}" if str(error)[:1].isdigit() else f"{name}: {error}") from error


@contextmanager
def _opened(source: str | Path | BinaryIO) -> Iterator[io.BufferedReader]:
    """A stream whose ``peek`` gives the sample; of a pipe too, because the buffer below fills it."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        is_gzip = path.suffix.lower() == ".gz"
        with gzip.open(path) if is_gzip else path.open("rb", buffering=0) as opened:
            yield io.BufferedReader(cast(Any, opened), SAMPLE_BYTES)
        return
    stream = io.BufferedReader(cast(Any, source), SAMPLE_BYTES)
    try:
        yield stream
    finally:
        stream.detach()


@contextmanager
def _text(stream: io.BufferedReader, sample: bytes, file_format: FileFormat) -> Iterator[io.TextIOWrapper]:
    """The text of a stream. In UTF-8, bytes that are not become lone surrogates, which `_problem` finds."""
    encoding = encoding_of(sample)
    if file_format == "jsonl" and not encoding.startswith("utf"):
        encoding = "utf-8-sig"  # its standard allows no other; a line that is not is damaged
    errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
    newline = "\n" if file_format in ("jsonl", "json") else ""
    text = io.TextIOWrapper(stream, encoding, errors, newline=newline)
    try:
        yield text
    finally:
        text.detach()


def _lines(text: TextIO, *, ends: str = "\r\n") -> Iterator[str]:
    """The lines with their ends; "" for one that is too long."""
    while line := text.readline(MOST_CHARACTERS):
        if len(line) == MOST_CHARACTERS and line[-1] not in ends:
            while (rest := text.readline(1 << 20)) and rest[-1] not in ends:
                pass
            line = ""
        yield line


def _problem(line: str) -> str:
    """Why a line's text cannot be used; "" where it can."""
    if not line:
        return f"a line of more than {MOST_CHARACTERS >> 20} million characters"
    if line.isascii():
        return ""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"not UTF-8 (character {error.start + 1})"
    return ""


def _read_jsonl(text: TextIO) -> Iterator[Row]:
    for number, line in enumerate(_lines(text, ends="\n"), 1):
        if not line.isspace():
            values, problem = _parse_json(line)
            yield Row(values, number, problem, len(line))


# NaN and Infinity, which JSON lacks and Python writes all the same, are read as null.
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


def _parse_json(line: str) -> tuple[Mapping[str, Any], str]:
    """The object in a line of JSON and "", or an empty one and what is wrong."""
    if problem := _problem(line):
        return {}, problem
    try:
        value = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return _object(value)


def _object(value: Any) -> tuple[Mapping[str, Any], str]:
    return (value, "") if isinstance(value, dict) else ({}, f"not a JSON object: {type(value).__name__}")


def _read_json(text: TextIO) -> Iterator[Row]:
    """An array of objects, or one object; JSON lines too, which often have this suffix."""
    whole = text.read()
    try:
        value = _DECODER.decode(whole)
    except (ValueError, RecursionError):
        yield from _read_jsonl(io.StringIO(whole, newline="\n"))
        return
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        values, problem = _object(one)
        yield Row(values, number, problem)


def _read_text(text: TextIO) -> Iterator[Row]:
    for number, line in enumerate(_lines(text), 1):
        if not line.isspace():
            yield Row({"text": line.rstrip("\r\n")}, number, _problem(line), len(line))


def _read_csv(text: TextIO, *, delimiter: str = "") -> Iterator[Row]:
    """Rows under a header. Where no delimiter is given, the header has more of it than of others."""
    csv.field_size_limit(MOST_CHARACTERS)  # 128 kB otherwise; the module has one limit for all
    source = _CsvLines(_lines(text))
    header_line = next(source, "")
    # TSV has no quoting: a quotation mark in it is one.
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    delimiter = delimiter or max(",;\t", key=header_line.count)
    reader = csv.reader(source.again(header_line), delimiter=delimiter, quoting=quoting)
    header = _header(reader, source)
    while True:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{number}: not CSV ({error}); where the next row begins is not known"
            ) from error
        if fields is None:
            return
        if fields:
            problem = _csv_problem(header, fields)
            if source.ended:  # `csv` asks for a line after the last one only within quotes
                problem = f"a quote is never closed: all up to line {reader.line_num}, the last, is left out"
            values = {} if problem else dict(zip(header, fields, strict=True))
            yield Row(values, number, problem, sum(map(len, fields)))


class _CsvLines:
    """The lines of a CSV file; ``ended`` says whether a line was asked for after the last one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            self.ended = True
            raise
        if not line:
            raise InputError(f"{_problem(line)}; is it CSV?")
        return line

    def again(self, line: str) -> Iterator[str]:
        """``line``, then those that are left."""
        if line:
            yield line
        yield from self


def _header(reader: Any, source: _CsvLines) -> list[str]:
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise InputError(f"1: the names of the columns are not CSV ({error})") from error
    if header and source.ended:
        raise InputError("1: a quote in the names of the columns is never closed")
    check_names(header)
    return header


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where two columns have the same name."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"two columns are named {twice!r}; give each a name of its own")


def _csv_problem(header: Sequence[str], fields: Sequence[str]) -> str:
    if len(fields) != len(header):
        return f"{len(fields)} fields, and the header names {len(header)}"
    return next((problem for field in fields if field and (problem := _problem(field))), "")


_READERS: dict[str, Callable[[TextIO], Iterator[Row]]] = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": partial(_read_csv, delimiter="\t"),
    "text": _read_text,
}
