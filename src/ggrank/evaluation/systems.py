"""One test set through every system: rankings of all its queries, and what each query took.

The systems are the embedder (cosine), BM25, their fusion by reciprocal rank, and each reranker over the
embedder's first k. Knows models and clocks; no metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.evaluation.datasets import TestSet
from ggrank.lexical import Bm25
from ggrank.scoring import best_first, cosine, reciprocal_rank_fusion, top_k

DEPTH = 100
"""Documents that a first stage finds; recall@100 needs so many."""

STEP = 256
"""Documents embedded between two movements of the progress bar."""

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Run:
    """A system's answers to all queries of a set.

    Attributes:
        system: its name, such as "embedder" or "bge-reranker-base@20".
        depth: how many documents its reranker read; 0 for a first stage.
        rankings: for each query the positions of at most `DEPTH` documents, best first.
        retrieve_ms, rerank_ms: milliseconds of each query in both stages, shape (n_queries,).
    """

    system: str
    depth: int
    rankings: list[list[int]]
    retrieve_ms: NDArray[np.float64]
    rerank_ms: NDArray[np.float64]


@dataclass(frozen=True)
class _FirstStage:
    """What the first stages found for one query, and in how many milliseconds."""

    cosine: list[int]
    bm25: list[int]
    fusion: list[int]
    cosine_ms: float
    bm25_ms: float


def embed_documents(embedder: Llama, documents: Sequence[str], *, advance: Advance) -> NDArray[np.float32]:
    """The documents' vectors, shape (n, n_embd), with the embedder's document prefix."""
    parts = []
    for start in range(0, len(documents), STEP):
        part = documents[start : start + STEP]
        parts.append(embedder.embed_many(part, prefix=embedder.document_prefix))
        advance(len(part))
    return np.concatenate(parts)


def run_systems(
    test: TestSet,
    vectors: NDArray[np.float32],
    *,
    embedder: Llama,
    rerankers: dict[str, Llama],
    depths: Sequence[int],
    advance: Advance,
) -> list[Run]:
    """Every system over every query; ``advance`` counts the queries."""
    bm25 = Bm25(test.documents)
    firsts: list[_FirstStage] = []
    deeper: dict[str, list[tuple[list[int], float]]] = {
        f"{name}@{depth}": [] for name in rerankers for depth in depths
    }
    for query in test.queries:
        first = _first_stage(query.text, vectors, embedder=embedder, bm25=bm25)
        firsts.append(first)
        for name, reranker in rerankers.items():
            for depth, answer in _rerank(query.text, first.cosine, test, reranker, depths).items():
                deeper[f"{name}@{depth}"].append(answer)
        advance(1)
    return _first_runs(firsts) + _second_runs(firsts, deeper)


def _first_stage(query: str, vectors: NDArray[np.float32], *, embedder: Llama, bm25: Bm25) -> _FirstStage:
    started = time.perf_counter()
    by_cosine = top_k(cosine(embedder.embed(query, prefix=embedder.query_prefix), vectors), DEPTH).tolist()
    between = time.perf_counter()
    by_words = [hit.position for hit in bm25.search(query, k=DEPTH)]
    ended = time.perf_counter()
    fused = [one.position for one in reciprocal_rank_fusion([by_cosine, by_words])][:DEPTH]
    return _FirstStage(by_cosine, by_words, fused, 1000 * (between - started), 1000 * (ended - between))


def _rerank(
    query: str, candidates: list[int], test: TestSet, reranker: Llama, depths: Sequence[int]
) -> dict[int, tuple[list[int], float]]:
    """For each depth the reranked list and its milliseconds; what lies deeper keeps its order.

    Every pair is scored once: the first 10, then the next ten, and so on; a depth costs the sum so far.
    """
    answers: dict[int, tuple[list[int], float]] = {}
    logits = np.empty(0, np.float32)
    milliseconds = 0.0
    for depth in sorted(depths):
        more = candidates[len(logits) : depth]
        started = time.perf_counter()
        logits = np.concatenate([logits, reranker.rerank(query, [test.documents[i] for i in more])])
        milliseconds += 1000 * (time.perf_counter() - started)
        order = [candidates[i] for i in best_first(logits).tolist()]
        answers[depth] = (order + candidates[len(order) :], milliseconds)
    return answers


def _first_runs(firsts: list[_FirstStage]) -> list[Run]:
    cosine_ms, bm25_ms = (
        np.array([getattr(one, name) for one in firsts]) for name in ("cosine_ms", "bm25_ms")
    )
    none = np.zeros(len(firsts))
    return [
        Run("embedder", 0, [one.cosine for one in firsts], cosine_ms, none),
        Run("BM25", 0, [one.bm25 for one in firsts], bm25_ms, none),
        Run("fusion", 0, [one.fusion for one in firsts], cosine_ms + bm25_ms, none),
    ]


def _second_runs(firsts: list[_FirstStage], deeper: dict[str, list[tuple[list[int], float]]]) -> list[Run]:
    cosine_ms = np.array([one.cosine_ms for one in firsts])
    return [
        Run(
            name,
            int(name.rpartition("@")[2]),
            [r for r, _ in answers],
            cosine_ms,
            np.array([ms for _, ms in answers]),
        )
        for name, answers in deeper.items()
    ]
