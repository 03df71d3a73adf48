"""BM25's weight in the fusion, and its stop words: nDCG@10 on the sets to choose by, and on others.

    python training/fusion.py DATA

``DATA`` holds test sets in BEIR's form, and pairs under ``train/``: of each source 300 queries over the
documents of 2,500. The weight is chosen on the first group alone; docs/evaluation.md has what came out.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import beir
import numpy as np
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.scoring import score_fusion
from ggrank.search import lexical
from ggrank.search import words as word_rules

CHOSEN_ON = ("cisi", "stackfaq", "nq", "medquad", "sections", "covidqa", "scifact_train", "tldr")
REPORTED = ("cranfield", "med", "nq_gold", "xquad_en")
WEIGHTS = (0.0, 0.15, 0.3, 0.4, 0.5, 0.6, 0.7, 1.0)
N_DOCUMENTS, N_QUERIES, DEPTH, SEED = 2500, 300, 50, 3

Candidates = list[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32], dict[int, float]]]
"""Of each query: positions, their cosines and BM25 scores, and what is relevant."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose the fusion's weight.")
    parser.add_argument("data", type=Path)
    data: Path = parser.parse_args().data
    tables: dict[str, dict[str, float]] = {}
    with Llama.load("all-minilm-l6-v2") as embedder:
        for name in (*CHOSEN_ON, *REPORTED):
            test = beir.read(data / name) if (data / name).is_dir() else of_pairs(data, name)
            tables[name] = rows(test, embedder)
            print(name, tables[name], flush=True)
    for names in (CHOSEN_ON, REPORTED):
        means = {
            key: round(float(np.mean([tables[name][key] for name in names])), 4) for key in tables[names[0]]
        }
        print("mean of", ", ".join(names), means)


def rows(test: beir.TestSet, embedder: Llama) -> dict[str, float]:
    """nDCG@10 by each weight, and by 0.5 with stop words in the query."""
    cosines = embedder.embed_many(test.queries) @ embedder.embed_many(test.documents).T
    found = candidates(test, cosines)
    table = {f"{weight:g}": ndcg(found, weight) for weight in WEIGHTS}
    stop_words, word_rules._STOP_WORDS = word_rules._STOP_WORDS, ""
    try:
        return table | {"0.5, all words": ndcg(candidates(test, cosines), 0.5)}
    finally:
        word_rules._STOP_WORDS = stop_words


def candidates(test: beir.TestSet, cosines: NDArray[np.float32]) -> Candidates:
    bm25 = lexical.Bm25(test.documents)
    found: Candidates = []
    for query, row, relevant in zip(test.queries, cosines, test.relevant, strict=True):
        words = np.zeros(len(row), np.float32)
        for hit in bm25.search(query, k=len(row)):
            words[hit.position] = hit.score
        both = np.union1d(*(np.argsort(-scores, kind="stable")[:DEPTH] for scores in (row, words)))
        found.append((both, row[both], words[both], relevant))
    return found


def ndcg(found: Candidates, weight: float) -> float:
    values = []
    for positions, cosines, words, relevant in found:
        order = np.argsort(-score_fusion(cosines, words, weight=weight), kind="stable")
        values.append(beir.ndcg10(positions[order], relevant))
    return round(float(np.mean(values)), 4)


def of_pairs(data: Path, source: str) -> beir.TestSet:
    """Queries of a training source over its own documents."""
    with gzip.open(data / "train" / f"{source}.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    lines = [lines[i] for i in np.random.default_rng(SEED).permutation(len(lines))[:N_DOCUMENTS]]
    documents = list(dict.fromkeys(line["positive"] for line in lines))
    position = {document: i for i, document in enumerate(documents)}
    asked = lines[:N_QUERIES]
    relevant = [{position[line["positive"]]: 1.0} for line in asked]
    return beir.TestSet(source, documents, [line["query"] for line in asked], relevant)


if __name__ == "__main__":
    main()
