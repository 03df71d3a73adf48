"""Files to texts: what kind of file it is, and where in it each part of its text stands.

Knows formats and encodings; not passages, models or the index. A reader raises `InputError` for a file that
it cannot read, and nothing else: the index goes on without it.
"""

from __future__ import annotations

import gzip
import io
import logging
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggrank.errors import InputError
from ggrank.rows.documents import read_record

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

EXTRA = "pip install 'ggrank[files]'"

# A block of code, whose lines are no headings; or a heading and its text.
_CODE_OR_HEADING = re.compile(
    r"^ {0,3}(?:(`{3}|~{3}).*?(?:^ {0,3}\1|\Z)|#{1,6}[^\S\n]+(\S[^\n]*))", re.MULTILINE | re.DOTALL
)
_BLOCKS = frozenset(
    (
        *("address", "article", "aside", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt"),
        *("fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head"),
        *("header", "html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary"),
        *("table", "td", "th", "title", "tr", "ul"),
    )
)
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")


@dataclass(frozen=True)
class Part:
    """A stretch of a file's text.

    Attributes:
        text: as it is read; of Markdown and text as it stands in the file.
        start: characters of the file's text before it.
        place: the heading, page or line where it stands; "" where only its lines say.
        id: of a JSONL record.
        n_bytes: of the file, read up to its end; 0 where it was read as a whole.
        problem: why a record could not be read.
        vector: of the whole text, where the file has one (Parquet of ``ggrank job embed``).
        origin: what the vector was made with.
    """

    text: str
    start: int = 0
    place: str = ""
    id: str | float | None = None
    n_bytes: int = 0
    problem: str = ""
    vector: Sequence[float] | None = None
    origin: Mapping[str, Any] | None = None


def read_parts(path: Path) -> Iterator[Part]:
    """The parts of a file's text, in order. A file of an unknown suffix is read as text.

    Raises:
        InputError: it cannot be read, is no text, or its reader is not installed.
    """
    try:
        yield from _READERS.get(kind_of(path), _read_text)(path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(str(getattr(error, "strerror", None) or error)) from error


def kind_of(path: Path) -> str:
    """The suffix that decides the reader, "" for another one.

    Example:
        >>> kind_of(Path("Corpus.JSONL.gz")), kind_of(Path("notes.md")), kind_of(Path("a.out"))
        ('.jsonl.gz', '.md', '')
    """
    name = path.name.lower()
    return next((suffix for suffix in _READERS if name.endswith(suffix)), "")


def _read_text(path: Path) -> Iterator[Part]:
    yield Part(_decoded(path.read_bytes()))


def _decoded(data: bytes) -> str:
    """UTF-8, or UTF-16 where the file says so; lines end in one ``\\n``."""
    is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = data.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        expected = "UTF-16" if is_utf16 else "UTF-8"
        raise InputError(f"not {expected} (byte {error.start + 1}); save it as UTF-8") from error
    if "\0" in text:
        raise InputError("a binary file: it has zero bytes")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_markdown(path: Path) -> Iterator[Part]:
    """A part for each heading and what follows it."""
    text = _decoded(path.read_bytes())
    headings = [match for match in _CODE_OR_HEADING.finditer(text) if match[2]]
    starts = [0, *(heading.start() for heading in headings), len(text)]
    places = ["", *(heading[2].rstrip().rstrip("#").rstrip() for heading in headings)]
    for place, (start, end) in zip(places, pairwise(starts), strict=True):
        yield Part(text[start:end], start, place)


def _read_html(path: Path) -> Iterator[Part]:
    """A part for each heading and what follows it, without scripts and styles; first the title."""
    try:
        from bs4 import BeautifulSoup
    except ImportError as error:
        raise InputError(f"HTML needs an extra: {EXTRA}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wonders whether file names and XML were meant
            sections = _sections(BeautifulSoup(path.read_bytes(), "html.parser"))
    except (RecursionError, ValueError, AssertionError) as error:
        raise InputError(f"HTML that cannot be read: {error or type(error).__name__}") from error
    start = 0
    for section in sections:
        text = "\n\n".join(filter(None, [section.heading, *section.paragraphs]))
        yield Part(text, start, section.heading)
        start += len(text)


@dataclass
class _Section:
    heading: str
    paragraphs: list[str] = field(default_factory=list)


def _sections(soup: BeautifulSoup) -> list[_Section]:
    """What a browser would show, a section for each heading; the first one's heading is the title."""
    sections = [_Section(_joined(soup.title.strings) if soup.title else "")]
    last = None
    for block, strings in _blocks(soup):
        text = _joined(strings)
        if block.name in _HEADINGS and block is last:  # a line break inside a heading
            sections[-1].heading += f" {text}"
        elif block.name in _HEADINGS:
            sections.append(_Section(text))
        elif block.name not in ("head", "title"):
            sections[-1].paragraphs.append(text)
        last = block
    return sections


def _blocks(soup: BeautifulSoup) -> Iterator[tuple[Tag, list[str]]]:
    """Strings in a row that stand in the same block, and that block."""
    from bs4.element import CData, NavigableString, Tag

    block: Tag = soup
    strings: list[str] = []
    nearest = {id(soup): block}
    for node in soup.descendants:
        home = nearest[id(node.parent)]
        if isinstance(node, Tag):
            nearest[id(node)] = node if node.name in _BLOCKS else home
        # A comment, a script or a style is a string of another type.
        elif type(node) in (NavigableString, CData) and home is block:
            strings.append(str(node))
        elif type(node) in (NavigableString, CData):
            yield block, strings
            block, strings = home, [str(node)]
        if isinstance(node, Tag) and node.name in ("br", "hr"):
            yield block, strings
            strings = []
    yield block, strings


def _joined(strings: Iterable[str]) -> str:
    """White space as HTML means it: one space."""
    return " ".join("".join(strings).split())


def _read_pdf(path: Path) -> Iterator[Part]:
    """A part for each page."""
    try:
        import pypdf
    except ImportError as error:
        raise InputError(f"PDF needs an extra: {EXTRA}") from error
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it tells of every flaw that it mends
    start = 0
    try:
        reader = pypdf.PdfReader(io.BytesIO(path.read_bytes()))
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError("a PDF with a password")
        texts = [page.extract_text() for page in reader.pages]
    except InputError:
        raise
    except Exception as error:  # a damaged file makes pypdf fail in any of its corners
        raise InputError(f"a PDF that cannot be read: {error or type(error).__name__}") from error
    if not any(map(str.strip, texts)):
        raise InputError("a PDF without text: scanned pages need OCR first")
    for number, text in enumerate(texts, 1):
        yield Part(text, start, f"page {number}")
        start += len(text)


def _read_jsonl(path: Path) -> Iterator[Part]:
    """A part for each record, read line by line; a line that is none has only a problem."""
    with path.open("rb") as file:
        lines: Iterable[bytes] = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file
        is_first = True
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place, n_bytes = f"line {number}", file.tell()
            try:
                record = read_record(line.decode("utf-8-sig" if is_first else "utf-8"), place=place)
                yield Part(record.text, place=place, id=record.id, n_bytes=n_bytes)
            except (InputError, UnicodeDecodeError) as error:
                if is_first:
                    raise InputError(str(error)) from error
                yield Part("", place=place, n_bytes=n_bytes, problem=str(error))
            is_first = False


def _read_parquet(path: Path) -> Iterator[Part]:
    """A part for each row, with its vector where ``ggrank job embed`` made one; see docs/jobs.md."""
    from ggrank.rows.documents import document_of
    from ggrank.rows.parquet import find_vectors, schema_of
    from ggrank.rows.reading import read_rows

    schema = schema_of(path)
    origin = find_vectors(schema)
    columns = tuple(origin["text_columns"]) if origin else ()
    missing = [name for name in columns or ("text",) if name not in schema.names]
    if missing:
        raise InputError(f"no column {missing[0]!r}; its columns are: {', '.join(schema.names)}")
    vector = origin["column"] if origin else ""
    n_bytes = path.stat().st_size
    for row in read_rows(path, "parquet", columns=[*(columns or ("text", "title")), "id", "_id", vector]):
        place = f"row {row.line}"
        try:
            document = document_of(row, columns)
        except InputError as error:
            yield Part("", place=place, n_bytes=n_bytes, problem=f"{place}: {error}")
            continue
        yield Part(
            document.full_text,
            place=place,
            id=document.id,
            n_bytes=n_bytes,
            vector=row.values.get(vector),
            origin=origin,
        )


_READERS: dict[str, Callable[[Path], Iterator[Part]]] = {
    ".txt": _read_text,
    ".text": _read_text,
    ".rst": _read_text,
    ".md": _read_markdown,
    ".markdown": _read_markdown,
    ".html": _read_html,
    ".htm": _read_html,
    ".xhtml": _read_html,
    ".pdf": _read_pdf,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".parquet": _read_parquet,
}
