"""The LangChain adapter, inside LangChain's own retrievers and vector stores."""

from __future__ import annotations

import asyncio
import copy
import doctest
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_classic")

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import CrossEncoderReranker, DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from frameworks import QUERY, TEXTS
from ggrank import InputError, Llama
from ggrank.integrations import langchain
from ggrank.integrations.langchain import GgrankCrossEncoder, GgrankEmbeddings, GgrankReranker

pytestmark = pytest.mark.integration


@pytest.fixture
def documents() -> list[Document]:
    return [Document(text, id=str(i), metadata={"n": i}) for i, text in enumerate(TEXTS)]


def in_memory(embeddings: GgrankEmbeddings) -> VectorStore:
    return InMemoryVectorStore(embeddings)


def in_chroma(embeddings: GgrankEmbeddings) -> VectorStore:
    chroma = pytest.importorskip("langchain_chroma")
    chromadb = pytest.importorskip("chromadb")
    settings = chromadb.Settings(anonymized_telemetry=False)
    client = chromadb.EphemeralClient(settings=settings)
    store: VectorStore = chroma.Chroma("rice", embeddings, client=client)
    return store


@pytest.mark.parametrize("new_store", [in_memory, in_chroma])
def test_a_compression_retriever_over_a_vector_store_gives_the_order_and_scores_of_rank(
    new_store, documents: list[Document], embedder: Llama, reranker: Llama
) -> None:
    store = new_store(GgrankEmbeddings(embedder))
    store.add_documents(documents)
    retriever = store.as_retriever(search_kwargs={"k": 4})
    found = [document.page_content for document in retriever.invoke(QUERY)]
    compressor = GgrankReranker(model=reranker, top_n=2)
    both = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=retriever)
    expected = [(hit.document, hit.score) for hit in reranker.rank(QUERY, found, top_n=2)]
    for hits in (both.invoke(QUERY), asyncio.run(both.ainvoke(QUERY)), both.batch([QUERY])[0]):
        assert [(hit.page_content, hit.metadata["rerank_score"]) for hit in hits] == expected
    assert expected[0][0] == TEXTS[1]


def test_embeddings_are_those_of_the_model_with_its_prefixes(embedder: Llama) -> None:
    embeddings = GgrankEmbeddings(embedder)
    vectors = embedder.embed_many(TEXTS, prefix="passage: ").tolist()
    query = embedder.embed(QUERY, prefix="query: ").tolist()
    assert embeddings.embed_documents(TEXTS) == vectors
    assert asyncio.run(embeddings.aembed_documents(TEXTS)) == vectors
    assert embeddings.embed_query(QUERY) == query
    assert asyncio.run(embeddings.aembed_query(QUERY)) == query
    assert embeddings.embed_documents([]) == []


def test_scores_are_unrounded_floats_and_the_documents_that_were_given_stay_as_they_are(
    documents: list[Document], reranker: Llama
) -> None:
    before = copy.deepcopy(documents)
    best = GgrankReranker(model=reranker, top_n=1).compress_documents(documents, QUERY)[0]
    assert documents == before
    assert type(best.metadata["rerank_score"]) is float
    assert best.metadata == {"n": 1, "rerank_score": float(reranker.rerank(QUERY, TEXTS)[1])}
    assert best.id == "1"


def test_a_threshold_is_on_the_scale_of_the_score(documents: list[Document], reranker: Llama) -> None:
    half = GgrankReranker(model=reranker, top_n=None, score="sigmoid", score_threshold=0.5)
    above = [hit.index for hit in reranker.rank(QUERY, TEXTS, threshold=0.0)]
    assert [document.metadata["n"] for document in half.compress_documents(documents, QUERY)] == above
    assert 0 < len(above) < len(TEXTS)


def test_equal_scores_keep_the_order_of_the_documents(reranker: Llama) -> None:
    same = [Document("Llamas live in Peru.", metadata={"n": n}) for n in range(5)]
    hits = GgrankReranker(model=reranker, top_n=None).compress_documents(same, "Where do llamas live?")
    assert [hit.metadata["n"] for hit in hits] == [0, 1, 2, 3, 4]


def test_no_documents_give_no_documents(reranker: Llama) -> None:
    assert GgrankReranker(model=reranker).compress_documents([], QUERY) == []


def test_the_cross_encoder_works_inside_langchain_s_own_reranker(
    documents: list[Document], reranker: Llama
) -> None:
    encoder = GgrankCrossEncoder(reranker)
    pairs = [(QUERY, text) for text in TEXTS]
    assert encoder.score(pairs) == reranker.score_pairs(pairs).tolist()
    theirs = CrossEncoderReranker(model=encoder, top_n=3).compress_documents(documents, QUERY)
    ours = GgrankReranker(model=reranker, top_n=3).compress_documents(documents, QUERY)
    assert [each.id for each in theirs] == [each.id for each in ours]


def test_one_compressor_s_documents_go_into_the_next(
    documents: list[Document], embedder: Llama, reranker: Llama
) -> None:
    first, second = GgrankReranker(model=embedder, top_n=3), GgrankReranker(model=reranker, top_n=1)
    chain = DocumentCompressorPipeline(transformers=[first, second])
    assert [hit.id for hit in chain.compress_documents(documents, QUERY)] == ["1"]


def test_a_pickle_of_what_was_given_by_name_scores_alike(documents: list[Document]) -> None:
    compressor = GgrankReranker(model="ggrank-reranker-mini", model_kwargs={"n_ctx": 64}, top_n=2)
    other = pickle.loads(pickle.dumps(compressor))
    assert other.compress_documents(documents, QUERY) == compressor.compress_documents(documents, QUERY)
    embeddings = GgrankEmbeddings()
    assert pickle.loads(pickle.dumps(embeddings)).embed_query(QUERY) == embeddings.embed_query(QUERY)


def test_a_deep_copy_shares_the_loaded_model(documents: list[Document], reranker: Llama) -> None:
    compressor = GgrankReranker(model=reranker)
    other = copy.deepcopy(compressor)
    reranked = other.compress_documents(documents, QUERY)
    assert reranked == compressor.compress_documents(documents, QUERY)


def test_threads_get_the_same_scores_as_one(documents: list[Document], reranker: Llama) -> None:
    compressor = GgrankReranker(model=reranker)
    with ThreadPoolExecutor(4) as pool:
        all_hits = list(pool.map(lambda _: compressor.compress_documents(documents, QUERY), range(8)))
    assert all(hits == all_hits[0] for hits in all_hits)


def test_an_embedding_model_ranks_by_cosine(documents: list[Document], embedder: Llama) -> None:
    best = GgrankReranker(model=embedder, top_n=1).compress_documents(documents, QUERY)[0]
    assert best.metadata["rerank_score"] == embedder.rank(QUERY, TEXTS)[0].score


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k"):
        GgrankReranker(top_k=3)
    with pytest.raises(InputError, match="top_n must be a whole number"):
        GgrankReranker(top_n=0).compress_documents([Document("a")], QUERY)


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(langchain)
    assert results.failed == 0 < results.attempted
