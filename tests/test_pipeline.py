"""Two stages: what is retrieved, what is reranked, and who may retrieve."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_models
from ggrank import Document, InputError, Llama, ModelModeError, Pipeline
from ggrank.errors import InputTypeError
from ggrank.search.hits import Hit
from ggrank.search.lexical import Bm25

TEXTS = [
    "Water the tomatoes in the morning, at the roots and not on the leaves.",
    "The night train to Vienna leaves at 22:10 from platform 4.",
    "To reset the router, hold the small button for ten seconds.",
    "Our office is closed on public holidays.",
    "Knead the dough until it is smooth, then let it rest for an hour.",
    "Error E4711 means that the pump runs dry.",
]
QUERY = "how do I bake bread?"


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as llama:
        yield llama


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Llama]:
    with Llama.load(tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))) as llama:
        yield llama


@pytest.fixture
def pipeline(embedder: Llama) -> Pipeline:
    pipeline = Pipeline(embedder)
    pipeline.add(TEXTS)
    return pipeline


def test_without_a_reranker_it_is_the_embedder_s_own_ranking(embedder: Llama, pipeline: Pipeline) -> None:
    expected = embedder.rank(QUERY, TEXTS, top_n=3)
    found = pipeline.search(QUERY, top_n=3)
    assert [one.text for one in found] == [one.document for one in expected]
    assert [one.cosine for one in found] == pytest.approx([one.score for one in expected], abs=5e-3)


def test_the_reranker_orders_what_the_embedder_found(embedder: Llama, reranker: Llama) -> None:
    pipeline = Pipeline(embedder, reranker)
    pipeline.add(TEXTS)
    candidates = [one.index for one in embedder.rank(QUERY, TEXTS, top_n=4)]
    logits = reranker.rerank(QUERY, TEXTS)
    found = pipeline.search(QUERY, retrieve_k=4, top_n=3)
    order = sorted(candidates, key=lambda i: -logits[i])[:3]
    assert [one.text for one in found] == [TEXTS[i] for i in order]
    assert [one.logit for one in found] == pytest.approx([logits[i] for i in order], abs=1e-4)
    cosines = embedder.embed_many(TEXTS) @ embedder.embed(QUERY)
    assert [one.cosine for one in found] == pytest.approx([cosines[i] for i in order], abs=5e-3)


def test_top_n_above_retrieve_k_retrieves_that_many(pipeline: Pipeline) -> None:
    assert len(pipeline.search(QUERY, retrieve_k=1, top_n=4)) == 4


def test_ids_and_metadata_come_back(embedder: Llama) -> None:
    pipeline = Pipeline(embedder)
    pipeline.add(TEXTS[:2], ids=["tomatoes", 7], metadata=[{"page": 3}, None])
    pipeline.add([Document(TEXTS[4], id="dough", metadata={"page": 9})])
    best, *_ = pipeline.search(QUERY)
    assert (best.id, best.metadata) == ("dough", {"page": 9})
    by_id = {one.id: one.metadata for one in pipeline.search("tomatoes")}
    assert by_id == {"tomatoes": {"page": 3}, 7: {}, "dough": {"page": 9}}


def test_prefixes_of_the_model_are_set_before_texts() -> None:
    with Llama.load("all-minilm-l6-v2", query_prefix="railway: ", document_prefix="garden: ") as llama:
        pipeline = Pipeline(llama)
        pipeline.add(TEXTS)
        expected = llama.rank(QUERY, TEXTS, top_n=3)
        plain = llama.embed_many(TEXTS) @ llama.embed(QUERY)
        found = pipeline.search(QUERY, top_n=3)
    assert [one.cosine for one in found] == pytest.approx([one.score for one in expected], abs=5e-3)
    assert abs((found[0].cosine or 9) - plain[TEXTS.index(found[0].text)]) > 0.02


def test_fused_scores_are_those_of_the_paper_s_formula(pipeline: Pipeline) -> None:
    query = "leaves of the smooth dough"
    ranking = pipeline.search(query, by="both", top_n=10)
    words = {TEXTS[hit.position]: hit.score for hit in Bm25(TEXTS).search(query, k=len(TEXTS))}
    cosines = np.array([found.cosine for found in ranking])
    lexical = np.array([words.get(found.text, 0.0) for found in ranking])
    expected = sum(
        weight * (values - values.mean()) / values.std() for weight, values in ((1, cosines), (0.5, lexical))
    )
    found = [one.explanation.first_stage for one in ranking]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert list(expected) == sorted(expected, reverse=True)


@pytest.mark.parametrize("by", ["score", 1, None])
def test_a_kind_of_search_that_is_none_is_refused(pipeline: Pipeline, by: Any) -> None:
    with pytest.raises(InputError, match="by must be one of both, meaning, words"):
        pipeline.search(QUERY, by=by)


def test_documents_that_are_added_later_are_found_by_both_rankings(embedder: Llama) -> None:
    pipeline = Pipeline(embedder)
    assert pipeline.search(QUERY, by="both") == []
    for text in TEXTS:
        pipeline.add([text])
        assert pipeline.search(text, by="both")[0].text == text
    assert len(pipeline) == len(TEXTS)


def test_a_long_document_is_found_by_its_end(embedder: Llama) -> None:
    pipeline = Pipeline(embedder)
    pipeline.add([f"{'Nothing of interest here. ' * 200} {TEXTS[4]}", *TEXTS[:4]], ids=range(5))
    best = pipeline.search(QUERY)[0]
    assert best.id == 0
    assert best.text.endswith(TEXTS[4])


@dataclass
class FromLangChain:
    """What LangChain's retrievers give: `page_content` and `metadata`."""

    page_content: str
    metadata: dict[str, int]


def test_any_function_that_retrieves_can_take_the_first_place(reranker: Llama) -> None:
    def retrieve(query: str, k: int) -> list[Document]:
        found = [FromLangChain(text, {"line": i}) for i, text in enumerate(TEXTS)]
        return [Document(one.page_content, metadata=one.metadata) for one in found]

    logits = reranker.rerank(QUERY, TEXTS[:4]).tolist()
    found = Pipeline(retrieve, reranker).search(QUERY, retrieve_k=4, top_n=2)
    assert [one.metadata for one in found] == [{"line": i} for i in np.argsort(logits)[::-1][:2].tolist()]
    assert [one.cosine for one in found] == [None, None]


def test_a_retriever_object_may_give_strings_and_its_order_stays_without_a_reranker() -> None:
    class Shelf:
        def retrieve(self, query: str, k: int) -> list[str]:
            return TEXTS[:k]

    found = Pipeline(Shelf()).search("anything", top_n=3)
    assert [one.text for one in found] == TEXTS[:3]


def test_a_pipeline_can_be_another_s_retriever(pipeline: Pipeline, reranker: Llama) -> None:
    outer = Pipeline(lambda query, k: pipeline.search(query, top_n=k), reranker)
    found = outer.search(QUERY, retrieve_k=3, top_n=3)
    assert {one.text for one in found} == {one.text for one in pipeline.search(QUERY, top_n=3)}
    assert all(one.logit is not None and one.cosine is not None for one in found)


@pytest.mark.parametrize("given", ["a text", None, 3, {"text"}, [1], [None]])
def test_a_retriever_that_gives_something_else_is_told_so(given: object) -> None:
    with pytest.raises(InputTypeError, match="retriever"):
        Pipeline(lambda query, k: given).search("query")  # type: ignore[arg-type,return-value]


def test_a_retriever_whose_document_is_none_is_told_what_one_is() -> None:
    with pytest.raises(
        InputTypeError, match=r"document 0 must be a string or a ggrank\.Document, found dict"
    ):
        Pipeline(lambda query, k: [{"text": "a"}]).search("query")  # type: ignore[list-item,return-value]
    with pytest.raises(InputTypeError, match="the text of the retriever's document 0 must be a string"):
        Pipeline(lambda query, k: [Document(3)]).search("query")  # type: ignore[arg-type]


def test_the_wrong_model_in_a_place_is_refused(embedder: Llama, reranker: Llama) -> None:
    with pytest.raises(ModelModeError, match=r"must be an embedding model, .* is a reranker"):
        Pipeline(reranker)
    with pytest.raises(ModelModeError, match="cross-encoder"):
        Pipeline(embedder, embedder)
    with pytest.raises(InputTypeError, match="found str"):
        Pipeline("all-minilm-l6-v2")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match=r"reranker must be a loaded model, found 'mini': .*Llama\.load"):
        Pipeline(embedder, "mini")  # type: ignore[arg-type]


def test_an_id_takes_the_place_of_the_document_that_had_it_but_stands_once_in_a_call(
    pipeline: Pipeline,
) -> None:
    pipeline.add(["one"], ids=["a"])
    with pytest.raises(InputError, match="stands twice"):
        pipeline.add(["two", "three"], ids=["c", "c"])
    with pytest.raises(InputTypeError, match="must be a string or a number"):
        pipeline.add(["two"], ids=[(1,)])  # type: ignore[list-item]
    with pytest.raises(InputTypeError, match="JSON"):
        pipeline.add(["two"], metadata=[{(1, 2): 3}])  # type: ignore[dict-item]
    assert len(pipeline) == len(TEXTS) + 1
    pipeline.add(["two", "three"], ids=["a", "b"])
    assert len(pipeline) == len(TEXTS) + 2


@pytest.mark.parametrize("documents", ["one text", Document("one")])
def test_one_document_instead_of_a_list_is_refused(pipeline: Pipeline, documents: object) -> None:
    with pytest.raises(InputTypeError, match="in a list"):
        pipeline.add(documents)  # type: ignore[arg-type]


def test_a_wrong_document_is_named_and_nothing_is_added(pipeline: Pipeline) -> None:
    with pytest.raises(InputTypeError, match="document 1 must be a string"):
        pipeline.add(["fine", 3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="ids must be as many as documents: 2, found 1"):
        pipeline.add(["a", "b"], ids=["x"])
    with pytest.raises(InputError, match="metadata must be as many"):
        pipeline.add(["a", "b"], metadata=[{}, {}, {}])
    assert len(pipeline) == len(TEXTS)


def test_documents_of_another_retriever_are_not_added_here() -> None:
    with pytest.raises(InputError, match="retriever's"):
        Pipeline(lambda query, k: TEXTS).add(["a"])
    with pytest.raises(InputError, match="let the retriever fuse"):
        Pipeline(lambda query, k: TEXTS).search("a", by="both")


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None])
def test_numbers_below_one_are_refused(pipeline: Pipeline, number: object) -> None:
    with pytest.raises(InputError, match="retrieve_k must be"):
        pipeline.search(QUERY, retrieve_k=number)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="top_n must be"):
        pipeline.search(QUERY, top_n=number)  # type: ignore[arg-type]


def test_threads_may_add_and_search_at_once(embedder: Llama) -> None:
    pipeline = Pipeline(embedder)
    wrong: list[Hit] = []

    def work(name: int) -> None:
        for i in range(12):
            text = f"{TEXTS[i % 6]} {name}-{i}"
            pipeline.add([text], ids=[f"{name}-{i}"])
            hits = pipeline.search(text, by="both" if i % 2 else "meaning", top_n=3)
            wrong.extend(one for one in hits if one.text.rsplit(" ", 1)[1] != one.id)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pipeline) == 48
    assert wrong == []
    assert sorted(str(one.id) for one in pipeline.search("router", top_n=48)) == sorted(
        f"{name}-{i}" for name in range(4) for i in range(12)
    )


def test_the_bundled_reranker_s_order_is_blended_with_the_first_stage() -> None:
    texts = [
        "Bread goes stale.",
        "Llamas live in Peru.",
        "Peru exports bread.",
        "Lima is in Peru.",
        "Cats sleep.",
    ]
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load("ggrank-reranker-mini") as reranker:
        pipeline = Pipeline(embedder, reranker)
        pipeline.add(texts)
        hits = pipeline.search("Where do llamas live?", top_n=5)
        cosines = np.float32([hit.cosine for hit in sorted(hits, key=lambda hit: texts.index(hit.text))])
        logits = reranker.rerank("Where do llamas live?", texts)
    assert reranker.blend == 0.9
    order = [texts.index(hit.text) for hit in hits]
    assert order == np.argsort(-(logits + 0.9 * (cosines - cosines.mean()) / cosines.std())).tolist()
    assert [hit.logit for hit in hits] == pytest.approx([logits[i] for i in order], abs=0.05)


def test_a_reranker_of_unknown_worth_orders_alone(tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path)
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load(path) as reranker:
        pipeline = Pipeline(embedder, reranker)
        pipeline.add(["bread", "llamas", "peru"])
        logits = [hit.logit for hit in pipeline.search("llamas")]
    assert reranker.blend == 0.0
    assert logits == sorted(logits, reverse=True)  # type: ignore[type-var]
