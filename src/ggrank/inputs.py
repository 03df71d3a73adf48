"""Checks what callers pass in, and says which item is wrong.

Knows Python values; not tokens or models. Every text passes here before it is tokenised.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar, get_args

from ggrank.errors import InputError, InputTypeError
from ggrank.types import Truncate

T = TypeVar("T")


def check_text(value: object, name: str) -> str:
    """The text itself; lone surrogates, which no encoding can hold, become U+FFFD.

    Raises:
        InputTypeError: not a string.

    Example:
        >>> check_text("a\\ud800b", "the text")
        'a\\ufffdb'
    """
    if not isinstance(value, str):
        raise InputTypeError(f"{name} must be a string, found {type(value).__name__}: {_shown(value)}")
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def check_texts(values: Iterable[object], name: str) -> Iterator[str]:
    """Each text in turn, checked; a single string instead of a list is an error, not its letters.

    Raises:
        InputTypeError: not an iterable, or one of its items is not a string.
    """
    if isinstance(values, (str, bytes)):
        raise InputTypeError(f"{name}s must be a list of strings, found one string: put it in a list")
    try:
        items = iter(values)
    except TypeError:
        found = type(values).__name__
        raise InputTypeError(f"{name}s must be a list of strings, found {found}") from None
    return (check_text(value, f"{name} {i}") for i, value in enumerate(items))


def check_pairs(values: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Each (query, document) pair in turn, checked.

    Raises:
        InputTypeError: an item is not a pair of strings.
    """
    if isinstance(values, (str, bytes)):
        raise InputTypeError("pairs must be a list of (query, document) tuples, found one string")
    for i, value in enumerate(values):
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise InputTypeError(f"pair {i} must be (query, document), found {_shown(value)}")
        query, document = value
        yield check_text(query, f"the query of pair {i}"), check_text(document, f"the document of pair {i}")


def check_truncate(value: str, *, allow_chunk: bool) -> None:
    """Raises InputError unless ``truncate`` is one of the known words."""
    known = [word for word in get_args(Truncate) if allow_chunk or word != "chunk"]
    if value not in known:
        hint = "; 'chunk' is for reranking" if value == "chunk" else ""
        raise InputError(f"truncate must be one of {', '.join(map(repr, known))}, found {value!r}{hint}")


def check_top_n(value: object) -> None:
    """Raises InputError unless ``top_n`` is None or a whole number of at least 1."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InputError(f"top_n must be a whole number of at least 1, or None; found {value!r}")


def check_threshold(value: object) -> None:
    """Raises InputError unless ``threshold`` is None or a number; NaN compares with nothing."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise InputError(f"threshold must be a number or None; found {value!r}")


def windows(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items at most, so that a generator is never held whole.

    Example:
        >>> list(windows("abcde", 2))
        [['a', 'b'], ['c', 'd'], ['e']]
    """
    items = iter(values)
    while window := list(islice(items, size)):
        yield window


def distinct(values: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """Where each different value stands first, and for every value its place among the different ones.

    What is equal is computed once, and so gets exactly the same score.

    Example:
        >>> distinct(["b", "a", "b"])
        ([0, 1], [0, 1, 0])
    """
    place: dict[Hashable, int] = {}
    places = [place.setdefault(value, len(place)) for value in values]
    firsts = list({place: i for i, place in reversed(list(enumerate(places)))}.values())
    return sorted(firsts), places


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
