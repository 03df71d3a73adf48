"""Word, PowerPoint, Excel, LibreOffice and EPUB files to documents: they are zip files of XML."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import zip_longest
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from ggrank.errors import InputError
from ggrank.search.html import html_blocks
from ggrank.search.sections import Block, FileDocument, assembled

MOST_BYTES = 1 << 26
"""Of one XML file inside a zip file, 64 MB, at worst 1.5 GB of memory. A larger table should be CSV."""

Element = ElementTree.Element

_PROPERTIES = ("docProps/core.xml", "meta.xml", ".opf")
_DAMAGES = (
    zipfile.BadZipFile,
    zlib.error,
    ElementTree.ParseError,
    EOFError,
    LookupError,
    ValueError,
    RuntimeError,
)
_WITH_TEXT = frozenset(("t", "p", "h", "span", "a", "title"))
_LEFT_OUT = frozenset(("del", "Fallback", "tracked-changes", "annotation", "note-citation", "rPh"))
_NOT_SHOWN = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
"""Of a number's format: texts, colours and currencies. Hours above 24, ``[h]:mm``, have minutes too."""

_SPACES = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "s": " "}


class _Package(zipfile.ZipFile):
    """A zip file of which at most four times `MOST_BYTES` are read, however often its parts are named."""

    n_bytes = 0

    def data(self, name: str) -> bytes:
        size = self.getinfo(name).file_size
        self.n_bytes += size
        if size > MOST_BYTES or self.n_bytes > 4 * MOST_BYTES:
            raise InputError(f"{name} in it has {size >> 20} MB, the limit is {MOST_BYTES >> 20}")
        return self.read(name)

    def xml(self, name: str) -> Element:
        data = self.data(name)
        if b"<!ENTITY" in data.replace(b"\0", b""):  # also in UTF-16; these formats have no use for entities
            raise InputError(f"{name} in it defines entities, by which a few lines can become huge")
        return ElementTree.fromstring(data)

    def targets(self, folder: str, name: str) -> dict[str | None, str]:
        """The files that a Microsoft file refers to, by the ids of its relations."""
        links = self.xml(f"{folder}/_rels/{name}.rels")
        paths = {link.get("Id"): posixpath.join(folder, link.get("Target", "")) for link in links}
        return {id: posixpath.normpath(path).lstrip("/") for id, path in paths.items()}


@contextmanager
def _opened(path: Path) -> Iterator[_Package]:
    """Raises InputError where the file is damaged, or protected by a password."""
    try:
        with _Package(path) as package:
            yield package
    except _DAMAGES as error:
        if isinstance(error, InputError):
            raise
        found = str(error) or type(error).__name__
        raise InputError(f"a {path.suffix} file that cannot be read, or has a password: {found}") from error


def read_zip(path: Path) -> Iterator[FileDocument]:
    """The document of a .docx, .pptx, .odt or .epub file. Raises InputError where it cannot be read."""
    with _opened(path) as package:
        names = [name for name in package.namelist() if name.endswith(_PROPERTIES)]
        title = _first(package.xml(names[0]), "title") if names else ""
        document = assembled(_READERS[path.suffix.lower()](package), title=title)
    yield document


def _name(element: Element) -> str:
    """A tag without its namespace: those differ between the versions of a format, names do not."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _get(element: Element, name: str) -> str:
    return next((value for key, value in element.items() if key.rpartition("}")[2] == name), "")


def _relation(element: Element) -> str:
    """The id under which a Microsoft file refers to another: ``r:id``, beside an ``id`` of its own."""
    return next(value for key, value in element.items() if key.endswith("}id"))


def _all(element: Element, *names: str) -> Iterator[Element]:
    """The outermost elements of these names inside an element, in order."""
    for child in element:
        if _name(child) in names:
            yield child
        elif _name(child) not in _LEFT_OUT:
            yield from _all(child, *names)


def _first(element: Element, name: str) -> str:
    return next((_text(found) for found in _all(element, name)), "")


def _text(element: Element) -> str:
    """The text of a paragraph, or of a table's row with a bar between its cells."""
    if _name(element) in ("tr", "table-row"):
        cells = (" ".join(_text(cell).split()) for cell in _all(element, "tc", "table-cell"))
        return " | ".join(filter(None, cells))
    parts = [element.text or "" if _name(element) in _WITH_TEXT else ""]
    for child in element:
        if _name(child) not in _LEFT_OUT:
            parts.append(_SPACES.get(_name(child)) or _text(child))
        parts.append(child.tail or "" if _name(element) in _WITH_TEXT else "")
    return "".join(parts) + ("\n" if _name(element) == "p" else "")


def _docx(package: _Package) -> Iterator[Block]:
    levels = _style_levels(package)
    for found in _all(package.xml("word/document.xml"), "p", "tr"):
        style = next((_get(one, "val") for one in _all(found, "pStyle")), "") if _name(found) == "p" else ""
        yield Block(_text(found), levels.get(style, 0) if _text(found).strip() else 0)


def _style_levels(package: _Package) -> dict[str, int]:
    """The level of each heading style: its name is English in every language's Word, its id is not."""
    levels: dict[str, int] = {}
    for style in package.xml("word/styles.xml") if "word/styles.xml" in package.namelist() else ():
        name = next((_get(one, "val") for one in style if _name(one) == "name"), "")
        if match := re.fullmatch(r"heading ([1-9])", name, re.IGNORECASE):
            levels[_get(style, "styleId")] = int(match[1])
    return levels


def _pptx(package: _Package) -> Iterator[Block]:
    targets = package.targets("ppt", "presentation.xml")
    for number, slide in enumerate(_all(package.xml("ppt/presentation.xml"), "sldId"), 1):
        place = f"slide {number}"
        shapes = list(_all(package.xml(targets[_relation(slide)]), "sp", "tr"))
        titles = [one for one in shapes if any("itle" in _get(ph, "type") for ph in _all(one, "ph"))]
        yield Block(" ".join(map(_paragraphs, titles)), level=1, place=place)
        for shape in shapes:
            if shape not in titles:
                yield Block(_paragraphs(shape) if _name(shape) == "sp" else _text(shape), place=place)


def _paragraphs(element: Element) -> str:
    return "\n".join(_text(one).strip() for one in _all(element, "p"))


def _odt(package: _Package) -> Iterator[Block]:
    for found in _all(package.xml("content.xml"), "h", "p", "table-row"):
        yield Block(_text(found), int(_get(found, "outline-level") or 1) if _name(found) == "h" else 0)


def _epub(package: _Package) -> Iterator[Block]:
    main = next(_get(one, "full-path") for one in _all(package.xml("META-INF/container.xml"), "rootfile"))
    root = package.xml(main)
    files = {_get(item, "id"): unquote(_get(item, "href")) for item in _all(root, "item")}
    for chapter in _all(root, "itemref"):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(main), files[_get(chapter, "idref")]))
        yield from html_blocks(package.data(name))[1]


_READERS = {".docx": _docx, ".pptx": _pptx, ".odt": _odt, ".epub": _epub}


def sheet_rows(path: Path) -> Iterator[tuple[str, int, dict[str, object]]]:
    """Sheet, number and values by column of each row of an .xlsx file, but of the rows with column names.

    A row without column names above it has one value, ``text``. Raises InputError where it cannot be read.
    """
    with _opened(path) as package:
        found = list(_sheet_rows(package))
    yield from found


def _sheet_rows(package: _Package) -> Iterator[tuple[str, int, dict[str, object]]]:
    book, targets = package.xml("xl/workbook.xml"), package.targets("xl", "workbook.xml")
    names = package.namelist()
    strings, styles = (
        package.xml(name) if name in names else () for name in ("xl/sharedStrings.xml", "xl/styles.xml")
    )
    texts, dates = [_text(one) for one in strings], _date_styles(styles)
    is_1904 = any(_get(one, "date1904") in ("1", "true") for one in _all(book, "workbookPr"))
    epoch = datetime(1904, 1, 1) if is_1904 else datetime(1899, 12, 30)
    for sheet in _all(book, "sheet"):
        rows: list[tuple[int, dict[str, object]]] = []
        for row in _all(package.xml(targets[_relation(sheet)]), "row"):
            values = {
                cell.get("r", "").rstrip("0123456789") or str(i): _value(cell, texts, dates, epoch)
                for i, cell in enumerate(row, 1)
            }
            if filled := {column: value for column, value in values.items() if value not in ("", None)}:
                rows.append((int(row.get("r") or (rows[-1][0] if rows else 0) + 1), filled))
        for number, values in _named(rows):
            yield _get(sheet, "name"), number, values


def _named(rows: list[tuple[int, dict[str, object]]]) -> Iterator[tuple[int, dict[str, object]]]:
    """Rows with the names of their columns: the first row of several texts that covers the one below it."""
    names: dict[str, str] = {}
    for (number, values), (_, after) in zip_longest(rows, rows[1:], fillvalue=(0, {"": None})):
        texts = [value for value in values.values() if isinstance(value, str)]
        if names:
            empty = {"text": ""} if "text" in names.values() else {}
            yield number, empty | {names.get(column, column): value for column, value in values.items()}
        elif 1 < len(values) == len(texts) and after.keys() <= values.keys():
            names = {
                column: f"{text} ({column})" if texts.count(text) > 1 else text
                for column, text in zip(values, texts, strict=True)
            }
        else:
            yield number, {"text": " | ".join(map(str, values.values()))}


def _value(cell: Element, texts: list[str], dates: Container[int], epoch: datetime) -> object:
    """What a cell shows, but for the form of numbers; a date is one of ISO 8601."""
    kind = cell.get("t", "n")
    value = next((one.text or "" for one in cell if _name(one) == "v"), "")
    if kind == "s":
        return texts[int(value)].strip()
    if kind == "inlineStr":
        return _first(cell, "is").strip()
    if kind == "b":
        return value == "1"
    if kind != "n" or not value:
        return value.strip()
    number = float(value)
    if int(cell.get("s", 0)) in dates:
        moment = epoch + timedelta(seconds=round(86_400 * number))
        return f"{moment:%H:%M}" if 0 <= number < 1 else f"{moment:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    number = float(f"{number:.15g}")  # the digits that Excel keeps
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _date_styles(styles: Iterable[Element]) -> frozenset[int]:
    """The cell styles that make a number a date: those of the standard, and those that show days or hours."""
    formats = {str(number): "d" for number in (*range(14, 23), 45, 46, 47)}
    found: list[str] = []
    for part in styles:
        for one in part:
            if _name(one) == "numFmt":
                formats[_get(one, "numFmtId")] = _NOT_SHOWN.sub("", _get(one, "formatCode"))
            elif _name(part) == "cellXfs":
                found.append(formats.get(_get(one, "numFmtId"), ""))
    return frozenset(i for i, code in enumerate(found) if re.search("[dmyhs]", code, re.IGNORECASE))
