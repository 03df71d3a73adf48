"""What an evaluation found: each system's figures on each set, and the queries that it answers otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.evaluation.datasets import SEED, TestSet
from ggrank.evaluation.systems import Run

METRICS = ("nDCG@10", "P@1", "MRR@5", "MRR@10", "recall@5", "recall@20", "recall@100")
"""In the order in which they are shown. nDCG's gain is the grade itself, as in trec_eval."""

MAIN_METRIC = "nDCG@10"
RESAMPLES = 10_000

SHOWN_CHANGES = 5
"""Queries that got better the most, and worse the most."""

_DRAWN_AT_ONCE = 2_000_000
"""Numbers; keeps memory flat however many queries there are."""

_DEPTH = 10
_LEAST = 1e-9
"""Below this a difference is rounding."""


class Interval(NamedTuple):
    """A mean difference and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """A query whose nDCG@10 differs between two systems, and the relevant document that moved most.

    ``above`` is the first text that is not relevant above it in the worse of both lists; "" for none.
    """

    query: str
    before: float
    after: float
    relevant: str
    rank_before: int | None
    rank_after: int | None
    above: str


@dataclass(frozen=True)
class SystemResult:
    """One system on one set, compared with the embedder: metrics are means over the queries, 0 to 1.

    A family is the name without the depth, the same for all depths of a reranker; a first stage has depth 0.
    Milliseconds a query are the median and the ninety-fifth percentile, 0 for a ranking that was given.
    """

    system: str
    family: str
    depth: int
    metrics: Mapping[str, float]
    ms: float
    p95_ms: float
    lift: Interval | None = None
    n_better: int = 0
    n_worse: int = 0
    most_better: tuple[Change, ...] = ()
    most_worse: tuple[Change, ...] = ()


@dataclass(frozen=True)
class SetResult:
    """All systems on one set."""

    name: str
    counts: Mapping[str, int]
    systems: tuple[SystemResult, ...]

    def system(self, name: str) -> SystemResult:
        """The result of one system; for a depth beyond the documents, that of all of them."""
        found = {one.system: one for one in self.systems}
        return found.get(name) or found[f"{name.rpartition('@')[0]}@{self.counts['documents']}"]


def summarize(test: TestSet, runs: Sequence[Run]) -> SetResult:
    """The figures of every run; the first run, the embedder's, is what the others are compared with."""
    counts = {
        "documents": len(test.documents),
        "queries": len(test.queries),
        "queries_in_all": test.n_queries_in_all,
        "skipped": test.n_skipped,
        "unknown": test.n_unknown,
        "own": sum(query.own is not None for query in test.queries),
    }
    relevant = [query.relevant for query in test.queries]
    base = measure(runs[0].rankings, relevant)[MAIN_METRIC]

    def system(run: Run) -> SystemResult:
        values = measure(run.rankings, relevant)
        ndcg = values[MAIN_METRIC]
        result = SystemResult(
            system=run.system,
            family=run.system.rpartition("@")[0] if run.depth else run.system,
            depth=run.depth,
            metrics={name: float(values[name].mean()) for name in METRICS},
            ms=float(np.median(run.ms)),
            p95_ms=float(np.percentile(run.ms, 95)),
        )
        if run is runs[0]:
            return result
        better, worse = find_changes(test, runs[0].rankings, run.rankings, base, ndcg)
        return replace(
            result,
            lift=bootstrap(ndcg - base),
            n_better=len(better),
            n_worse=len(worse),
            most_better=tuple(better[:SHOWN_CHANGES]),
            most_worse=tuple(worse[:SHOWN_CHANGES]),
        )

    return SetResult(test.name, counts, tuple(map(system, runs)))


def measure(
    rankings: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, int]]
) -> dict[str, NDArray[np.float64]]:
    """The value of every metric for every query: for each name of `METRICS` an array of shape (n_queries,).

    Args:
        rankings: for each query the positions of documents, best first.
        relevant: for each query the grades above 0 by position; none is empty.

    Raises:
        InputError: ir-measures is not installed.
    """
    try:
        import ir_measures
        from ir_measures import RR, P, R, nDCG
    except ImportError as error:
        raise InputError("Metrics need ir-measures: pip install 'ggrank[eval]'") from error
    # Not by `parse_measure`, which needs ``ast.Num``: gone from Python 3.14.
    computed = (nDCG @ 10, P @ 1, RR @ 5, RR @ 10, R @ 5, R @ 20, R @ 100)
    names = dict(zip(computed, METRICS, strict=True))
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
        values[names[found.measure]][int(found.query_id)] = found.value
    return values


def bootstrap(differences: NDArray[np.float64]) -> Interval:
    """The mean of paired differences with its 95 % percentile interval, from 10,000 resamples of the queries.

    The same numbers come out every time. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), chapter 13; for retrieval: Sakai, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.
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
) -> tuple[list[Change], list[Change]]:
    """The queries that got better and worse from one system's rankings to another's; largest change first.

    Args:
        before, after: the nDCG@10 of each query, shape (n_queries,).
    """
    difference = after - before

    def change(i: int) -> Change:
        relevant, worse = test.queries[i].relevant, first[i] if difference[i] > 0 else second[i]

        def movement(one: int) -> float:
            return relevant[one] * abs(_discount(one, first[i]) - _discount(one, second[i]))

        moved = max(relevant, key=movement)
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
    return list(map(change, better)), list(map(change, worse))


def _discount(document: int, ranking: Sequence[int]) -> float:
    """A document's share of the discounted gain."""
    rank = _rank(document, ranking[:_DEPTH])
    return 1 / log2(rank + 1) if rank else 0.0


def _rank(document: int, ranking: Sequence[int]) -> int | None:
    return ranking.index(document) + 1 if document in ranking else None
