"""`ggrank.compat.Reranker` beside the classes of the ``rerankers`` package, which need no torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rerankers")

import rerankers
from rerankers.models.ranker import BaseRanker
from rerankers.results import RankedResults as TheirResults
from rerankers.results import Result as TheirResult

from ggrank.compat import Document, RankedResults, Reranker, Result

pytestmark = pytest.mark.integration

QUERY = "What is the capital of France?"
TEXTS = ["Berlin is in Germany.", "Paris is the capital of France.", "Bananas are yellow."]
IDS = ["berlin", "paris", "bananas"]


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    reranker = Reranker("ggrank-reranker-mini", verbose=0)
    yield reranker
    reranker.llama.close()


@pytest.fixture(scope="module")
def ours(reranker: Reranker) -> RankedResults:
    return reranker.rank(QUERY, TEXTS, doc_ids=IDS, metadata=[{"page": i} for i in range(3)])


@pytest.fixture(scope="module")
def theirs(ours: RankedResults) -> TheirResults:
    """Their classes around our scores."""
    results = [
        TheirResult(
            document=rerankers.Document(result.text, result.doc_id, result.metadata),
            score=result.score,
            rank=result.rank,
        )
        for result in ours
    ]
    return TheirResults(results=results, query=QUERY, has_scores=True)


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_results_have_every_method_and_attribute_of_theirs(ours: RankedResults, theirs: TheirResults) -> None:
    assert public(theirs) <= public(ours)
    assert public(theirs[0]) <= public(ours[0])
    images = {"attributes", "base64", "image_path"}  # of documents that are pictures
    assert public(theirs[0].document) - images <= public(ours[0].document)


def seen(result: Any) -> tuple[Any, ...]:
    return result.score, result.rank, result.text, result.doc_id, result.metadata, result.page


def test_every_method_gives_what_theirs_gives(ours: RankedResults, theirs: TheirResults) -> None:
    assert [seen(result) for result in ours] == [seen(result) for result in theirs]
    assert seen(ours[-1]) == seen(theirs[-1])
    assert [seen(result) for result in ours[:2]] == [seen(result) for result in theirs[:2]]
    assert ours.results_count() == theirs.results_count()
    assert (ours.query, ours.has_scores) == (theirs.query, theirs.has_scores)
    for k in (0, 1, 2, 9):
        assert [seen(result) for result in ours.top_k(k)] == [seen(result) for result in theirs.top_k(k)]
    for doc_id in (*IDS, "no such", 0):
        assert ours.get_score_by_docid(doc_id) == theirs.get_score_by_docid(doc_id)
        found, expected = ours.get_result_by_docid(doc_id), theirs.get_result_by_docid(doc_id)
        assert (found is None) == (expected is None)


def test_the_calls_take_the_arguments_of_theirs() -> None:
    for name in ("rank", "rank_async", "score"):
        expected = inspect.signature(getattr(BaseRanker, name)).parameters
        assert list(inspect.signature(getattr(Reranker, name)).parameters)[: len(expected)] == list(expected)
    expected = inspect.signature(rerankers.Reranker).parameters
    for name in ("model_name", "lang", "model_type", "verbose"):
        assert inspect.signature(Reranker).parameters[name].default == expected[name].default


def test_their_documents_may_be_ranked(reranker: Reranker, ours: RankedResults) -> None:
    documents = [
        rerankers.Document(text, doc_id, {"page": page})
        for page, (text, doc_id) in enumerate(zip(TEXTS, IDS, strict=True))
    ]
    found = reranker.rank(QUERY, documents)
    assert [seen(result) for result in found] == [seen(result) for result in ours]
    assert isinstance(found[0], Result)
    assert isinstance(found[0].document, Document)
    assert reranker.rank(QUERY, documents[1])[0].doc_id == "paris"
