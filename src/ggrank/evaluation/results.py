"""What an evaluation found: each system's figures on each set, and the queries that it answers otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from ggrank.evaluation.datasets import TestSet
from ggrank.evaluation.metrics import METRICS, Interval, bootstrap, measure
from ggrank.evaluation.systems import Run

MAIN_METRIC = "nDCG@10"

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
class Latency:
    """Milliseconds a query: the median over the queries, and the ninety-fifth percentile."""

    median: float
    p95: float


@dataclass(frozen=True)
class SystemResult:
    """One system on one set.

    Attributes:
        system: its name.
        reranker: the name of its reranker; "" for a first stage.
        depth: documents that its reranker read; 0 for a first stage.
        metrics: the mean of each metric over the queries, 0 to 1.
        lift: of nDCG@10 over the embedder; None for the embedder.
        changes: queries that got better and worse than the embedder's; None for the embedder.
        retrieve_ms, rerank_ms, total_ms: of both stages, and of both together; 0 for what was given.
    """

    system: str
    reranker: str
    depth: int
    metrics: Mapping[str, float]
    lift: Interval | None
    changes: Changes | None
    retrieve_ms: Latency
    rerank_ms: Latency
    total_ms: Latency

    @property
    def family(self) -> str:
        """What is the same for all depths of a reranker: the name without the depth."""
        return self.system.rpartition("@")[0] if self.depth else self.system


@dataclass(frozen=True)
class SetResult:
    """All systems on one set.

    Attributes:
        n_queries: those that were asked.
        n_queries_in_all: those with a relevant document, before a sample was taken.
        n_skipped: queries without a relevant document, left out.
        n_unknown: judgements of queries or documents that the set does not have, left out.
        n_own: queries whose own document was left out.
    """

    name: str
    n_documents: int
    n_queries: int
    n_queries_in_all: int
    n_skipped: int
    n_unknown: int
    n_own: int
    systems: tuple[SystemResult, ...]

    def system(self, name: str) -> SystemResult:
        """The result of one system; for a depth beyond the documents, that of all of them."""
        found = {one.system: one for one in self.systems}
        return found.get(name) or found[f"{name.rpartition('@')[0]}@{self.n_documents}"]


def summarize(test: TestSet, runs: Sequence[Run]) -> SetResult:
    """The figures of every run; the first run, the embedder's, is what the others are compared with."""
    measured = [measure(run.rankings, [query.relevant for query in test.queries]) for run in runs]
    systems = []
    for run, values in zip(runs, measured, strict=True):
        is_base = run is runs[0]
        ndcg, base = values[MAIN_METRIC], measured[0][MAIN_METRIC]
        retrieve_ms, rerank_ms = np.array(run.retrieve_ms), np.array(run.rerank_ms)
        systems.append(
            SystemResult(
                system=run.system,
                reranker=run.reranker,
                depth=run.depth,
                metrics={name: float(values[name].mean()) for name in METRICS},
                lift=None if is_base else bootstrap(ndcg - base),
                changes=None if is_base else find_changes(test, runs[0].rankings, run.rankings, base, ndcg),
                retrieve_ms=_latency(retrieve_ms),
                rerank_ms=_latency(rerank_ms),
                total_ms=_latency(retrieve_ms + rerank_ms),
            )
        )
    return SetResult(
        name=test.name,
        n_documents=len(test.documents),
        n_queries=len(test.queries),
        n_queries_in_all=test.n_queries_in_all,
        n_skipped=test.n_skipped,
        n_unknown=test.n_unknown,
        n_own=sum(query.own is not None for query in test.queries),
        systems=tuple(systems),
    )


def _latency(milliseconds: NDArray[np.float64]) -> Latency:
    return Latency(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)))


def find_changes(
    test: TestSet,
    first: Sequence[Sequence[int]],
    second: Sequence[Sequence[int]],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
) -> Changes:
    """What changed from one system's rankings to another's, largest change first.

    Args:
        test: whose queries were answered.
        first, second: the rankings of each query.
        before, after: the nDCG@10 of each query, shape (n_queries,).
    """
    difference = after - before

    def change(i: int) -> Change:
        relevant, worse = test.queries[i].relevant, first[i] if difference[i] > 0 else second[i]
        moved = max(
            relevant,
            key=lambda one: relevant[one] * abs(_discount(one, first[i]) - _discount(one, second[i])),
        )
        above = [one for one in worse[: (_rank(moved, worse) or len(worse) + 1) - 1] if one not in relevant]
        return Change(
            query=test.queries[i].text,
            before=float(before[i]),
            after=float(after[i]),
            relevant=test.documents[moved],
            rank_before=_rank(moved, first[i]),
            rank_after=_rank(moved, second[i]),
            above=test.documents[above[0]] if above else "",
        )

    better = [i for i in np.argsort(-difference, kind="stable").tolist() if difference[i] > _LEAST]
    worse = [i for i in np.argsort(difference, kind="stable").tolist() if difference[i] < -_LEAST]
    shown = (tuple(map(change, some[:SHOWN_CHANGES])) for some in (better, worse))
    return Changes(len(better), len(worse), *shown)


def _discount(document: int, ranking: Sequence[int]) -> float:
    """A document's share of the discounted gain."""
    rank = _rank(document, ranking[:_DEPTH])
    return 1 / log2(rank + 1) if rank else 0.0


def _rank(document: int, ranking: Sequence[int]) -> int | None:
    return ranking.index(document) + 1 if document in ranking else None
