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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
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
_USUAL_COLUMNS = {"text", "query"}
_UNREADABLE = (OSError, EOFError, zlib.error)  # the last two: a .gz that is cut off or damaged


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Attributes:
        values: by column.
        line: where it begins, from 1; in Parquet the row's number.
        problem: why it cannot be used; "" where it can.
        size: its length in characters or bytes, about.
        batch, index: the Arrow batch that a row of Parquet is in, and its position there.
        file, file_format: what it was read from; "stdin" for a stream.
    """

    values: Mapping[str, Any]
    line: int
    problem: str = ""
    size: int = 0
    batch: Any = None
    index: int = 0
    file: str = ""
    file_format: FileFormat = "auto"


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
        file_format: "auto" goes by the name. Without a known suffix, what begins with a brace is JSON lines,
            what begins with names of columns, ``text`` or ``query`` among them, is CSV or TSV, and all else
            is text: each line is a row with the column ``text``.
        columns: of Parquet, those that are read; None for all.

    Raises:
        InputError: the file cannot be read; the message begins with its name.

    Example:
        >>> stream = io.BytesIO(b'{"text": "cats"}\\nbroken')
        >>> [(row.line, row.values, row.problem[:8]) for row in read_rows(stream)]
        [(1, {'text': 'cats'}, ''), (2, {}, 'not JSON')]
    """
    is_file = isinstance(source, (str, Path))
    name = str(source) if is_file else "stdin"
    if file_format == "auto" and is_file:
        file_format = format_of(name) or "auto"
    if file_format == "parquet":
        from ggrank.rows.parquet import read_parquet

        yield from read_parquet(name, source, columns=columns)
        return
    with _read_errors(name), _opened(source) as stream:
        sample = stream.peek()[:SAMPLE_BYTES]
        if file_format == "auto":
            file_format = _guessed_format(decode(sample) if sample else "")
        with _text(stream, sample, file_format) as text:
            for values, line, problem, size in _parsed(text, file_format):
                yield Row(values, line, problem, size, file=name, file_format=file_format)


def _guessed_format(begin: str) -> FileFormat:
    if begin.lstrip().startswith("{"):
        return "jsonl"
    header = next((line for line in begin.splitlines() if line.strip()), "")
    delimiter = _delimiter(header)
    names = [name.strip().strip('"') for name in header.split(delimiter)]
    if len(names) == 1 or not _USUAL_COLUMNS & set(names):
        return "text"
    return "tsv" if delimiter == "\t" else "csv"


Parsed = tuple[Mapping[str, Any], int, str, int]
"""The first four fields of a `Row`."""


def _parsed(text: TextIO, file_format: FileFormat) -> Iterator[Parsed]:
    if file_format == "jsonl":
        return _read_jsonl(text)
    if file_format == "json":
        return _read_json(text)
    if file_format == "text":
        return _read_text(text)
    return _read_csv(text, delimiter="\t" if file_format == "tsv" else "")


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


def _read_text(text: TextIO) -> Iterator[Parsed]:
    for number, line in enumerate(_lines(text), 1):
        if not line.isspace():
            yield {"text": line.rstrip("\r\n")}, number, _problem(line), len(line)


# -- JSON

# NaN and Infinity, which JSON lacks and Python writes all the same, are read as null.
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


def _read_jsonl(text: TextIO) -> Iterator[Parsed]:
    for number, line in enumerate(_lines(text, ends="\n"), 1):
        if line.isspace():
            continue
        if problem := _problem(line):
            yield {}, number, problem, len(line)
            continue
        try:
            yield _object(_DECODER.decode(line), number, len(line))
        except (ValueError, RecursionError) as error:
            yield {}, number, f"not JSON ({error})", len(line)


def _read_json(text: TextIO) -> Iterator[Parsed]:
    """An array of objects, or one object; JSON lines too, which often have this suffix."""
    whole = text.read()
    try:
        value = _DECODER.decode(whole)
    except (ValueError, RecursionError):
        yield from _read_jsonl(io.StringIO(whole, newline="\n"))
        return
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        yield _object(one, number, 0)


def _object(value: Any, line: int, size: int) -> Parsed:
    if isinstance(value, dict):
        return value, line, "", size
    return {}, line, f"not a JSON object: {type(value).__name__}", size


# -- CSV


def _read_csv(text: TextIO, *, delimiter: str = "") -> Iterator[Parsed]:
    """Rows under a header. Where no delimiter is given, the header has more of it than of others."""
    csv.field_size_limit(MOST_CHARACTERS)  # 128 kB otherwise; the module has one limit for all
    is_past_end = False

    def lines() -> Iterator[str]:
        nonlocal is_past_end
        for line in _lines(text):
            if not line:
                raise InputError(f"{_problem(line)}; is it CSV?")
            yield line
        is_past_end = True  # `csv` asks for a line after the last one only within quotes

    rest = lines()
    n_blank, header_line = next(((n, line) for n, line in enumerate(rest) if line.strip()), (0, ""))
    if not header_line:
        return
    # TSV has no quoting: a quotation mark in it is one.
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(
        chain([header_line], rest), delimiter=delimiter or _delimiter(header_line), quoting=quoting
    )
    header = _next_fields(reader, 1 + n_blank) or []
    if is_past_end:
        raise InputError("1: a quote in the names of the columns is never closed")
    check_names(header)
    number = n_blank + reader.line_num + 1
    while (fields := _next_fields(reader, number)) is not None:
        last = n_blank + reader.line_num
        if fields:
            problem = _csv_problem(header, fields)
            if is_past_end:
                problem = f"a quote is never closed: all up to line {last}, the last, is left out"
            values = {} if problem else dict(zip(header, fields, strict=True))
            yield values, number, problem, sum(map(len, fields))
        number = last + 1


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _next_fields(reader: Any, line: int) -> list[str] | None:
    try:
        fields: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise InputError(f"{line}: not CSV ({error}); where the next row begins is not known") from error
    return fields


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where two columns have the same name."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"two columns are named {twice!r}; give each a name of its own")


def _csv_problem(header: Sequence[str], fields: Sequence[str]) -> str:
    if len(fields) != len(header):
        return f"{len(fields)} fields, and the header names {len(header)}"
    return next((problem for field in fields if field and (problem := _problem(field))), "")
