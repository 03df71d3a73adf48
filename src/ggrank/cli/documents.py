"""Documents from the command line: texts, files, folders and stdin become one list."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

import click

from ggrank.errors import InputError
from ggrank.rows.documents import Document as Document
from ggrank.rows.documents import check_columns, document_of
from ggrank.rows.reading import format_of, read_errors, read_rows

Format = Literal["auto", "text", "jsonl", "csv", "parquet"]

STDIN = "-"


_PASSAGE = 200
"""Estimated tokens of a passage at most, so that every model reads all of it."""


def read_documents(texts: Sequence[str], files: Sequence[str], *, file_format: Format) -> list[Document]:
    """All documents, in the order: texts, then files; stdin where ``-`` stands or nothing is given.

    Raises InputError, with name and line number, where a line or a file cannot be read.
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
        documents += _documents(sys.stdin.buffer, file_format) if text == STDIN else [Document(text)]
    for file in files:
        is_stdin = file == STDIN
        documents += (
            _documents(sys.stdin.buffer, file_format) if is_stdin else _read_path(Path(file), file_format)
        )
    return documents


def name_of(document: Document, index: int) -> str:
    """A document's id, or its position in the input where it has none."""
    return str(index if document.id is None else document.id)


def _note_file_names(texts: Sequence[str]) -> None:
    """An argument is a text, even when a file has that name; say so, because it is rarely meant."""
    for text in texts:
        if text != STDIN and os.path.lexists(text):
            click.echo(f"Note: {text!r} is taken as a text; --file {text} reads the file.", err=True)


def _read_path(path: Path, file_format: Format) -> Iterable[Document]:
    if path.is_dir():
        return _read_folder(path)
    if (
        file_format == "auto"
        and format_of(path.name) is None
        and (passages := _read_passages(path, path.name))
    ):
        return passages
    return _documents(path, file_format)


def _read_passages(path: Path, name: str, *, with_plain_text: bool = False) -> list[Document]:
    """The passages of a file as `ggrank index` reads it; none of text without headings, whose lines are read.

    Tokens are estimated, because no model is loaded yet.
    """
    from ggrank.search.chunking import passages
    from ggrank.search.hits import has_lines
    from ggrank.search.readers import is_document
    from ggrank.search.readers import read_documents as read_file

    if not is_document(path):
        return []
    found = []
    with read_errors(str(path)):
        for document in read_file(path):
            if has_lines(name) and not document.sections and not with_plain_text:
                continue
            for one in passages(document, count_tokens=_estimated_tokens, most=_PASSAGE, overlap=0):
                text, place = document.text[one.start : one.end], one.place or f"line {one.line}"
                headed = f"{one.headings}\n\n{text}" if one.headings else text
                found.append(Document(headed, f"{name}, {place}" if document.id is None else document.id))
    return found


def _estimated_tokens(text: str) -> int:
    """A token is about four letters of English, or one Chinese character (three bytes)."""
    return len(text.encode("utf-8", "replace")) // 3


def _documents(source: Path | BinaryIO, file_format: Format) -> Iterator[Document]:
    for number, row in enumerate(read_rows(source, file_format)):
        try:
            if number == 0 and not row.problem:
                check_columns(row)
            document = document_of(row)
        except InputError as error:
            raise InputError(f"{row.file}:{row.line}: {error}") from error
        yield Document(document.full_text, document.id)


def _read_folder(folder: Path) -> list[Document]:
    """The files that `ggrank index` would read: rows one by one, other files in passages.

    What is left out is said in one line on stderr.
    """
    from ggrank.search.files import find_files

    found = find_files([str(folder.resolve())])
    documents: list[Document] = []
    for file in map(Path, found.files):
        name = file.relative_to(folder.resolve()).as_posix()
        try:
            if format_of(file.name):
                documents += _documents(file, "auto")
            else:
                documents += _read_passages(file, name, with_plain_text=True)
        except InputError as error:
            click.echo(f"Warning: left out: {error}", err=True)
    left_out = [f"{len(paths):,} {kind or 'without a suffix'}" for kind, paths in found.unsupported().items()]
    if left_out:
        click.echo(f"Note: left out: {', '.join(sorted(left_out))}", err=True)
    if not documents:
        raise InputError(f"{folder}: the folder holds no file that can be read")
    return documents
