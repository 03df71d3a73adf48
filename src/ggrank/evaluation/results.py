"""What an evaluation found: each system's figures on each set.

Knows how runs become figures; not how they are shown or saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggrank.evaluation.bootstrap import Interval, bootstrap
from ggrank.evaluation.changes import Answers, Changes, find_changes
from ggrank.evaluation.datasets import TestSet
from ggrank.evaluation.metrics import METRICS, measure
from ggrank.evaluation.systems import Run

MAIN_METRIC = "nDCG@10"


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
        retrieve_ms, rerank_ms, total_ms: of both stages, and of both together.
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


@dataclass(frozen=True)
class SetResult:
    """All systems on one set.

    Attributes:
        n_queries: those that were asked.
        n_queries_in_all: those with a relevant document, before a sample was taken.
        n_skipped: queries without a relevant document, left out.
        n_unknown: judgements of queries or documents that the set does not have, left out.
    """

    name: str
    n_documents: int
    n_queries: int
    n_queries_in_all: int
    n_skipped: int
    n_unknown: int
    systems: tuple[SystemResult, ...]

    def system(self, name: str) -> SystemResult:
        """The result of one system; for a depth beyond the documents, that of all of them."""
        found = {one.system: one for one in self.systems}
        return found.get(name) or found[f"{name.rpartition('@')[0]}@{self.n_documents}"]


def summarize(test: TestSet, runs: Sequence[Run]) -> SetResult:
    """The figures of every run; the first run, the embedder's, is what the others are compared with."""
    relevant = [query.relevant for query in test.queries]
    measured = [measure(run.rankings, relevant) for run in runs]
    answers = [Answers(run.rankings, values[MAIN_METRIC]) for run, values in zip(runs, measured, strict=True)]
    base = answers[0]
    return SetResult(
        name=test.name,
        n_documents=len(test.documents),
        n_queries=len(test.queries),
        n_queries_in_all=test.n_queries_in_all,
        n_skipped=test.n_skipped,
        n_unknown=test.n_unknown,
        systems=tuple(
            SystemResult(
                system=run.system.name,
                reranker=run.system.reranker,
                depth=run.system.depth,
                metrics={name: float(values[name].mean()) for name in METRICS},
                lift=None if own is base else bootstrap(own.ndcg - base.ndcg),
                changes=None if own is base else find_changes(test, base, own),
                retrieve_ms=_latency(run.retrieve_ms),
                rerank_ms=_latency(run.rerank_ms),
                total_ms=_latency(run.retrieve_ms + run.rerank_ms),
            )
            for run, values, own in zip(runs, measured, answers, strict=True)
        ),
    )


def _latency(milliseconds: NDArray[np.float64]) -> Latency:
    return Latency(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)))
