"""Word, PowerPoint, LibreOffice and EPUB files to documents: they are zip files of XML."""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from ggrank.errors import InputError
from ggrank.search.html import html_blocks
from ggrank.search.sections import Block, FileDocument, assembled

MOST_BYTES = 1 << 28
"""Of one file inside a zip file, 256 MB; more is an attack or a mistake."""

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
_LEFT_OUT = frozenset(("del", "Fallback", "tracked-changes", "annotation", "note-citation"))
_SPACES = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "s": " "}


def read_zip(path: Path) -> Iterator[FileDocument]:
    """The document of a .docx, .pptx, .odt or .epub file.

    Raises:
        InputError: it is damaged, or protected by a password.
    """
    try:
        with zipfile.ZipFile(path) as package:
            names = [name for name in package.namelist() if name.endswith(_PROPERTIES)]
            title = _first(_xml(package, names[0]), "title") if names else ""
            yield assembled(_READERS[path.suffix.lower()](package), title=title)
    except _DAMAGES as error:
        if isinstance(error, InputError):
            raise
        found = str(error) or type(error).__name__
        raise InputError(f"a {path.suffix} file that cannot be read, or has a password: {found}") from error


def _data(package: zipfile.ZipFile, name: str) -> bytes:
    if package.getinfo(name).file_size > MOST_BYTES:
        raise InputError(f"{name} in it has more than {MOST_BYTES >> 20} MB")
    return package.read(name)


def _xml(package: zipfile.ZipFile, name: str) -> Element:
    return ElementTree.fromstring(_data(package, name))


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


def _docx(package: zipfile.ZipFile) -> Iterator[Block]:
    levels = _style_levels(package)
    for found in _all(_xml(package, "word/document.xml"), "p", "tr"):
        style = next((_get(one, "val") for one in _all(found, "pStyle")), "") if _name(found) == "p" else ""
        yield Block(_text(found), levels.get(style, 0) if _text(found).strip() else 0)


def _style_levels(package: zipfile.ZipFile) -> dict[str, int]:
    """The level of each heading style: its name is English in every language's Word, its id is not."""
    levels: dict[str, int] = {}
    for style in _xml(package, "word/styles.xml") if "word/styles.xml" in package.namelist() else ():
        name = next((_get(one, "val") for one in style if _name(one) == "name"), "")
        if match := re.fullmatch(r"heading ([1-9])", name, re.IGNORECASE):
            levels[_get(style, "styleId")] = int(match[1])
    return levels


def _pptx(package: zipfile.ZipFile) -> Iterator[Block]:
    main = "ppt/presentation.xml"
    links = _xml(package, "ppt/_rels/presentation.xml.rels")
    targets = {link.get("Id"): posixpath.normpath(f"ppt/{link.get('Target')}") for link in links}
    for number, slide in enumerate(_all(_xml(package, main), "sldId"), 1):
        place = f"slide {number}"
        shapes = list(_all(_xml(package, targets[_relation(slide)]), "sp", "tr"))
        titles = [one for one in shapes if any("itle" in _get(ph, "type") for ph in _all(one, "ph"))]
        yield Block(" ".join(map(_paragraphs, titles)), level=1, place=place)
        for shape in shapes:
            if shape not in titles:
                yield Block(_paragraphs(shape) if _name(shape) == "sp" else _text(shape), place=place)


def _paragraphs(element: Element) -> str:
    return "\n".join(_text(one).strip() for one in _all(element, "p"))


def _odt(package: zipfile.ZipFile) -> Iterator[Block]:
    for found in _all(_xml(package, "content.xml"), "h", "p", "table-row"):
        yield Block(_text(found), int(_get(found, "outline-level") or 1) if _name(found) == "h" else 0)


def _epub(package: zipfile.ZipFile) -> Iterator[Block]:
    main = next(_get(one, "full-path") for one in _all(_xml(package, "META-INF/container.xml"), "rootfile"))
    root = _xml(package, main)
    files = {_get(item, "id"): unquote(_get(item, "href")) for item in _all(root, "item")}
    for chapter in _all(root, "itemref"):
        name = posixpath.normpath(posixpath.join(posixpath.dirname(main), files[_get(chapter, "idref")]))
        yield from html_blocks(_data(package, name))[1]


_READERS = {".docx": _docx, ".pptx": _pptx, ".odt": _odt, ".epub": _epub}
