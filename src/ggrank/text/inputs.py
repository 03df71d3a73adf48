"""Checks of callers' arguments; the errors name the item that is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from numbers import Integral, Real
from typing import TypeVar, get_args

from ggrank.errors import InputError, InputTypeError
from ggrank.types import Truncate

T = TypeVar("T")


def check_text(value: object, name: str) -> str:
    """The text itself; lone surrogates, which no encoding can hold, become U+FFFD."""
    if not isinstance(value, str):
        raise InputTypeError(f"{name} must be a string, found {type(value).__name__}: {_shown(value)}")
    if value.isascii():
        return value
    return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def check_texts(values: Iterable[object], name: str) -> Iterator[str]:
    """Each text in turn, checked; a single string instead of a list is an error, not its letters."""
    if isinstance(values, (str, bytes)):
        raise InputTypeError(f"{name}s must be a list of strings, found one string: put it in a list")
    if not isinstance(values, Iterable):
        raise InputTypeError(f"{name}s must be a list of strings, found {type(values).__name__}")
    return (check_text(value, f"{name} {i}") for i, value in enumerate(values))


def check_pairs(values: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Each (query, document) pair in turn, checked."""
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
    if value is not None:
        check_count(value, "top_n")


def check_count(value: object, name: str, *, least: int = 1) -> int:
    """Raises InputError unless it is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}; found {value!r}")
    return int(value)


def check_choice(value: object, name: str, choices: Sequence[str]) -> None:
    """Raises InputError unless it is one of the choices."""
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; found {value!r}")


def check_threshold(value: object) -> None:
    """Raises InputError unless ``threshold`` is None or a number; NaN compares with nothing."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or value != value):
        raise InputError(f"threshold must be a number or None; found {value!r}")


def windows(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items at most, so that a generator is never held whole."""
    items = iter(values)
    while window := list(islice(items, size)):
        yield window


class Distinct:
    """Finds equal values in a long list that comes in windows, by 30 MB of hashes of 16 bytes.

    ``positions`` has for every value so far its position among all different ones.

    Example:
        >>> seen = Distinct()
        >>> seen.add(["b", "a", "b"]), seen.add(["c", "a"])
        ([0, 1], [0])
        >>> seen.positions
        [0, 1, 0, 2, 1]
    """

    MOST_REMEMBERED = 200_000

    def __init__(self) -> None:
        self.positions: list[int] = []
        self._n = 0
        self._position_of: dict[bytes, int] = {}

    def add(self, window: Sequence[str | tuple[str, str]]) -> list[int]:
        """The indices of the window's values that are not known yet."""
        if len(self._position_of) > self.MOST_REMEMBERED:
            self._position_of.clear()
        new = []
        for i, value in enumerate(window):
            text = value if isinstance(value, str) else f"{len(value[0])} {value[0]}{value[1]}"
            key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
            if key not in self._position_of:
                self._position_of[key] = self._n
                self._n += 1
                new.append(i)
            self.positions.append(self._position_of[key])
        return new


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
