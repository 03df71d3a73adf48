"""Documents from the command line: texts, files, JSONL, folders and stdin become one list.

Knows bytes, lines and records; no models, and no terminal beyond "is stdin one".
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from ggrank.errors import InputError
from ggrank.rows.documents import read_record

Format = Literal["auto", "text", "jsonl"]

STDIN = "-"
_JSONL_SUFFIXES = (".jsonl", ".ndjson")
_FOLDER_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Document:
    """A text, and the id that its JSONL record or its place in a folder gave it."""

    text: str
    id: str | int | None = None

    def name(self, index: int) -> str:
        """Its id, or its place in the input where it has none."""
        return str(index if self.id is None else self.id)


def read_documents(texts: Sequence[str], files: Sequence[str], *, file_format: Format) -> list[Document]:
    """All documents, in the order: texts, then files; stdin where ``-`` stands or nothing is given.

    Raises:
        click.UsageError: there is nothing to read: no text, no file, and stdin is a terminal.
        InputError: a line or a file cannot be read; the message has its name and line number.
    """
    if not texts and not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError(
                "No documents. Give texts, --file FILE, or pipe them in: one document a line, or JSONL."
            )
        files = [STDIN]
    _note_file_names(texts)
    documents: list[Document] = []
    for text in texts:
        documents += _read_stdin(file_format) if text == STDIN else [Document(text)]
    for file in files:
        documents += _read_stdin(file_format) if file == STDIN else _read_path(Path(file), file_format)
    return documents


def _note_file_names(texts: Sequence[str]) -> None:
    """An argument is a text, even when a file has that name; say so, because it is rarely meant."""
    for text in texts:
        if text != STDIN and os.path.lexists(text):
            click.echo(f"Note: {text!r} is taken as a text; --file {text} reads the file.", err=True)


def _read_stdin(file_format: Format) -> list[Document]:
    return read_lines(sys.stdin.buffer, name="stdin", file_format=file_format)


def _read_path(path: Path, file_format: Format) -> list[Document]:
    try:
        if path.is_dir():
            return _read_folder(path)
        if file_format == "auto":
            file_format = "jsonl" if path.suffix.lower() in _JSONL_SUFFIXES else "text"
        with path.open("rb") as lines:
            return read_lines(lines, name=str(path), file_format=file_format)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _read_folder(folder: Path) -> list[Document]:
    """Each .txt and .md file below ``folder`` is one document, its relative path the id."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _FOLDER_SUFFIXES)
    documents = [_read_whole(path, folder) for path in paths if path.is_file()]
    if not documents:
        raise InputError(f"{folder}: the folder holds no .txt or .md file")
    return documents


def _read_whole(path: Path, folder: Path) -> Document:
    lines = path.read_bytes().splitlines()
    text = "\n".join(_decode(line, name=str(path), number=number) for number, line in enumerate(lines, 1))
    return Document(text, id=path.relative_to(folder).as_posix())


def read_lines(lines: Iterable[bytes], *, name: str, file_format: Format) -> list[Document]:
    """One document a line; blank lines do not count.

    Args:
        lines: bytes, UTF-8, with or without line ends.
        name: of the file, for messages.
        file_format: "text", "jsonl", or "auto": JSONL when the first line is an object with a text.

    Raises:
        InputError: a line is not UTF-8, or not a record. The message begins with ``name:number:``.

    Example:
        >>> read_lines([b'{"id": 7, "text": "cats"}'], name="stdin", file_format="auto")
        [Document(text='cats', id=7)]
    """
    numbered = list(_decoded(lines, name=name))
    if file_format == "auto" and numbered:
        file_format = "jsonl" if _looks_like_record(numbered[0][1]) else "text"
    if file_format != "jsonl":
        return [Document(text) for _, text in numbered]
    return [_read_record(text, place=f"{name}:{number}") for number, text in numbered]


def _decoded(lines: Iterable[bytes], *, name: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(lines, 1):
        text = _decode(line, name=name, number=number).rstrip("\r\n")
        if text.strip():
            yield number, text


def _decode(line: bytes, *, name: str, number: int) -> str:
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        hint = "it looks like UTF-16" if line[:2] in (b"\xff\xfe", b"\xfe\xff") else f"byte {error.start + 1}"
        raise InputError(f"{name}:{number}: not UTF-8 ({hint}); save the file as UTF-8") from error


def _looks_like_record(line: str) -> bool:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get("text"), str)


def _read_record(line: str, *, place: str) -> Document:
    record = read_record(line, place=place)
    return Document(record.text, id=record.id)
