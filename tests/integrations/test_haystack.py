"""The Haystack adapter, in running pipelines: Haystack 3, and 2 where that is installed."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
from pathlib import Path

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported
pytest.importorskip("haystack")

import haystack.version
from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from frameworks import QUERY, TEXTS
from ggrank import InputError, Llama
from ggrank.errors import ModelModeError
from ggrank.integrations.haystack import GgrankDocumentEmbedder, GgrankRanker, GgrankTextEmbedder

pytestmark = pytest.mark.integration

MODULE = "ggrank.integrations.haystack"


@pytest.fixture
def documents() -> list[Document]:
    return [Document(id=str(i), content=text, meta={"n": i}) for i, text in enumerate(TEXTS)]


def loads(text: str) -> Pipeline:
    """A saved pipeline. Haystack 3 loads only classes of modules that it is told to trust."""
    if haystack.version.__version__.startswith("2."):
        return Pipeline.loads(text)
    return Pipeline.loads(text, allowed_modules=[MODULE])


def search_pipeline(store: InMemoryDocumentStore) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", GgrankTextEmbedder())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=4))
    pipeline.add_component("ranker", GgrankRanker(top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")
    return pipeline


def test_a_pipeline_indexes_retrieves_and_reranks_as_rank_does(
    documents: list[Document], reranker: Llama
) -> None:
    store = InMemoryDocumentStore()
    indexing = Pipeline()
    indexing.add_component("embedder", GgrankDocumentEmbedder())
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("embedder.documents", "writer.documents")
    indexing.run({"embedder": {"documents": documents}})
    inputs = {"embedder": {"text": QUERY}, "ranker": {"query": QUERY}}
    result = search_pipeline(store).run(inputs, include_outputs_from={"retriever"})
    found = [document.content for document in result["retriever"]["documents"]]
    expected = reranker.rank(QUERY, found, top_n=2, score="sigmoid")
    ranked = [(document.content, document.score) for document in result["ranker"]["documents"]]
    assert ranked == [(hit.document, hit.score) for hit in expected]
    assert ranked[0][0] == TEXTS[1]


def test_a_saved_pipeline_is_the_same_pipeline(documents: list[Document]) -> None:
    pipeline = Pipeline()
    options = {"top_k": 3, "scale_score": False, "meta_fields_to_embed": ["n"], "model_kwargs": {"n_ctx": 64}}
    pipeline.add_component("ranker", GgrankRanker(**options))
    pipeline.add_component(
        "documents", GgrankDocumentEmbedder(meta_fields_to_embed=["n"], embedding_separator=": ")
    )
    pipeline.add_component("text", GgrankTextEmbedder(model=Path("a/model.gguf")))
    loaded = loads(pipeline.dumps())
    assert loaded == pipeline
    assert loaded.dumps() == pipeline.dumps()
    assert loaded.get_component("ranker").model_kwargs == {"n_ctx": 64}
    ranker, other = pipeline.get_component("ranker"), loaded.get_component("ranker")
    assert ranker.run(query=QUERY, documents=documents) == other.run(query=QUERY, documents=documents)


def test_an_asynchronous_pipeline_gives_the_same(documents: list[Document], reranker: Llama) -> None:
    kind = Pipeline if hasattr(Pipeline, "run_async") else haystack.AsyncPipeline
    store = InMemoryDocumentStore()
    store.write_documents(documents)
    pipeline = kind()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("ranker", GgrankRanker(model=reranker))
    pipeline.connect("retriever.documents", "ranker.documents")
    inputs = {"retriever": {"query": QUERY}, "ranker": {"query": QUERY}}
    assert asyncio.run(pipeline.run_async(inputs)) == pipeline.run(inputs)


def test_the_model_is_loaded_when_a_pipeline_warms_up_and_not_before() -> None:
    pipeline = Pipeline()
    pipeline.add_component("ranker", GgrankRanker(model="no/such/file.gguf"))
    with pytest.raises(FileNotFoundError):
        pipeline.warm_up()


def test_top_k_of_a_run_goes_before_the_component_s(documents: list[Document], reranker: Llama) -> None:
    ranker = GgrankRanker(model=reranker, top_k=2)
    assert len(ranker.run(query=QUERY, documents=documents)["documents"]) == 2
    assert len(ranker.run(query=QUERY, documents=documents, top_k=5)["documents"]) == 5
    with pytest.raises(ValueError, match="found 0"):
        ranker.run(query=QUERY, documents=documents, top_k=0)


def test_unscaled_scores_are_the_logits_and_the_documents_that_were_given_stay_as_they_are(
    documents: list[Document], reranker: Llama
) -> None:
    before = copy.deepcopy(documents)
    ranked = GgrankRanker(model=reranker, scale_score=False).run(query=QUERY, documents=documents)[
        "documents"
    ]
    logits = reranker.rerank(QUERY, TEXTS)
    assert {document.id: document.score for document in ranked} == {
        str(i): float(logit) for i, logit in enumerate(logits)
    }
    assert documents == before
    assert all(document.score is None for document in documents)


def test_documents_below_the_threshold_are_left_out(documents: list[Document], reranker: Llama) -> None:
    ranked = GgrankRanker(model=reranker, score_threshold=0.5).run(query=QUERY, documents=documents)[
        "documents"
    ]
    above = [str(hit.index) for hit in reranker.rank(QUERY, TEXTS, threshold=0.0)]
    assert [document.id for document in ranked] == above
    assert 0 < len(above) < len(TEXTS)


def test_of_documents_with_one_id_one_is_ranked(documents: list[Document], reranker: Llama) -> None:
    ranked = GgrankRanker(model=reranker).run(query=QUERY, documents=documents + documents)["documents"]
    assert len(ranked) == len(documents)


def test_no_documents_give_no_documents(embedder: Llama, reranker: Llama) -> None:
    assert GgrankRanker(model=reranker).run(query=QUERY, documents=[]) == {"documents": []}
    assert GgrankDocumentEmbedder(model=embedder).run(documents=[]) == {"documents": []}


def test_meta_fields_are_embedded_as_haystack_s_own_embedders_do(embedder: Llama) -> None:
    mock = pytest.importorskip("haystack.components.embedders.mock_document_embedder")
    documents = [
        Document(content="Rice.", meta={"title": "Food", "page": 0, "empty": "", "none": None}),
        Document(content=None, meta={"page": 2}),
    ]
    seen: list[str] = []

    def remember(text: str) -> list[float]:
        seen.append(text)
        return [1.0]

    options = {
        "meta_fields_to_embed": ["page", "title", "none", "empty", "absent"],
        "embedding_separator": " | ",
    }
    mock.MockDocumentEmbedder(embedding_fn=remember, **options).run(documents=documents)
    embedded = GgrankDocumentEmbedder(model=embedder, **options).run(documents=documents)["documents"]
    assert [document.embedding for document in embedded] == embedder.embed_many(
        seen, prefix="passage: "
    ).tolist()
    assert all(document.embedding is None for document in documents)


def test_meta_fields_are_ranked_with_the_content(reranker: Llama) -> None:
    documents = [Document(content="Three days.", meta={"title": title}) for title in ("Paint", "Cooked rice")]
    ranker = GgrankRanker(model=reranker, meta_fields_to_embed=["title"], scale_score=False)
    ranked = ranker.run(query=QUERY, documents=documents)["documents"]
    expected = reranker.rank(QUERY, ["Paint\nThree days.", "Cooked rice\nThree days."])
    assert [document.score for document in ranked] == [hit.score for hit in expected]
    assert ranked[0].meta == {"title": "Cooked rice"}


def test_a_query_s_vector_has_the_model_s_query_prefix(embedder: Llama) -> None:
    vector = embedder.embed(QUERY, prefix="query: ").tolist()
    assert GgrankTextEmbedder(model=embedder).run(text=QUERY) == {"embedding": vector}


def test_an_embedding_model_ranks_by_cosine_when_scores_are_not_scaled(
    documents: list[Document], embedder: Llama
) -> None:
    ranker = GgrankRanker(model=embedder, scale_score=False)
    best = ranker.run(query=QUERY, documents=documents)["documents"][0]
    assert best.score == embedder.rank(QUERY, TEXTS)[0].score
    with pytest.raises(ModelModeError, match="sigmoid"):
        GgrankRanker(model=embedder).run(query=QUERY, documents=documents)


def test_a_loaded_model_is_shared_by_copies_and_cannot_be_saved(reranker: Llama) -> None:
    ranker = GgrankRanker(model=reranker)
    copy.deepcopy(ranker).warm_up()
    with pytest.raises(InputError, match="name or path, and options as model_kwargs"):
        ranker.to_dict()


def test_a_component_can_be_pickled(documents: list[Document]) -> None:
    ranker = GgrankRanker(top_k=1)
    other = pickle.loads(pickle.dumps(ranker))
    assert other.run(query=QUERY, documents=documents) == ranker.run(query=QUERY, documents=documents)
