"""nDCG@10 of the trained students on test sets, beside all-MiniLM and BM25.

    python training/evaluate.py SET_FOLDER... [--embedder work/embedder.pt] [--reranker work/reranker.pt]

With a reranker: its order of the embedder's and of BM25's first 20, by logits alone and blended with the
first stage: z(logit) + w z(first stage).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import beir
import numpy as np
import torch
from backbone import (
    CrossEncoder,
    Embedder,
    compute,
    in_bf16,
    load_tokenizer,
    minilm_folder,
    pair,
    single,
    start_from,
    tokenize,
)
from lexical import Lexical
from numpy.typing import NDArray

DEPTH = 20
BLENDS = (0.5, 1.0)


def measure(test: beir.TestSet, embedder: Embedder, reranker: CrossEncoder | None) -> dict[str, float]:
    """The mean of every order."""
    tokenizer = load_tokenizer()
    documents, queries = tokenize(tokenizer, test.documents), tokenize(tokenizer, test.queries)
    vectors, asked = (
        compute(embedder, [single(ids, limit=512) for ids in part]) for part in (documents, queries)
    )
    lexical = Lexical(test.documents)
    first = {
        "embedder": asked @ vectors.T,
        "bm25": np.stack([lexical.scores(query) for query in test.queries]),
    }
    orders: dict[str, list[NDArray[np.int64]]] = {}
    for name, scores in first.items():
        tops = [np.argsort(-row, kind="stable")[:DEPTH] for row in scores]
        orders[name] = tops
        if reranker is None:
            continue
        pairs = [pair(queries[row], documents[d], limit=512) for row, top in enumerate(tops) for d in top]
        logits = compute(reranker, pairs)[:, 0].reshape(len(tops), -1)
        for w in (0.0, *BLENDS):
            orders[f"{name} reranked, w={w:g}"] = [
                top[np.argsort(-(z(own) + w * z(scores[row][top])), kind="stable")]
                for row, (top, own) in enumerate(zip(tops, logits, strict=True))
            ]
    return {
        name: float(
            np.mean([beir.ndcg10(top, judged) for top, judged in zip(tops, test.relevant, strict=True)])
        )
        for name, tops in orders.items()
    }


def z(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (values - values.mean()) / (values.std() + 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the students on test sets.")
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--embedder", type=Path, help="weights (.pt); else all-MiniLM")
    parser.add_argument("--reranker", type=Path, help="weights (.pt)")
    parser.add_argument("--limit", type=int, help="queries of a set")
    arguments = parser.parse_args()
    embedder, reranker = Embedder().eval(), None
    start_from(embedder, minilm_folder())
    if arguments.embedder:
        embedder.load_state_dict(torch.load(arguments.embedder))
    if arguments.reranker:
        reranker = CrossEncoder().eval()
        reranker.load_state_dict(torch.load(arguments.reranker))
        in_bf16(reranker)
    in_bf16(embedder)
    found = {}
    for folder in arguments.sets:
        test = beir.read(folder, limit=arguments.limit)
        found[test.name] = measure(test, embedder, reranker)
        rounded = {name: round(mean, 4) for name, mean in found[test.name].items()}
        print(json.dumps({"set": test.name, "queries": len(test.queries), **rounded}), flush=True)
    names = next(iter(found.values()))
    means = {name: round(float(np.mean([one[name] for one in found.values()])), 4) for name in names}
    print(json.dumps({"mean": means}))


if __name__ == "__main__":
    main()
