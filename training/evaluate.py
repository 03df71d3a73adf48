"""nDCG@10 of embedder, BM25, fusion and a trained cross-encoder over the embedder's first 20 and 100.

python training/evaluate.py work/model.pt SET_FOLDER... [--limit 100] [--depth 20 100]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import beir
import numpy as np
import torch
from backbone import Bert, CrossEncoder, embed, load_tokenizer, pair, score, tokenize
from lexical import Lexical


def rank_scores(test: beir.TestSet, model: CrossEncoder, depths: list[int]) -> dict[str, list[float]]:
    """nDCG@10 of every query, by system."""
    tokenizer, bert = load_tokenizer(), Bert().bfloat16().eval()
    documents, queries = tokenize(tokenizer, test.documents), tokenize(tokenizer, test.queries)
    vectors, asked, lexical = embed(bert, documents), embed(bert, queries), Lexical(test.documents)
    cosines = asked @ vectors.T
    tops = [np.argsort(-row, kind="stable")[: max(depths)] for row in cosines]
    pairs = [pair(queries[row], documents[d], limit=512) for row, top in enumerate(tops) for d in top]
    logits = iter(np.split(score(model, pairs), np.cumsum([len(top) for top in tops])[:-1]))
    result: dict[str, list[float]] = {}
    for row, (top, own) in enumerate(zip(tops, logits, strict=True)):
        words = lexical.scores(test.queries[row])
        both = np.union1d(top[:50], np.argsort(-words, kind="stable")[:50])
        fused = z(cosines[row][both]) + 0.5 * z(words[both])
        rankings = {
            "embedder": top,
            "bm25": np.argsort(-words, kind="stable")[:10],
            "fusion": both[np.argsort(-fused, kind="stable")],
        }
        for depth in depths:
            order = np.argsort(-own[:depth], kind="stable")
            rankings[f"reranker@{depth}"] = top[order]
            mixed = z(own[:depth]) + z(cosines[row][top[:depth]]) + 0.5 * z(words[top[:depth]])
            rankings[f"+fusion@{depth}"] = top[np.argsort(-mixed, kind="stable")]
        for name, ranking in rankings.items():
            result.setdefault(name, []).append(beir.ndcg10(ranking, test.relevant[row]))
    return result


def z(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / (values.std() + 1e-6)


def main() -> None:
    parser = argparse.ArgumentParser(description="Rerank test sets.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--depth", type=int, nargs="+", default=[20])
    parser.add_argument("--layers", type=int, default=6)
    arguments = parser.parse_args()
    model = CrossEncoder(layers=arguments.layers).eval()
    model.load_state_dict(torch.load(arguments.weights))
    lifts: dict[str, list[float]] = {}
    for folder in arguments.sets:
        test = beir.read(folder, limit=arguments.limit)
        means = {name: float(np.mean(v)) for name, v in rank_scores(test, model, arguments.depth).items()}
        for name, mean in means.items():
            lifts.setdefault(name, []).append(mean - means["embedder"])
        rounded = {name: round(mean, 4) for name, mean in means.items()}
        print(json.dumps({"set": test.name, "queries": len(test.queries), **rounded}), flush=True)
    print(json.dumps({"mean lift": {name: round(float(np.mean(v)), 4) for name, v in lifts.items()}}))


if __name__ == "__main__":
    main()
