"""HTML as a reader sees it: its main text with headings, without navigation, footers and scripts."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from ggrank.errors import InputError
from ggrank.search.sections import Block, FileDocument, assembled

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

EXTRA = "pip install 'ggrank[files]'"

_BLOCKS = """
address article aside blockquote body caption dd details div dl dt fieldset figcaption figure form h1 h2 h3 h4
h5 h6 header html legend li main ol option p pre section summary table td th title tr ul
"""
_LEFT_OUT = "head nav footer script style template noscript svg button select iframe"
_ROLES_LEFT_OUT = "navigation contentinfo search banner"
_CLASSES_LEFT_OUT = frozenset(
    ("breadcrumb", "breadcrumbs", "footer", "menu", "nav", "navbar", "navfooter", "navheader", "sidebar")
)
_ANCHORS = "\u00b6 \u00a7 #"
"""The text of links to a heading, which documentation generators put into the heading."""

_BREAK = "\0"


def read_html(path: Path) -> Iterator[FileDocument]:
    """The document of a page. Raises what `html_blocks` raises."""
    title, blocks = html_blocks(path.read_bytes())
    yield assembled(blocks, title=title)


def html_blocks(data: bytes) -> tuple[str, list[Block]]:
    """The title and the blocks of a page; of a page that marks its main part, of that part.

    Raises:
        InputError: Beautiful Soup is not installed, or cannot read it.
    """
    try:
        from bs4 import BeautifulSoup
    except ImportError as error:
        raise InputError(f"HTML needs an extra: {EXTRA}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it wonders whether file names and XML were meant
            soup = BeautifulSoup(data, "html.parser")
        title = " ".join(soup.title.get_text().split()) if soup.title else ""
        return title, list(_blocks(soup.select_one("main, [role=main]") or soup))
    except (RecursionError, ValueError, AssertionError) as error:
        raise InputError(f"HTML that cannot be read: {error or type(error).__name__}") from error


def _blocks(root: BeautifulSoup | Tag) -> Iterator[Block]:
    """Text that stands together in one block element, with white space as a browser shows it."""
    for _, group in groupby(_strings(root), key=lambda one: id(one[0])):
        pairs = list(group)
        owner, text = pairs[0][0], "".join(string for _, string in pairs)
        level = int(owner.name[1]) if owner.name in ("h1", "h2", "h3", "h4", "h5", "h6") else 0
        if owner.name == "pre":
            text = text.replace(_BREAK, "\n")
        else:
            text = "\n".join(" ".join(line.split()) for line in text.split(_BREAK)).strip()
        if text:
            yield Block(text, level)


def _strings(root: BeautifulSoup | Tag) -> Iterator[tuple[BeautifulSoup | Tag, str]]:
    """Each string with the block element around it."""
    from bs4.element import CData, NavigableString, Tag

    blocks = frozenset(_BLOCKS.split())
    owners: dict[int, BeautifulSoup | Tag | None] = {id(root): root}
    for node in root.descendants:
        owner = owners[id(node.parent)]
        if isinstance(node, Tag):
            here = node if node.name in blocks else owner
            owners[id(node)] = None if owner is None or _is_left_out(node) else here
            if owner is not None and node.name in ("br", "hr"):
                yield owner, _BREAK
        # A comment, a script or a style is a string of another type.
        elif owner is not None and type(node) in (NavigableString, CData):
            yield owner, str(node)


def _is_left_out(tag: Tag) -> bool:
    return (
        tag.name in _LEFT_OUT.split()
        or (tag.name != "body" and not _CLASSES_LEFT_OUT.isdisjoint(tag.get("class") or ()))
        or tag.get("role") in _ROLES_LEFT_OUT.split()
        or tag.get("aria-hidden") == "true"
        or tag.has_attr("hidden")
        or (tag.name == "a" and tag.get_text().strip() in _ANCHORS.split())
    )
