"""The queries that one system answers better or worse than another, with the texts to judge it by.

Knows rankings, grades and nDCG@10; not how they came about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from ggrank.evaluation.datasets import TestSet

SHOWN_CHANGES = 5
"""Queries that got better the most, and worse the most."""

_DEPTH = 10
_LEAST = 1e-9
"""Below this a difference is rounding."""


@dataclass(frozen=True)
class Change:
    """A query whose nDCG@10 differs between two systems.

    Attributes:
        query: its text.
        before, after: nDCG@10 in both.
        relevant: the text of the relevant document that moved most.
        rank_before, rank_after: that document's ranks, from 1; None where it was not found.
        above: the first text that is not relevant above it in the worse of both lists; "" for none.
    """

    query: str
    before: float
    after: float
    relevant: str
    rank_before: int | None
    rank_after: int | None
    above: str


@dataclass(frozen=True)
class Changes:
    """All that changed: how many queries got better and worse, and those that changed most."""

    n_better: int
    n_worse: int
    most_better: tuple[Change, ...]
    most_worse: tuple[Change, ...]


@dataclass(frozen=True)
class Answers:
    """A system's rankings of all queries, and the nDCG@10 of each, shape (n_queries,)."""

    rankings: Sequence[Sequence[int]]
    ndcg: NDArray[np.float64]


def find_changes(test: TestSet, before: Answers, after: Answers) -> Changes:
    """What changed from one system's answers to another's, largest change first."""
    difference = after.ndcg - before.ndcg
    better = [i for i in np.argsort(-difference, kind="stable").tolist() if difference[i] > _LEAST]
    worse = [i for i in np.argsort(difference, kind="stable").tolist() if difference[i] < -_LEAST]
    return Changes(
        len(better),
        len(worse),
        tuple(_change(test, before, after, i) for i in better[:SHOWN_CHANGES]),
        tuple(_change(test, before, after, i) for i in worse[:SHOWN_CHANGES]),
    )


def _change(test: TestSet, before: Answers, after: Answers, i: int) -> Change:
    query, first, second = test.queries[i], before.rankings[i], after.rankings[i]
    moved = _moved_most(query.relevant, first, second)
    worse = first if before.ndcg[i] < after.ndcg[i] else second
    rank = _rank(moved, worse) or len(worse) + 1
    above = next((document for document in worse[: rank - 1] if document not in query.relevant), None)
    return Change(
        query=query.text,
        before=float(before.ndcg[i]),
        after=float(after.ndcg[i]),
        relevant=test.documents[moved],
        rank_before=_rank(moved, first),
        rank_after=_rank(moved, second),
        above="" if above is None else test.documents[above],
    )


def _moved_most(relevant: Mapping[int, int], first: Sequence[int], second: Sequence[int]) -> int:
    """The relevant document whose share of the discounted gain changed most."""
    return max(relevant, key=lambda i: relevant[i] * abs(_discount(i, first) - _discount(i, second)))


def _discount(document: int, ranking: Sequence[int]) -> float:
    rank = _rank(document, ranking)
    return 1 / log2(rank + 1) if rank and rank <= _DEPTH else 0.0


def _rank(document: int, ranking: Sequence[int]) -> int | None:
    return ranking.index(document) + 1 if document in ranking else None
