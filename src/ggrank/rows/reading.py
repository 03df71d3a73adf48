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


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Attributes:
        line: where it begins, from 1; in Parquet the row's number.
        problem: why it cannot be used; "" where it can.
        size: its length in characters or bytes, about.
        batch, index: the Arrow batch that a row of Parquet is in, and its position there.
        file: what it was read from; "stdin" for a stream.
    """

    values: Mapping[str, Any]
    line: int
    problem: str = ""
    size: int = 0
    batch: Any = None
    index: int = 0
    file: str = ""
    file_format: FileFormat = "auto"


Parsed = tuple[Mapping[str, Any], int, str, int]
"""The first four fields of a `Row`."""


def format_of(name: str) -> FileFormat | None:
    """The format that a file's suffix stands for, with or without ``.gz`` after it."""
    return SUFFIXES.get(Path(name.lower().removesuffix(".gz")).suffix)


def read_rows(
    source: str | Path | BinaryIO,
    file_format: FileFormat = "auto",
    *,
    columns: Sequence[str] | None = None,
) -> Iterator[Row]:
    """The rows of a file, decompressed where its name ends in .gz, or of a stream, which is not closed.

    Args:
        file_format: "auto" goes by the name. Without a known suffix, what begins with a brace is JSON lines,
            what begins with names of columns, ``text`` or ``query`` among them, is CSV or TSV, and all else
            is text: each line is a row with the column ``text``.
        columns: of Parquet, those that are read; None for all.

    Raises:
        InputError: the file cannot be read; the message begins with its name.
    """
    is_file = isinstance(source, (str, Path))
    name = str(source) if is_file else "stdin"
    if file_format == "auto" and is_file:
        file_format = format_of(name) or "auto"
    if file_format == "parquet":
        from ggrank.rows.parquet import read_parquet

        yield from read_parquet(name, source, columns=columns)
        return
    with read_errors(name), _opened(source) as stream:
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


@contextmanager
def read_errors(name: str) -> Iterator[None]:
    """Turns errors of reading into an InputError that begins with the file's name."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:  # the last two: a .gz that is cut off or damaged
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


def _parsed(text: TextIO, file_format: FileFormat) -> Iterator[Parsed]:
    if file_format == "json":
        yield from _read_json(text.read())
    elif file_format in ("csv", "tsv"):
        yield from _read_csv(text, is_tsv=file_format == "tsv")
    else:
        is_jsonl = file_format == "jsonl"
        for number, line in enumerate(_lines(text, ends="\n" if is_jsonl else "\r\n"), 1):
            problem = _problem(line)
            if is_jsonl and not problem and not line.isspace():
                yield _parse_object(line, number)
            elif not line.isspace():
                yield {} if is_jsonl else {"text": line.rstrip("\r\n")}, number, problem, len(line)


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
    if not line.isascii():
        try:
            line.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"not UTF-8 (character {error.start + 1})"
    return ""


# NaN and Infinity, which JSON lacks and Python writes all the same, are read as null.
_DECODER = json.JSONDecoder(parse_constant=lambda name: None)


def _parse_object(line: str, number: int) -> Parsed:
    try:
        return _object(_DECODER.decode(line), number, len(line))
    except (ValueError, RecursionError) as error:
        return {}, number, f"not JSON ({error})", len(line)


def _object(value: Any, line: int, size: int) -> Parsed:
    if isinstance(value, dict):
        return value, line, "", size
    return {}, line, f"not a JSON object: {type(value).__name__}", size


def _read_json(whole: str) -> Iterator[Parsed]:
    """An array of objects, or one object; JSON lines too, which often have this suffix."""
    try:
        value = _DECODER.decode(whole)
    except (ValueError, RecursionError):
        yield from _parsed(io.StringIO(whole, newline="\n"), "jsonl")
        return
    for number, one in enumerate(value if isinstance(value, list) else [value], 1):
        yield _object(one, number, 0)


def _read_csv(text: TextIO, *, is_tsv: bool) -> Iterator[Parsed]:
    """Rows under a header, whose delimiter is what it has most of. TSV has no quoting."""
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
    quoting: Any = csv.QUOTE_NONE if is_tsv else csv.QUOTE_MINIMAL
    delimiter = "\t" if is_tsv else _delimiter(header_line)
    reader = csv.reader(chain(filter(None, [header_line]), rest), delimiter=delimiter, quoting=quoting)
    header: list[str] = []
    line = n_blank + 1
    try:
        for fields in reader:
            first, line = line, n_blank + reader.line_num + 1
            if header and fields:
                problem = _csv_problem(header, fields)
                if is_past_end:
                    problem = f"a quote is never closed: all up to line {line - 1}, the last, is left out"
                values = {} if problem else dict(zip(header, fields, strict=True))
                yield values, first, problem, sum(map(len, fields))
            elif not header:
                header = fields
                check_names(header)
                if is_past_end:
                    raise InputError("1: a quote in the names of the columns is never closed")
    except csv.Error as error:
        raise InputError(f"{line}: not CSV ({error}); where the next row begins is not known") from error


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _csv_problem(header: Sequence[str], fields: Sequence[str]) -> str:
    if len(fields) != len(header):
        return f"{len(fields)} fields, and the header names {len(header)}"
    return next((problem for field in fields if field and (problem := _problem(field))), "")


def check_names(names: Sequence[str]) -> None:
    """Raises InputError where two columns have the same name."""
    twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise InputError(f"two columns are named {twice!r}; give each a name of its own")
