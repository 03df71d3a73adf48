"""The pairs and texts that the goldens are made of: from one token to more than ``n_ctx``, in many scripts.

Some are written by hand (``tests/data/by_hand.jsonl``), the others are drawn from the texts there, by a seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent.parent / "data"


def pairs(n_drawn: int = 60) -> list[tuple[str, str]]:
    """Pairs by hand, then drawn ones: queries of up to 60 characters, documents of up to 220 words."""
    words = _Words(seed=7)
    drawn = [(words.some(1, 10)[:60], words.some(*_length(i, n_drawn))) for i in range(n_drawn)]
    return [*_by_hand(), *drawn]


def texts(n_drawn: int = 60) -> list[str]:
    """Single texts: every part of the pairs by hand, once, then drawn ones."""
    words = _Words(seed=8)
    by_hand = list(dict.fromkeys(text for pair in _by_hand() for text in pair))
    return by_hand + [words.some(*_length(i, n_drawn)) for i in range(n_drawn)]


def growing(seed: int) -> Iterator[str]:
    """A text of one English word, two words, three words and so on."""
    words = (DATA / "english.txt").read_text("utf-8").split()
    start = int(np.random.default_rng(seed).integers(len(words) // 2))
    return (" ".join(words[start : start + n]) for n in range(1, len(words) // 2))


def _by_hand() -> list[tuple[str, str]]:
    lines = (DATA / "by_hand.jsonl").read_text("utf-8").splitlines()
    return [(query, document) for query, document in map(json.loads, lines)]


class _Words:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._lines = (DATA / "world.txt").read_text("utf-8").splitlines()
        self._english = (DATA / "english.txt").read_text("utf-8").split()

    def some(self, least: int, most: int) -> str:
        n_words = int(self._random.integers(least, most + 1))
        if self._random.random() < 0.4:
            line = self._lines[int(self._random.integers(len(self._lines)))]
            return " ".join(line.split()[:n_words])
        start = int(self._random.integers(len(self._english) - n_words))
        return " ".join(self._english[start : start + n_words])


def _length(i: int, n: int) -> tuple[int, int]:
    longest = 2 + 218 * i // n
    return max(1, longest // 2), longest
