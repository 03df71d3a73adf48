"""Texts to passages: no longer than the model reads well, cut where a reader would pause.

Knows characters, and how many tokens a piece of text has; not what is done with passages.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

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
    """A part of a text, ``text[start:end]`` in characters, and its tokens without special ones."""

    text: str
    start: int
    end: int
    n_tokens: int


@dataclass(frozen=True)
class _Unit:
    """What is never cut: a sentence, or a piece of one that is too long."""

    start: int
    end: int
    n_tokens: int
    begins_paragraph: bool


def cut(text: str, *, count_tokens: Callable[[str], int], most: int, overlap: int) -> Iterator[Passage]:
    """Passages of at most ``most`` tokens, in order; together they hold all of the text but white space.

    A text that fits is one passage. A longer one is cut between paragraphs where that leaves a passage at
    least half full, else between sentences, and in a sentence that does not fit at white space near the
    middle. A passage begins with the last sentences of the one before: ``overlap`` tokens at most.

    Args:
        count_tokens: of a text, without special tokens.
        most: tokens, at least 1.
        overlap: tokens, fewer than ``most``; 0 for none.

    Example:
        >>> def words(text): return len(text.split())
        >>> [one.text for one in cut("A b. C d. E f.", count_tokens=words, most=4, overlap=2)]
        ['A b. C d.', 'C d. E f.']
    """
    begin, stop = _trimmed(text, 0, len(text))
    if begin == stop:
        return
    n_tokens = count_tokens(text[begin:stop])
    if n_tokens <= most:
        yield Passage(text[begin:stop], begin, stop, n_tokens)
        return
    units = list(_units(text, count_tokens, most))
    for first, behind in _groups(units, most, overlap):
        start, end = units[first].start, units[behind - 1].end
        n_tokens = sum(unit.n_tokens for unit in units[first:behind])
        yield Passage(text[start:end], start, end, n_tokens)


def _groups(units: list[_Unit], most: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Which units make a passage: the first one, and the one behind the last."""
    totals = list(accumulate((unit.n_tokens for unit in units), initial=0))
    first = 0
    while True:
        behind = max(first + 1, bisect_right(totals, totals[first] + most) - 1)
        if behind == len(units):
            yield first, behind
            return
        behind = _seam(units, totals, first, behind, least=most / 2)
        yield first, behind
        begin = behind
        # The overlap must leave room for the unit that is next.
        while (
            begin - 1 > first
            and totals[behind] - totals[begin - 1] <= overlap
            and totals[behind + 1] - totals[begin - 1] <= most
        ):
            begin -= 1
        first = begin


def _seam(units: list[_Unit], totals: list[int], first: int, behind: int, *, least: float) -> int:
    """The last beginning of a paragraph that leaves at least ``least`` tokens before it, or ``behind``."""
    for i in range(behind, first, -1):
        if totals[i] - totals[first] < least:
            break
        if units[i].begins_paragraph:
            return i
    return behind


def _units(text: str, count_tokens: Callable[[str], int], most: int) -> Iterator[_Unit]:
    for start, end in _parted(text, 0, len(text), _PARAGRAPH):
        begins = True
        for sentence_start, sentence_end in _parted(text, start, end, _SENTENCE):
            for piece_start, piece_end in _pieces(text, sentence_start, sentence_end, count_tokens, most):
                # With the white space behind it, which has tokens of its own in some models.
                n_tokens = count_tokens(text[piece_start:piece_end])
                unit_start, unit_end = _trimmed(text, piece_start, piece_end)
                if unit_start < unit_end:
                    yield _Unit(unit_start, unit_end, n_tokens, begins)
                    begins = False


def _parted(text: str, start: int, end: int, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Spans that end behind each separator."""
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
