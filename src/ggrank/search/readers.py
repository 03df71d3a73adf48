"""Files to documents: what format a file has, and the text, sections and metadata that it holds.

A reader raises `InputError` for a file that it cannot read, and nothing else: an index goes on without it.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.search.html import EXTRA, read_html
from ggrank.search.sections import Block, FileDocument, assembled, markdown

_TEXT = (
    *("txt", "text", "rst", "org", "tex", "adoc", "log"),
    *(
        "py",
        "pyi",
        "js",
        "mjs",
        "ts",
        "jsx",
        "tsx",
        "java",
        "kt",
        "scala",
        "go",
        "rs",
        "c",
        "h",
        "cc",
        "cpp",
        "hpp",
    ),
    *(
        "cs",
        "swift",
        "m",
        "rb",
        "php",
        "pl",
        "lua",
        "r",
        "jl",
        "hs",
        "ml",
        "ex",
        "exs",
        "erl",
        "clj",
        "el",
        "dart",
    ),
    *("sh", "bash", "zsh", "ps1", "sql", "css", "scss", "vue", "toml", "yaml", "yml", "ini", "cfg", "proto"),
)


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
    """Whether a file of this name is read where its folder is: most JSON files are settings, not documents."""
    return file_format(path) not in ("", ".json")


def read_documents(path: Path) -> Iterator[FileDocument]:
    """The documents of a file: one, or one for each row of a file of rows.

    Raises:
        InputError: it cannot be read, has no text, or its reader is not installed.
    """
    try:
        yield from _READERS.get(file_format(path)[1:], _read_text)(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(getattr(error, "strerror", None) or error)) from error


def decoded(data: bytes) -> str:
    """The text of a file in UTF-8, in UTF-16 with a byte order mark, or in the encoding that it looks like.

    Lines end in ``\\n``.

    Raises:
        InputError: a binary file.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    elif b"\0" in data:
        raise InputError("a binary file: it has zero bytes")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            from charset_normalizer import from_bytes

            found = from_bytes(data).best()
            if found is None:
                raise InputError("a binary file, or text in no known encoding: save it as UTF-8") from None
            text = str(found)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_text(path: Path) -> Iterator[FileDocument]:
    yield FileDocument(decoded(path.read_bytes()))


def _read_markdown(path: Path) -> Iterator[FileDocument]:
    yield markdown(decoded(path.read_bytes()))


def _read_html(path: Path) -> Iterator[FileDocument]:
    yield read_html(path.read_bytes())


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
        cells = json.loads(decoded(path.read_bytes()))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"not a Jupyter notebook ({error})") from error
    yield markdown(
        "\n\n".join(f"```\n{text}\n```" if kind == "code" else text for kind, text in sources if text)
    )


def _read_jsonl(path: Path) -> Iterator[FileDocument]:
    """A document for each line; one that cannot be read has only a problem."""
    with path.open("rb") as file:
        lines: Iterable[bytes] = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        is_first = True
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                values = json.loads(line.decode("utf-8-sig" if is_first else "utf-8"))
                yield _row(values, place=place, n_bytes=file.tell(), needs_text=True)
            except (ValueError, RecursionError) as error:  # InputError is a ValueError
                problem = str(error) if isinstance(error, InputError) else f"{place}: not JSON ({error})"
                if is_first:
                    raise InputError(problem) from error
                yield FileDocument("", place=place, n_bytes=file.tell(), problem=problem)
            is_first = False


def _read_json(path: Path) -> Iterator[FileDocument]:
    """A document for each object of a list; any other JSON is one document."""
    try:
        found = json.loads(decoded(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error
    is_table = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    for number, row in enumerate(found if is_table else [found], 1):
        yield _row(row if isinstance(row, dict) else {"text": json.dumps(row)}, place=f"row {number}")


def _read_csv(path: Path) -> Iterator[FileDocument]:
    """A document for each row; the first line names the columns."""
    lines = io.StringIO(decoded(path.read_bytes()), newline="")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    if delimiter == "," and ";" in (header := lines.readline()) and "," not in header:
        delimiter = ";"  # as spreadsheets write it where the comma is the decimal point
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=delimiter, restkey="more")
    try:
        for values in reader:
            yield _row(values, place=f"line {reader.line_num}")
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not CSV ({error})") from error


def _read_parquet(path: Path) -> Iterator[FileDocument]:
    """A document for each row, with its vector where ``ggrank embed`` made one; see docs/corpus.md."""
    from ggrank.jobs.parquet import find_vectors, read_rows, schema_of
    from ggrank.jobs.rows import Place
    from ggrank.jobs.sources import Source, with_facts
    from ggrank.jobs.steps import text_of

    source = with_facts(Source(str(path), "parquet"))
    schema = schema_of([source])
    origin = find_vectors(schema)
    columns = tuple(origin["text_columns"]) if origin else ()
    missing = [name for name in columns or ("text",) if name not in schema.names]
    if missing:
        raise InputError(f"no column {missing[0]!r}; its columns are: {', '.join(schema.names)}")
    vector = origin["column"] if origin else ""
    for row in read_rows(source, Place(), columns=tuple(schema.names)):
        place, n_bytes = f"row {row.line}", row.after.offset
        values = {name: value for name, value in row.values.items() if name != vector}
        try:
            if origin:  # the vector is that of these columns' text
                values = {
                    **{k: v for k, v in values.items() if k not in columns},
                    "text": text_of(values, columns),
                }
            found = _row(values, place=place, n_bytes=n_bytes, needs_text=True)
            yield replace(found, vector=row.values.get(vector), origin=origin)
        except InputError as error:
            yield FileDocument("", place=place, n_bytes=n_bytes, problem=f"{place}: {error}")


def _row(values: Any, *, place: str, n_bytes: int = 0, needs_text: bool = False) -> FileDocument:
    """A row as a document: its text, title and id, and the other fields as metadata.

    Without a text its fields are the text, a line for each, unless it ``needs_text``.

    Raises:
        InputError: not an object, no text, or an id that is a list or an object.
    """
    if not isinstance(values, dict) or (needs_text and not isinstance(values.get("text"), str)):
        raise InputError(f'{place}: no "text" string; expected an object like {{"id": "a1", "text": "..."}}')
    name, title = values.get("id", values.get("_id")), values.get("title")
    other = {key: value for key, value in values.items() if key not in ("id", "_id", "title", "text")}
    text = values.get("text")
    if not isinstance(text, str):
        text = "\n".join(
            f"{key}: {value}" for key, value in values.items() if value not in (None, "", [], {})
        )
        title = None
    return FileDocument(
        text,
        title="" if title is None else str(title),
        metadata={key: value for key, value in other.items() if value is not None},
        place=place,
        id=_id(name, place),
        n_bytes=n_bytes,
    )


def _id(value: object, place: str) -> str | int | None:
    """Whole numbers stay numbers, also those that another program wrote as 7.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or (isinstance(value, (str, int)) and not isinstance(value, bool)):
        return value
    if isinstance(value, (list, dict)):
        raise InputError(f'{place}: "id" is neither a string nor a number')
    return str(value)


_READERS: dict[str, Callable[[Path], Iterator[FileDocument]]] = {
    **dict.fromkeys(_TEXT, _read_text),
    **dict.fromkeys(("md", "markdown"), _read_markdown),
    **dict.fromkeys(("html", "htm", "xhtml"), _read_html),
    **dict.fromkeys(("jsonl", "jsonl.gz", "ndjson"), _read_jsonl),
    **dict.fromkeys(("csv", "tsv"), _read_csv),
    "json": _read_json,
    "pdf": _read_pdf,
    "ipynb": _read_notebook,
    "parquet": _read_parquet,
}
