"""Documents from the command line: texts, files of rows, folders and stdin become one list."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import click

from ggrank.errors import InputError
from ggrank.rows.documents import document_of
from ggrank.rows.encodings import decode
from ggrank.rows.reading import read_rows

Format = Literal["auto", "text", "jsonl", "csv", "parquet"]

STDIN = "-"
_FOLDER_SUFFIXES = (".txt", ".md")


@dataclass(frozen=True)
class Document:
    """A text, its title before it, and the id that its row or its path in a folder gave it."""

    text: str
    id: str | float | None = None

    def name(self, index: int) -> str:
        """Its id, or its position in the input where it has none."""
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
    return list(_documents(sys.stdin.buffer, "stdin", file_format))


def _read_path(path: Path, file_format: Format) -> list[Document]:
    try:
        return _read_folder(path) if path.is_dir() else list(_documents(path, str(path), file_format))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error


def _documents(source: Path | BinaryIO, name: str, file_format: Format) -> Iterator[Document]:
    for row in read_rows(source, file_format):
        try:
            document = document_of(row)
        except InputError as error:
            raise InputError(f"{name}:{row.line}: {error}") from error
        yield Document(document.full_text, document.id)


def _read_folder(folder: Path) -> list[Document]:
    """Each .txt and .md file below ``folder`` is one document, its relative path the id."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _FOLDER_SUFFIXES)
    documents = [_read_whole(path, folder) for path in paths if path.is_file()]
    if not documents:
        raise InputError(f"{folder}: the folder holds no .txt or .md file")
    return documents


def _read_whole(path: Path, folder: Path) -> Document:
    try:
        text = decode(path.read_bytes())
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Document("\n".join(text.splitlines()), id=path.relative_to(folder).as_posix())
