"""The texts that every peer gets: pieces of the book in tests/data, the same ones every time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggrank import Llama

BOOK = Path(__file__).resolve().parent.parent / "tests" / "data" / "english.txt"
SEED = 7

Request = tuple[str, list[str]]
"""A query and its documents: pairs for a reranker; an embedder gets the documents alone."""

TWENTY = "20 passages"
"""The name of the cell that is shown in milliseconds begins so."""

QUERY_TOKENS = 10
CALLERS = 4
MIXED_TOKENS = (20, 450)
"""The shortest and the longest passage of a mixed list."""


@dataclass(frozen=True)
class Size:
    """How much is measured: sequences by their tokens, and the passages of the other cells."""

    n_sequences: dict[int, int]
    twenty_tokens: int
    n_mixed: int
    n_each: int


QUICK = Size({32: 4, 128: 2}, 32, 6, 2)
FULL = Size({32: 64, 128: 32, 384: 16}, 128, 100, 20)


@dataclass(frozen=True)
class Cell:
    """Requests that are sent at once, each by a caller of its own.

    Attributes:
        n_tokens: of all sequences together, with special tokens, as the model counts them.
    """

    name: str
    requests: list[Request]
    n_tokens: int


class Passages:
    """Draws pieces of the book that have a given number of tokens, or few less: whole words only."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count = count_tokens
        self._words = BOOK.read_text("utf-8").split()
        self._random = np.random.default_rng(SEED)

    def draw(self, n_tokens: int) -> str:
        """One passage; a word has at least one token."""
        start = int(self._random.integers(len(self._words) - n_tokens))
        words = self._words[start : start + n_tokens]
        lengths = range(1, len(words) + 1)
        n = bisect_right(lengths, n_tokens, key=lambda n: self._count(" ".join(words[:n])))
        return " ".join(words[: max(1, n)])

    def mixed_lengths(self, n: int, most: int) -> list[int]:
        """Tokens of passages as collections have them: many short, few long (lognormal)."""
        least = min(MIXED_TOKENS[0], most)
        drawn = np.sqrt(least * most) * np.exp(0.8 * self._random.standard_normal(n))
        return [int(length) for length in np.clip(drawn, least, most)]


def make_cells(llama: Llama, size: Size) -> Iterator[Cell]:
    """The cells of the table, in the tokens of a loaded model."""
    is_reranker = llama.mode.value == "rerank"
    n_special = llama.rank("", [""]).n_tokens if is_reranker else llama.count_tokens("")
    around = n_special + (QUERY_TOKENS if is_reranker else 0)

    def count(text: str) -> int:
        return len(llama.tokenize(text))

    passages = Passages(count)

    def request(lengths: list[int]) -> Request:
        return passages.draw(QUERY_TOKENS), [passages.draw(max(1, length - around)) for length in lengths]

    def mixed(n: int) -> Request:
        return request(passages.mixed_lengths(n, min(MIXED_TOKENS[1], llama.n_ctx)))

    def cell(name: str, *requests: Request) -> Cell:
        lengths = [
            n_special + count(text) + (count(query) if is_reranker else 0)
            for query, documents in requests
            for text in documents
        ]
        return Cell(name, list(requests), sum(lengths))

    for n_tokens, n in size.n_sequences.items():
        yield cell(f"{n} of {n_tokens} tokens", request([n_tokens] * n))
    yield cell(f"{TWENTY} of {size.twenty_tokens} tokens", request([size.twenty_tokens] * 20))
    yield cell(f"{size.n_mixed} mixed", mixed(size.n_mixed))
    yield cell(f"{CALLERS} callers", *(mixed(size.n_each) for _ in range(CALLERS)))
