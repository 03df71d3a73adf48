"""What is measured: lists of texts of several lengths, and how many of them in each size of the benchmark.

Knows numbers of tokens and passages; no models and no clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ggrank.benchmark.texts import Writer

QUERY_TOKENS = 10
CALLERS = 4
SHORT_TEXT = 24
"""Tokens of the texts of the first ranking."""

LEAST, MOST = 20, 450
"""Tokens of a passage in a mixed list."""

FIRST_RANKING = "first ranking"
TWENTY = "20 passages"
"""How the name of the cell begins whose milliseconds are told."""


@dataclass(frozen=True)
class Request:
    """A query and its documents: pairs for a reranker; an embedder gets all of them as texts."""

    query: str
    documents: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """Requests that are sent at once, one a caller.

    Attributes:
        n_tokens: in all sequences together, special tokens included, as the model counts them.
    """

    name: str
    requests: tuple[Request, ...]
    n_tokens: int

    @property
    def n_passages(self) -> int:
        """Documents of all requests."""
        return sum(len(request.documents) for request in self.requests)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rounds: how often each subject runs each cell.
        passages: how many sequences a cell has, by the tokens of each.
        twenty: tokens of each of 20 sequences whose milliseconds are told.
        n_mixed: passages of the mixed list.
        n_each: passages of each of the concurrent callers.
        n_growth: numbers of passages for the figure of growth.
        growth_rounds: how often each of its points is measured.
    """

    rounds: int
    passages: dict[int, int]
    twenty: int
    n_mixed: int
    n_each: int
    n_growth: tuple[int, ...]
    growth_rounds: int


SIZES = {
    "smallest": Size(2, {32: 4, 128: 2}, 32, 6, 2, (2, 4, 8), 1),
    "small": Size(5, {32: 64, 128: 32, 384: 16}, 128, 100, 20, (10, 30, 100, 300, 1000), 3),
    "full": Size(9, {32: 128, 128: 64, 384: 24}, 128, 100, 25, (10, 30, 100, 300, 1000, 3000, 10_000), 3),
}


class CellMaker:
    """Makes the cells of one model.

    Args:
        count_tokens: of a text, without special tokens.
        n_special: tokens of a sequence beside its query and document.
        n_ctx: the longest sequence that the model takes.
        is_reranker: the sequences are pairs, so that a query is part of each.
    """

    def __init__(
        self, count_tokens: Callable[[str], int], *, n_special: int, n_ctx: int, is_reranker: bool
    ) -> None:
        self._count = count_tokens
        self._writer = Writer(count_tokens)
        self._n_special = n_special
        self._n_ctx = n_ctx
        self._is_reranker = is_reranker

    def cells(self, size: Size) -> Iterator[Cell]:
        """Those of the table, short sequences first."""
        for n_tokens, n in size.passages.items():
            yield self.uniform(f"{n} of {n_tokens} tokens", n, n_tokens)
        yield self.uniform(f"{TWENTY} of {size.twenty} tokens", 20, size.twenty)
        yield self._cell(f"{size.n_mixed} mixed", [self._mixed(size.n_mixed)])
        callers = [self._mixed(size.n_each) for _ in range(CALLERS)]
        yield self._cell(f"{CALLERS} callers", callers)

    def first_ranking(self) -> Cell:
        """20 short texts, for a process that has just started."""
        return self.uniform(FIRST_RANKING, 20, SHORT_TEXT + self._around)

    def uniform(self, name: str, n: int, n_tokens: int) -> Cell:
        """``n`` sequences of about ``n_tokens`` tokens each, a query and special tokens included."""
        return self._cell(name, [self._request([n_tokens - self._around] * n)])

    @property
    def _around(self) -> int:
        return self._n_special + (QUERY_TOKENS if self._is_reranker else 0)

    def _mixed(self, n: int) -> Request:
        most = min(MOST, self._n_ctx - self._around)
        return self._request(self._writer.lengths(n, least=min(LEAST, most), most=most))

    def _request(self, lengths: list[int]) -> Request:
        query = self._writer.passage(QUERY_TOKENS)
        return Request(query, tuple(self._writer.passage(max(1, length)) for length in lengths))

    def _cell(self, name: str, requests: list[Request]) -> Cell:
        return Cell(name, tuple(requests), sum(map(self._n_tokens, requests)))

    def _n_tokens(self, request: Request) -> int:
        query = self._count(request.query) if self._is_reranker else 0
        return sum(self._count(text) + query + self._n_special for text in request.documents)
