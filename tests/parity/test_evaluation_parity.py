"""The embedder's figures beside sentence-transformers with the original model; nDCG beside scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ir_measures")

import make_goldens_bundled
from ggrank import Llama
from ggrank.evaluation import evaluate
from ggrank.evaluation.datasets import Query, TestSet
from ggrank.evaluation.results import measure

pytestmark = pytest.mark.parity

TEXTS = Path(__file__).resolve().parent.parent / "data" / "texts.jsonl"


@pytest.fixture(scope="module")
def halves() -> TestSet:
    """The first half of each text asks for the second, in more than seventy languages."""
    with TEXTS.open("rb") as lines:  # str.splitlines would also part at U+2028, which some texts hold
        texts = [json.loads(line)["text"] for line in lines]
    parted = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in texts if len(text) > 40]
    queries = tuple(Query(str(i), first, {i: 1}) for i, (first, _) in enumerate(parted))
    assert len(queries) > 200
    return TestSet("halves", tuple(second for _, second in parted), queries)


def original_rankings(test: TestSet) -> NDArray[np.int64]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(make_goldens_bundled.original_folder()), device="cpu")
    documents = model.encode(list(test.documents), normalize_embeddings=True)
    queries = model.encode([query.text for query in test.queries], normalize_embeddings=True)
    order: NDArray[np.int64] = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    return order[:, :100]


def test_the_embedder_s_ndcg_is_that_of_sentence_transformers(halves: TestSet) -> None:
    with Llama.load("all-minilm-l6-v2") as embedder:
        ours = next(evaluate([halves], embedder)).system("embedder").metrics
    relevant = [query.relevant for query in halves.queries]
    theirs = measure([row.tolist() for row in original_rankings(halves)], relevant)
    assert ours["nDCG@10"] == pytest.approx(theirs["nDCG@10"].mean(), abs=0.002)


def test_ndcg_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(11)
    grades = rng.integers(0, 4, size=(50, 30))
    grades[:, 0] = 1  # never none
    scores = rng.permuted(np.tile(np.arange(30.0), (50, 1)), axis=1)
    rankings = np.argsort(-scores, axis=1).tolist()
    relevant = [{i: int(grade) for i, grade in enumerate(row) if grade} for row in grades]
    ours = measure(rankings, relevant)["nDCG@10"]
    theirs = [ndcg_score([row], [score], k=10) for row, score in zip(grades, scores, strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-6)
