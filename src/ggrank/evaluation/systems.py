"""One test set through every system: rankings of all its queries, and how long each query took.

The systems are the embedder (cosine), BM25, their fusions by score and by reciprocal rank, rankings that are
given, and each reranker over the first k of the embedder and of the given ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.evaluation.datasets import GivenRun, Query, TestSet
from ggrank.scoring import best_first, blend, cosine, top_k
from ggrank.search.lexical import Bm25
from ggrank.search.ranking import LEXICAL_DEPTH, fuse
from ggrank.types import Hybrid

DEPTH = 100
"""Documents that a first stage finds; recall@100 needs so many."""

STEP = 256
"""Documents embedded between two movements of the progress bar."""

EMBEDDER = "embedder"
FUSIONS: dict[Hybrid, str] = {"rrf": "RRF", "scores": "fusion"}

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Run:
    """A system's answers to the queries of a set so far: positions of at most `DEPTH` documents, best first.

    Its reranker reads ``depth`` documents, 0 for a first stage; a ranking that was given takes 0 ms.
    """

    system: str
    depth: int = 0
    rankings: list[list[int]] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)

    def add(self, ranking: Sequence[int], ms: float, own: int | None) -> None:
        """The answer to the next query, without the document that is the query itself."""
        self.rankings.append([position for position in ranking if position != own][:DEPTH])
        self.ms.append(ms)


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
    given: Sequence[GivenRun] = (),
    advance: Advance,
) -> list[Run]:
    """Every system over every query, the embedder first; ``advance`` counts the queries.

    The query vectors that rank come from batches, as the documents' do and as sentence-transformers
    computes them; alone, a quantized model moves them by its noise, and a near tie can turn. What a
    query costs is measured on the query alone.
    """
    bm25 = Bm25(test.documents)
    # One short call each, so that the first query's time holds nothing that is done once only.
    warm_up = test.queries[0].text
    embedder.embed(warm_up, prefix=embedder.query_prefix)
    bm25.search(warm_up, k=LEXICAL_DEPTH)
    for reranker in rerankers.values():
        reranker.rerank(warm_up, test.documents[:1])
    queries = embedder.embed_many([query.text for query in test.queries], prefix=embedder.query_prefix)
    runs: dict[str, Run] = {}
    for number, (query, vector) in enumerate(zip(test.queries, queries, strict=True)):
        cosines = cosine(vector, vectors)
        if query.own is not None:
            cosines[query.own] = -np.inf
        first = _first_stages(query, cosines, vectors, embedder=embedder, bm25=bm25)
        first |= {one.name: (one.rankings[number], 0.0) for one in given}
        for name, (ranking, ms) in first.items():
            runs.setdefault(name, Run(name)).add(ranking, ms, query.own)
        for name, reranker in rerankers.items():
            for before in (EMBEDDER, *(one.name for one in given)):
                label = name if before == EMBEDDER else f"{before} + {name}"
                ranking, ms = runs[before].rankings[-1], first[before][1]
                for depth, order, rerank_ms in _rerank(
                    query, ranking, cosines, documents=test.documents, reranker=reranker, depths=depths
                ):
                    system = f"{label}@{depth}"
                    runs.setdefault(system, Run(system, depth)).add(order, ms + rerank_ms, query.own)
        advance(1)
    return list(runs.values())


def _first_stages(
    query: Query, cosines: NDArray[np.float32], vectors: NDArray[np.float32], *, embedder: Llama, bm25: Bm25
) -> dict[str, tuple[Sequence[int], float]]:
    """The ranking of each first stage, and its milliseconds."""
    clock = [time.perf_counter()]
    vector = embedder.embed(query.text, prefix=embedder.query_prefix)
    top_k(cosine(vector, vectors), DEPTH)  # only for the clock: see `run_systems`
    clock.append(time.perf_counter())
    n_hits = LEXICAL_DEPTH + (query.own is not None)
    hits = [hit for hit in bm25.search(query.text, k=n_hits) if hit.position != query.own]
    clock.append(time.perf_counter())
    embedding_ms, words_ms = (1000 * np.diff(clock)).tolist()
    found: dict[str, tuple[Sequence[int], float]] = {
        EMBEDDER: (top_k(cosines, DEPTH).tolist(), embedding_ms),
        "BM25": ([hit.position for hit in hits], words_ms),
    }
    for by, name in FUSIONS.items():
        started = time.perf_counter()
        fused = [one.position for one in fuse(cosines, hits, k=DEPTH, by=by)]
        found[name] = (fused, embedding_ms + words_ms + 1000 * (time.perf_counter() - started))
    return found


def _rerank(
    query: Query,
    ranking: Sequence[int],
    cosines: NDArray[np.float32],
    *,
    documents: Sequence[str],
    reranker: Llama,
    depths: Sequence[int],
) -> Iterator[tuple[int, list[int], float]]:
    """For each depth the reranked list and its milliseconds; what is deeper stays below in its order.

    Depths beyond the documents are one: all of them. Every pair is scored once: the first 10, then the
    next ten, and so on; a depth costs the sum so far.
    """
    logits = np.empty(0, np.float32)
    milliseconds = 0.0
    for depth in sorted({min(depth, len(documents)) for depth in depths}):
        started = time.perf_counter()
        if more := ranking[len(logits) : depth]:
            logits = np.concatenate([logits, reranker.rerank(query.text, [documents[i] for i in more])])
        weight = reranker.blend
        scores = blend(logits, cosines[ranking[:depth]], weight=weight) if weight else logits
        order = [ranking[i] for i in best_first(scores).tolist()]
        milliseconds += 1000 * (time.perf_counter() - started)
        yield depth, [*order, *ranking[len(order) :]], milliseconds
