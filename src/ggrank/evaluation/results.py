"""What an evaluation found: each system's figures on each set, and the queries that it answers otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.evaluation.datasets import SEED, TestSet
from ggrank.evaluation.systems import Run

METRICS = ("nDCG@10", "P@1", "MRR@5", "MRR@10", "recall@5", "recall@20", "recall@100")
"""In the order in which they are shown. nDCG's gain is the grade itself, as in trec_eval."""

RESAMPLES = 10_000

_DRAWN_AT_ONCE = 2_000_000
"""Numbers; keeps memory flat however many queries there are."""

MAIN_METRIC = "nDCG@10"

SHOWN_CHANGES = 5
"""Queries that got better the most, and worse the most."""

_DEPTH = 10
_LEAST = 1e-9
"""Below this a difference is rounding."""


@dataclass(frozen=True)
class Interval:
    """A mean difference and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


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


def measure(
    rankings: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, int]]
) -> dict[str, NDArray[np.float64]]:
    """The value of every metric for every query.

    Args:
        rankings: for each query the positions of documents, best first.
        relevant: for each query the grades above 0 by position; none is empty.

    Returns:
        For each name of `METRICS` an array of shape (n_queries,), float64, 0 to 1.

    Raises:
        InputError: ir-measures is not installed.

    Example:
        >>> values = measure([[3, 1, 2]], [{1: 1}])
        >>> float(values["MRR@10"][0]), float(values["P@1"][0]), round(float(values["nDCG@10"][0]), 4)
        (0.5, 0.0, 0.6309)
    """
    try:
        import ir_measures
        from ir_measures import RR, P, R, nDCG
    except ImportError as error:
        raise InputError("Metrics need ir-measures: pip install 'ggrank[eval]'") from error
    # Not by `parse_measure`, which needs ``ast.Num``: gone from Python 3.14.
    computed = (nDCG @ 10, P @ 1, RR @ 5, RR @ 10, R @ 5, R @ 20, R @ 100)
    measures = dict(zip(computed, METRICS, strict=True))
    # trec_eval orders by score and breaks ties by name: each rank gets a score of its own.
    run = [
        ir_measures.ScoredDoc(str(query), str(document), float(-rank))
        for query, ranking in enumerate(rankings)
        for rank, document in enumerate(ranking)
    ]
    qrels = [
        ir_measures.Qrel(str(query), str(document), grade)
        for query, grades in enumerate(relevant)
        for document, grade in grades.items()
    ]
    values = {name: np.zeros(len(rankings)) for name in METRICS}
    for found in ir_measures.iter_calc(computed, qrels, run):
        values[measures[found.measure]][int(found.query_id)] = found.value
    return values


def bootstrap(differences: NDArray[np.float64]) -> Interval:
    """The mean of paired differences with its 95 % percentile interval, from 10,000 resamples of the queries.

    The same numbers come out every time. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), chapter 13; for retrieval: Sakai, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.

    Args:
        differences: one a query, shape (n_queries,), n_queries at least 1.

    Example:
        >>> import numpy as np
        >>> bootstrap(np.full(50, 0.25))
        Interval(mean=0.25, low=0.25, high=0.25)
    """
    rng = np.random.default_rng(SEED)
    n = len(differences)
    block = max(1, _DRAWN_AT_ONCE // n)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    means = np.concatenate([differences[rng.integers(n, size=(size, n))].mean(1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))


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
