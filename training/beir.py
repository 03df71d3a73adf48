"""Test sets in BEIR's form, their first-stage rankings, and nDCG@10 of a reranking.

Knows files, metrics and the bootstrap; models come as vectors and scores.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TestSet:
    """A corpus, queries with judged documents, and the judgements by position."""

    name: str
    documents: list[str]
    queries: list[str]
    relevant: list[dict[int, float]]


def lines(path: Path) -> list[dict[str, str]]:
    """The objects of a gzip JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read(folder: Path, *, limit: int | None = None, seed: int = 0) -> TestSet:
    """A BEIR folder; ``limit`` takes a fixed sample of the queries."""
    corpus = lines(folder / "corpus.jsonl.gz")
    place = {row["_id"]: position for position, row in enumerate(corpus)}
    judged: dict[str, dict[int, float]] = {}
    for line in (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, document, label = line.split("\t")
        if float(label) > 0 and document in place:
            judged.setdefault(query, {})[place[document]] = float(label)
    queries = [row for row in lines(folder / "queries.jsonl.gz") if row["_id"] in judged]
    if limit and limit < len(queries):
        chosen = np.sort(np.random.default_rng(seed).permutation(len(queries))[:limit])
        queries = [queries[position] for position in chosen]
    return TestSet(
        name=folder.name,
        documents=[f"{row.get('title', '')} {row['text']}".strip() for row in corpus],
        queries=[row["text"] for row in queries],
        relevant=[judged[row["_id"]] for row in queries],
    )


def ndcg10(ranking: NDArray[np.int64], relevant: dict[int, float]) -> float:
    """nDCG@10 with linear gains, as trec_eval computes it."""
    discounts = 1 / np.log2(np.arange(2, 12))
    gains = np.array([relevant.get(int(position), 0.0) for position in ranking[:10]])
    best = np.sort(np.fromiter(relevant.values(), float))[::-1][:10]
    return float((gains * discounts[: len(gains)]).sum() / (best * discounts[: len(best)]).sum())
