"""Documents to passages: no longer than the model reads well, cut where a reader would pause."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, zip_longest

from ggrank.search.sections import SEPARATOR, FileDocument, Section
from ggrank.search.words import normalized

SHORT = 16
"""A section with fewer than this part of a passage's tokens joins a neighbour: 12 of 200."""

MOST_CHARACTERS = 400
"""Of the path of headings."""

_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
"""Where a paragraph ends: a blank line."""

_SENTENCE = re.compile(
    r"(?<=[.!?…])[\"'\u201d\u2019»)\]]*\s+"
    r"|(?<=[\u3002\uff01\uff1f])"  # the same in Chinese and Japanese, where no space follows
    r"|\n(?=[^\S\n]*(?:[-*+•|>]|\d{1,3}[.)])\s)"  # an item of a list, or a row of a table
)
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Passage:
    """``text[start:end]`` of a document, the line where it begins, from 1, and the headings over it.

    The path of headings, "Staff handbook > Travel", is embedded with it and shown apart; their tokens count.
    ``place`` is such as "page 3", "" where lines and headings say enough.
    """

    start: int
    end: int
    line: int
    headings: str
    place: str
    n_tokens: int


@dataclass(frozen=True)
class Span:
    """``text[start:end]`` and its tokens, without special ones."""

    start: int
    end: int
    n_tokens: int


@dataclass(frozen=True)
class _Piece(Span):
    """A sentence, or a piece of one that is too long."""

    begins_paragraph: bool


def passages(
    document: FileDocument, *, count_tokens: Callable[[str], int], most: int, overlap: int
) -> Iterator[Passage]:
    """The passages of a document: each section cut where it is too long, short neighbours joined.

    Front matter is in no passage, and a heading is one only where nothing else is there. A passage and its
    headings have ``most`` tokens at most, of which ``overlap`` at most repeat those of the one before.
    """

    def count(text: str) -> int:
        return count_tokens(normalized(text))

    line, seen = 1, 0
    sections = document.sections or (Section(0, len(document.text), 0),)
    for section in _joined(document.text, sections, count, most):
        headings = _path(document.title, section.headings, count, most // 4)
        n_headings = count(headings)
        start = section.start if _is_bare(document.text, section) else section.body
        text = document.text[start : section.end]
        room = most - n_headings
        for span in cut(text, count_tokens=count, most=room, overlap=min(overlap, room // 2)):
            begin, place = start + span.start, section.place or document.place
            line, seen = line + document.text.count("\n", seen, begin), begin
            yield Passage(begin, start + span.end, line, headings, place, n_headings + span.n_tokens)


def embedded_text(headings: str, text: str) -> str:
    """What is embedded, and indexed by its words, for a passage."""
    return normalized(f"{headings}\n\n{text}" if headings else text)


def _joined(
    text: str, sections: Sequence[Section], count: Callable[[str], int], most: int
) -> Iterator[Section]:
    """Sections with a text; one of few tokens joins the next one under the same heading."""
    least = most // SHORT

    def is_short(section: Section) -> bool:
        body = text[section.body : section.end]
        return len(body) < MOST_CHARACTERS and count(body) < least

    waiting: Section | None = None
    for section, after in zip_longest(sections, sections[1:]):
        path = section.headings
        if _is_bare(text, section):
            if not path or (after and after.headings[: len(path)] == path):
                continue  # white space, or a heading that is in the path of what follows
            if waiting:
                body = waiting.start if _is_bare(text, waiting) else waiting.body
                waiting = replace(waiting, body=body, end=section.end)
                continue
        if waiting is None:
            waiting = section
        elif _is_bare(text, waiting) or (path and not waiting.headings and is_short(waiting)):
            waiting = replace(section, start=waiting.start, body=waiting.start)
        elif (shared := _shared(waiting, section)) is not None and is_short(waiting):
            body = waiting.body if waiting.headings == shared else waiting.start
            waiting = replace(waiting, body=body, end=section.end, headings=shared)
        else:
            yield waiting
            waiting = section
    if waiting:
        yield waiting


def _is_bare(text: str, section: Section) -> bool:
    return not text[section.body : section.end].strip()


def _shared(one: Section, other: Section) -> tuple[str, ...] | None:
    """The headings over both; None where they have nothing in common but the document."""
    shared = tuple(a for a, b in zip(one.headings, other.headings, strict=False) if a == b)
    return shared if shared or not (one.headings or other.headings) else None


def _path(title: str, headings: Sequence[str], count: Callable[[str], int], most: int) -> str:
    """The title and headings in a line of at most ``most`` tokens, the innermost kept longest."""
    first, whole = headings[0].casefold() if headings else "", title.casefold()
    if not (first and (first in whole or whole in first)):  # a page's title mostly repeats its first heading
        headings = (title, *headings)
    path = SEPARATOR.join(filter(None, headings))[-MOST_CHARACTERS:]
    while path and count(path) > most:
        path = path.partition(SEPARATOR)[2] or path[: len(path) // 2]
    return path


def cut(text: str, *, count_tokens: Callable[[str], int], most: int, overlap: int) -> Iterator[Span]:
    """Spans of at most ``most`` tokens, in order; together they hold all of the text but white space.

    A text that fits is one span. A longer one is cut between paragraphs where that leaves a span at least
    half full, else between sentences, and in a sentence that does not fit at white space near the middle.
    A span begins with the last sentences of the one before: ``overlap`` tokens at most.
    """
    start, end = _trimmed(text, 0, len(text))
    if start == end:
        return
    n_tokens = count_tokens(text[start:end])
    if n_tokens <= most:
        yield Span(start, end, n_tokens)
        return
    units = list(_units(text, count_tokens, most))
    for first, after in _groups(units, most, overlap):
        n_tokens = sum(unit.n_tokens for unit in units[first:after])
        yield Span(units[first].start, units[after - 1].end, n_tokens)


def _groups(units: list[_Piece], most: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Which units make a passage: the first one, and the one after the last."""
    totals = list(accumulate((unit.n_tokens for unit in units), initial=0))
    first = 0
    while True:
        after = max(first + 1, bisect_right(totals, totals[first] + most) - 1)
        if after == len(units):
            yield first, after
            return
        after = _seam(units, totals, first, after, least=most / 2)
        yield first, after
        begin = after
        # The overlap must leave room for the unit that is next.
        while (
            begin - 1 > first
            and totals[after] - totals[begin - 1] <= overlap
            and totals[after + 1] - totals[begin - 1] <= most
        ):
            begin -= 1
        first = begin


def _seam(units: list[_Piece], totals: list[int], first: int, after: int, *, least: float) -> int:
    """The last beginning of a paragraph that leaves at least ``least`` tokens before it, or ``after``."""
    for i in range(after, first, -1):
        if totals[i] - totals[first] < least:
            break
        if units[i].begins_paragraph:
            return i
    return after


def _units(text: str, count_tokens: Callable[[str], int], most: int) -> Iterator[_Piece]:
    for start, end in _parted(text, 0, len(text), _PARAGRAPH):
        begins = True
        for sentence_start, sentence_end in _parted(text, start, end, _SENTENCE):
            for piece_start, piece_end in _pieces(text, sentence_start, sentence_end, count_tokens, most):
                # With the white space after it, which has tokens of its own in some models.
                n_tokens = count_tokens(text[piece_start:piece_end])
                unit_start, unit_end = _trimmed(text, piece_start, piece_end)
                if unit_start < unit_end:
                    yield _Piece(unit_start, unit_end, n_tokens, begins)
                    begins = False


def _parted(text: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Spans that end after each separator."""
    for match in separator.finditer(text, start, end):
        if match.end() > start:
            yield start, match.end()
            start = match.end()
    if start < end:
        yield start, end


def _pieces(
    text: str, start: int, end: int, count_tokens: Callable[[str], int], most: int
) -> Iterator[tuple[int, int]]:
    """The span itself where it fits; else pieces of at most a quarter of ``most`` tokens, where they can."""
    if count_tokens(text[start:end]) <= most:
        yield start, end
        return
    spans = [(start, end)]
    while spans:
        start, end = spans.pop()
        if end - start < 2 or count_tokens(text[start:end]) <= max(1, most // 4):
            yield start, end
            continue
        middle = _middle(text, start, end)
        spans += [(middle, end), (start, middle)]


def _middle(text: str, start: int, end: int) -> int:
    """Behind white space in the middle half of the span where there is some, else its middle."""
    middle, quarter = (start + end) // 2, (end - start) // 4
    match = _SPACE.search(text, middle, end - quarter) or _SPACE.search(text, start + quarter, middle)
    return match.end() if match and start < match.end() < end else middle


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without white space at its ends."""
    whole = text[start:end]
    left = len(whole) - len(whole.lstrip())
    return (start + left, start + len(whole.rstrip())) if left < len(whole) else (start, start)
