"""What a search gives: `Hit`, the places of its text, and how it got its rank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggrank.search.lexical import best_window, find_phrases, find_words

_HEADING_MARK = re.compile(r"^ {0,3}#{1,6}[ \t]+", re.MULTILINE)

_WITHOUT_LINES = frozenset(
    [".docx", ".eml", ".epub", ".htm", ".html", ".ipynb", ".odt", ".pdf", ".pptx", ".rtf", ".xhtml", ".xlsx"]
)


def has_lines(path: str) -> bool:
    """Whether a file's indexed text has the same lines as the file."""
    return Path(path).suffix.lower() not in _WITHOUT_LINES


@dataclass(frozen=True)
class Place:
    """Where a passage stands.

    Attributes:
        path: of its file; "" where the document was added by itself.
        headings: the path of titles and headings above it, such as "Handbook > Travel".
        page: a page, slide or row, such as "page 3"; "" where lines and headings say enough.
        line: of the document's text, from 1; of plain text, Markdown and tables that of the file.
        start, stop: its characters in the document's text.
        id, title, metadata: of the document; the id of a whole file is its path.
    """

    path: str
    headings: str
    page: str
    line: int
    start: int
    stop: int
    id: str | float | None
    title: str
    metadata: Mapping[str, Any] = field(hash=False)


def printed_place(place: Place, path: str | None = None) -> str:
    """The place of a hit as people and programs see it, and as `Index.get` and `Index.similar` take it.

    ``path`` is the file's name where it is not the stored one.

    Example:
        >>> hit = Hit("/notes/costs.xlsx", "", "Prices, row 7", 7, 0, 4, "c7", "Prices", {})
        >>> printed_place(hit), printed_place(hit, "costs.xlsx")
        ('/notes/costs.xlsx, Prices, row 7, c7', 'costs.xlsx, Prices, row 7, c7')
    """
    name = path or place.path or str(place.title or "a text" if place.id is None else place.id)
    if place.page and not place.page.startswith("line "):
        name = f"{name}, {place.page}"
    elif has_lines(place.path):
        name = f"{name}:{place.line}"
    return f"{name}, {place.id}" if place.path and place.id not in (None, place.path) else name


@dataclass(frozen=True)
class Explanation:
    """How a hit got its rank.

    Attributes:
        meaning_rank, words_rank: from 1, by cosine and by BM25; None where that ranking did not find it.
        bm25: above 0; comparable within one search only.
        first_stage: the value that ordered the candidates: cosine, BM25, or both fused.
        reranked: the value that the reranker's order goes by, None without one; see `ggrank.scoring.blend`.
    """

    meaning_rank: int | None
    words_rank: int | None
    bm25: float | None
    first_stage: float
    reranked: float | None = None


NOT_RANKED = Explanation(None, None, None, 0.0)


@dataclass(frozen=True)
class Hit(Place):
    """A passage that was found, at the first of its places.

    Attributes:
        text: as it stands in the document.
        score: 0..1, with the same meaning in every query; see docs/search.md. Hits are ordered by another
            value (``explanation``), so it need not fall from hit to hit.
        cosine: of query and passage; None in a search by words.
        logit: the reranker's; None without one.
        words: those of the query that it holds.
        others: where else the same text stands, 20 at most.
        explanation: how it got its rank.
        before, after: the document's lines around the text, where ``context`` asked for them; they begin and
            end with the rest of the text's own lines.
    """

    text: str = ""
    score: float = 0.0
    cosine: float | None = None
    logit: float | None = None
    words: tuple[str, ...] = ()
    others: tuple[Place, ...] = ()
    explanation: Explanation = NOT_RANKED
    before: str = ""
    after: str = ""

    def snippet(self, query: str, *, n_characters: int = 200) -> str:
        """The part of the text that has a phrase of the query, or most of its words; else its beginning."""
        spans = find_phrases(query, self.text) or find_words(query, self.text)
        start, stop = best_window(self.text, spans, n_characters=n_characters)
        before, after = "..." if start else "", "..." if stop < len(self.text) else ""
        part = self.text[start:stop]
        if self.path.lower().endswith((".md", ".markdown")):
            part = _HEADING_MARK.sub("", part)
        return f"{before}{' '.join(part.split())}{after}"
