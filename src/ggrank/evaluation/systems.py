"""One test set through every system: rankings of all its queries, and what each query took.

The systems are the embedder (cosine), BM25, their fusions by score and by reciprocal rank, and each reranker
over the embedder's first k. Knows models and clocks; no metrics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.evaluation.datasets import TestSet
from ggrank.scoring import best_first, blend, cosine, top_k
from ggrank.search.lexical import Bm25
from ggrank.search.stages import LEXICAL_DEPTH, fuse
from ggrank.types import Hybrid

DEPTH = 100
"""Documents that a first stage finds; recall@100 needs so many."""

STEP = 256
"""Documents embedded between two movements of the progress bar."""

Advance = Callable[[int], None]


@dataclass(frozen=True)
class System:
    """What answers: its name, such as "BM25" or "bge-reranker-base@20", and its reranker.

    Attributes:
        reranker: the name of its reranker; "" for a first stage.
        depth: how many documents that reads; 0 for a first stage.
    """

    name: str
    reranker: str = ""
    depth: int = 0


EMBEDDER, LEXICAL = System("embedder"), System("BM25")
FUSIONS: dict[Hybrid, System] = {"rrf": System("RRF"), "scores": System("fusion")}


@dataclass(frozen=True)
class Run:
    """A system's answers to all queries of a set.

    Attributes:
        rankings: for each query the positions of at most `DEPTH` documents, best first.
        retrieve_ms, rerank_ms: milliseconds of each query in both stages, shape (n_queries,).
    """

    system: System
    rankings: Sequence[Sequence[int]]
    retrieve_ms: NDArray[np.float64]
    rerank_ms: NDArray[np.float64]


@dataclass(frozen=True)
class _Answer:
    """One query's ranking, and how long each stage took."""

    ranking: Sequence[int]
    retrieve_ms: float
    rerank_ms: float = 0.0
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))


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
    rerankers: Mapping[str, Llama],
    depths: Sequence[int],
    advance: Advance,
) -> list[Run]:
    """Every system over every query, the embedder first; ``advance`` counts the queries.

    The query vectors that rank come from batches, as the documents' do and as sentence-transformers
    computes them; alone, a quantized model moves them by its noise, and a near tie can turn. What a
    query costs is measured on the query alone.
    """
    bm25 = Bm25(test.documents)
    _warm_up(test, embedder, bm25, rerankers.values())
    queries = embedder.embed_many([query.text for query in test.queries], prefix=embedder.query_prefix)
    answers: dict[System, list[_Answer]] = {}
    for query, asked in zip(test.queries, queries, strict=True):
        found = _first_stages(query.text, asked, vectors, embedder=embedder, bm25=bm25)
        first = found[EMBEDDER]
        for name, reranker in rerankers.items():
            deeper = _rerank(query.text, first, test.documents, reranker, depths=depths)
            found |= {System(f"{name}@{depth}", name, depth): answer for depth, answer in deeper.items()}
        for system, answer in found.items():
            answers.setdefault(system, []).append(answer)
        advance(1)
    return [_run(system, given) for system, given in answers.items()]


def _warm_up(test: TestSet, embedder: Llama, bm25: Bm25, rerankers: Iterable[Llama]) -> None:
    """One short call each, so that the first query's time holds nothing that is done once only."""
    query = test.queries[0].text
    embedder.embed(query, prefix=embedder.query_prefix)
    bm25.search(query, k=LEXICAL_DEPTH)
    for reranker in rerankers:
        reranker.rerank(query, test.documents[:1])


def _first_stages(
    query: str, asked: NDArray[np.float32], vectors: NDArray[np.float32], *, embedder: Llama, bm25: Bm25
) -> dict[System, _Answer]:
    started = time.perf_counter()
    embedder.embed(query, prefix=embedder.query_prefix)
    cosines = cosine(asked, vectors)
    by_cosine = top_k(cosines, DEPTH).tolist()
    embedded = time.perf_counter()
    hits = bm25.search(query, k=LEXICAL_DEPTH)
    searched = time.perf_counter()
    answers = {
        EMBEDDER: _Answer(by_cosine, 1000 * (embedded - started), scores=cosines[by_cosine]),
        LEXICAL: _Answer([hit.position for hit in hits[:DEPTH]], 1000 * (searched - embedded)),
    }
    for by, system in FUSIONS.items():
        before = time.perf_counter()
        fused = [one.position for one in fuse(cosines, hits, k=DEPTH, by=by)]
        answers[system] = _Answer(fused, 1000 * (searched - started + time.perf_counter() - before))
    return answers


def _rerank(
    query: str, first: _Answer, documents: Sequence[str], reranker: Llama, *, depths: Sequence[int]
) -> dict[int, _Answer]:
    """For each depth the reranked list; what lies deeper stays below in its order.

    Depths beyond the documents are one: all of them. Every pair is scored once: the first 10, then the
    next ten, and so on; a depth costs the sum so far.
    """
    answers: dict[int, _Answer] = {}
    logits = np.empty(0, np.float32)
    milliseconds = 0.0
    for depth in sorted({min(depth, len(documents)) for depth in depths}):
        more = first.ranking[len(logits) : depth]
        started = time.perf_counter()
        logits = np.concatenate([logits, reranker.rerank(query, [documents[i] for i in more])])
        weight = reranker.blend
        scores = blend(logits, first.scores[: len(logits)], weight=weight) if weight else logits
        order = [first.ranking[i] for i in best_first(scores).tolist()]
        milliseconds += 1000 * (time.perf_counter() - started)
        answers[depth] = _Answer([*order, *first.ranking[len(order) :]], first.retrieve_ms, milliseconds)
    return answers


def _run(system: System, answers: Sequence[_Answer]) -> Run:
    return Run(
        system,
        rankings=[answer.ranking for answer in answers],
        retrieve_ms=np.array([answer.retrieve_ms for answer in answers]),
        rerank_ms=np.array([answer.rerank_ms for answer in answers]),
    )
