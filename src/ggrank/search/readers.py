"""Files to documents: what format a file has, and the text, sections and metadata that it holds.

A reader raises `InputError` for a file that it cannot read, and nothing else: an index goes on without it.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.rows.documents import check_columns, document_of
from ggrank.rows.encodings import decode
from ggrank.rows.reading import SUFFIXES, Row, format_of, read_rows
from ggrank.search.html import EXTRA, read_html
from ggrank.search.mail import read_mail
from ggrank.search.office import read_zip, sheet_rows
from ggrank.search.rtf import read_rtf
from ggrank.search.sections import HEADINGS, Block, FileDocument, assembled, markdown, marked_text

_TEXT = """
txt text py pyi js mjs ts jsx tsx vue java kt scala go rs c h cc cpp hpp cs swift m rb php pl
lua r jl hs ml ex exs erl clj el dart sh bash zsh ps1 sql scss proto toml yaml yml ini cfg
"""


def file_format(path: Path) -> str:
    """The suffix that decides the reader, "" where none does; such a file is read as plain text.

    Example:
        >>> file_format(Path("Corpus.JSONL.gz")), file_format(Path("notes.md")), file_format(Path("a.out"))
        ('.jsonl.gz', '.md', '')
    """
    suffixes = path.name.lower().split(".")[1:]
    return next(
        (f".{suffix}" for suffix in (".".join(suffixes[-2:]), *suffixes[-1:]) if suffix in _READERS), ""
    )


def is_document(path: Path) -> bool:
    """Whether a file of this name is read with its folder. Most JSON files hold settings: they are not."""
    return file_format(path) not in ("", ".json", ".json.gz")


def read_documents(path: Path) -> Iterator[FileDocument]:
    """The documents of a file: one, or one for each row of a file of rows.

    Raises:
        InputError: it cannot be read, has no text, or its reader is not installed.
    """
    try:
        yield from _READERS.get(file_format(path)[1:], _read_text)(path)
    except OSError as error:
        raise InputError(error.strerror or str(error)) from error
    except InputError as error:
        raise InputError(str(error).removeprefix(f"{path}: ")) from error


def _text(path: Path) -> str:
    text = decode(path.read_bytes())
    if "\0" in text:
        raise InputError("a binary file: it has zero bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_text(path: Path) -> Iterator[FileDocument]:
    yield FileDocument(_text(path))


def _read_markdown(path: Path) -> Iterator[FileDocument]:
    yield markdown(_text(path))


def _read_marked(path: Path) -> Iterator[FileDocument]:
    yield marked_text(_text(path), path.suffix[1:].lower())


def _read_pdf(path: Path) -> Iterator[FileDocument]:
    """A section for each page."""
    try:
        import pypdf
    except ImportError as error:
        raise InputError(f"PDF needs an extra: {EXTRA}") from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it reports every flaw that it mends
    try:
        reader = pypdf.PdfReader(io.BytesIO(path.read_bytes()))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("a PDF with a password")
        pages = [Block(page.extract_text(), place=f"page {n}") for n, page in enumerate(reader.pages, 1)]
        title = str((reader.metadata and reader.metadata.title) or "").strip()
    except InputError:
        raise
    except Exception as error:  # a damaged file makes pypdf fail anywhere
        raise InputError(f"a PDF that cannot be read: {error or type(error).__name__}") from error
    document = assembled(pages, title=title)
    if not document.text:
        raise InputError("a PDF without text: scanned pages need OCR first")
    yield document


def _read_notebook(path: Path) -> Iterator[FileDocument]:
    """Jupyter's cells, one after the other: Markdown with its headings, code as code."""
    try:
        cells = json.loads(_text(path))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not a Jupyter notebook ({error})") from error
    yield markdown(
        "\n\n".join(f"```\n{text}\n```" if kind == "code" else text for kind, text in sources if text)
    )


def _read_rows(path: Path) -> Iterator[FileDocument]:
    """A document for each row, with its vector where ``ggrank job embed`` made one; see docs/jobs.md."""
    file_format = format_of(path.name)
    unit = "row" if file_format in ("parquet", "json") else "line"
    origin = _origin(path) if file_format == "parquet" else None
    columns = tuple(origin["text_columns"]) if origin else ()
    n_bytes = 0
    for number, row in enumerate(read_rows(path)):
        n_bytes += row.size
        place, values = f"{unit} {row.line}", dict(row.values)
        vector = values.pop(origin["column"], None) if origin else None
        if number == 0 and not row.problem:
            check_columns(row, columns)
        try:
            found = document_of(replace(row, values=values), columns)
        except InputError as error:
            problem = f"{place}: {error}"
            yield FileDocument("", place=place, n_bytes=n_bytes, problem=problem)
            continue
        yield FileDocument(
            found.text,
            title=found.title or "",
            metadata=found.metadata or {},
            place=place,
            id=found.id,
            n_bytes=n_bytes,
            vector=vector,
            origin=origin,
        )


def _read_sheets(path: Path) -> Iterator[FileDocument]:
    """A document for each row of each sheet, by the rule for rows of CSV."""
    for sheet, number, values in sheet_rows(path):
        texts = {name: str(values[name]) for name in ("title", "text") if name in values}
        found = document_of(Row(values | texts, number, file_format="csv"))
        yield FileDocument(
            found.text,
            title=found.title or sheet,
            metadata=found.metadata or {},
            place=f"{sheet}, row {number}",
            id=found.id,
        )


def _origin(path: Path) -> dict[str, Any] | None:
    from ggrank.rows.parquet import find_vectors, schema_of

    return find_vectors(schema_of(path))


_ROWS = (*(suffix[1:] for suffix in SUFFIXES), *(f"{suffix[1:]}.gz" for suffix in SUFFIXES))

_READERS: dict[str, Callable[[Path], Iterator[FileDocument]]] = {
    **dict.fromkeys(_TEXT.split(), _read_text),
    **dict.fromkeys(("md", "markdown"), _read_markdown),
    **dict.fromkeys(HEADINGS, _read_marked),
    **dict.fromkeys(("html", "htm", "xhtml"), read_html),
    **dict.fromkeys(("docx", "pptx", "odt", "epub"), read_zip),
    **dict.fromkeys(_ROWS, _read_rows),
    "xlsx": _read_sheets,
    "eml": read_mail,
    "rtf": read_rtf,
    "pdf": _read_pdf,
    "ipynb": _read_notebook,
}
