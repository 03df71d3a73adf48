"""What a reranker's order gains, alone and blended with the first stage: mean nDCG@10 of the first 20.

    python training/blend.py SET_FOLDER... [--reranker ggrank-reranker-mini] [--limit 300]

The first stages are the embedder, BM25 and their fusion; the order is logit + w z(first stage), and w=0
the logits alone. A model's weight is in presets.toml (``blend``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import beir
import numpy as np
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.scoring import blend, score_fusion
from ggrank.search import lexical

DEPTH, FUSED = 20, 50
WEIGHTS = (0.0, 0.5, 0.7, 0.9, 1.2, 1.5)

Scores = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a reranker's order, blended and not.")
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--reranker", default="ggrank-reranker-mini")
    parser.add_argument("--limit", type=int, default=300, help="queries of a set")
    arguments = parser.parse_args()
    found: list[dict[str, float]] = []
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load(arguments.reranker) as reranker:
        for folder in arguments.sets:
            test = every(beir.read(folder), n=arguments.limit)
            found.append(measure(test, embedder, reranker))
            print(test.name, len(test.queries), found[-1], flush=True)
    print("mean", {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]})


def every(test: beir.TestSet, *, n: int) -> beir.TestSet:
    """At most ``n`` queries, at equal distances."""
    rows = range(0, len(test.queries), max(1, len(test.queries) // n))[:n]
    queries, relevant = ([group[row] for row in rows] for group in (test.queries, test.relevant))
    return beir.TestSet(test.name, test.documents, queries, relevant)


def measure(test: beir.TestSet, embedder: Llama, reranker: Llama) -> dict[str, float]:
    """nDCG@10 of every first stage, and of its first documents in every order."""
    cosines = embedder.embed_many(test.queries) @ embedder.embed_many(test.documents).T
    bm25, values = lexical.Bm25(test.documents), {}
    for query, row, relevant in zip(test.queries, cosines, test.relevant, strict=True):
        for name, scores in first_stages(row, bm25, query).items():
            top = np.argsort(-scores, kind="stable")[:DEPTH]
            logits = reranker.rerank(query, [test.documents[i] for i in top])
            values.setdefault(name, []).append(beir.ndcg10(top, relevant))
            for weight in WEIGHTS:
                order = top[np.argsort(-blend(logits, scores[top], weight=weight), kind="stable")]
                values.setdefault(f"{name}, w={weight:g}", []).append(beir.ndcg10(order, relevant))
    return {name: round(float(np.mean(given)), 4) for name, given in values.items()}


def first_stages(cosines: Scores, bm25: lexical.Bm25, query: str) -> dict[str, Scores]:
    """The scores of all documents by each first stage."""
    words, fused = np.zeros_like(cosines), np.full_like(cosines, -np.inf)
    for hit in bm25.search(query, k=len(words)):
        words[hit.position] = hit.score
    both = np.union1d(*(np.argsort(-scores, kind="stable")[:FUSED] for scores in (cosines, words)))
    fused[both] = score_fusion(cosines[both], words[both])
    return {"embedder": cosines, "BM25": words, "fusion": fused}


if __name__ == "__main__":
    main()
