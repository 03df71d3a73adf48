"""Frameworks' own clients of other services against this server; only the address is another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

pytestmark = pytest.mark.integration

TEXTS = ["Llamas live in the Andes.", "Paris is a city in France.", "Bread needs yeast."]
QUERY = "where do llamas live?"


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with running(service) as client:
        yield str(client.base_url).rstrip("/")


@pytest.fixture(scope="module")
def vectors(service: Service, url: str) -> np.ndarray:
    return service.llamas()[EMBEDDER].embed_many(TEXTS)


def test_chroma_s_client_of_tei_gets_the_model_s_vectors(url: str, vectors: np.ndarray) -> None:
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    embed = functions.HuggingFaceEmbeddingServer(url=f"{url}/embed")
    np.testing.assert_allclose(embed(TEXTS), vectors, atol=1e-4)


def test_chroma_s_client_of_jina_gets_the_model_s_vectors(
    url: str, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    functions = pytest.importorskip("chromadb.utils.embedding_functions")
    monkeypatch.setenv("CHROMA_JINA_API_KEY", "none")
    embed = functions.JinaEmbeddingFunction(truncate=True, normalized=True, embedding_type="float")
    embed._api_url = f"{url}/v1/embeddings"  # it has no option for the address
    np.testing.assert_allclose(embed(TEXTS), vectors, atol=1e-4)


def test_lancedb_s_client_of_jina_gets_the_reranker_s_order(
    url: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    jinaai = pytest.importorskip("lancedb.rerankers.jinaai")
    monkeypatch.setattr(jinaai, "API_URL", f"{url}/v1/rerank")  # as above
    table = pa.table({"text": TEXTS, "_distance": pa.array([0.3, 0.2, 0.1], pa.float32())})
    ranked = jinaai.JinaReranker(api_key="none", column="text").rerank_vector(QUERY, table)
    expected = service.llamas()[RERANKER].rank(QUERY, TEXTS, score="sigmoid")
    assert ranked["text"].to_pylist() == [hit.document for hit in expected]
    assert ranked["_relevance_score"].to_pylist() == pytest.approx([hit.score for hit in expected], abs=1e-4)


@pytest.mark.parametrize(
    ("model", "path", "returns"),
    [
        ("hosted_vllm/any", "", True),
        ("cohere/any", "", True),
        ("huggingface/any", "", True),
        ("jina_ai/any", "/v1/rerank", True),
        ("infinity/any", "", False),  # it reads a document as a string, which vLLM's is not
    ],
)
def test_litellm_reranks_as_all_the_services_that_it_knows(
    url: str, service: Service, monkeypatch: pytest.MonkeyPatch, model: str, path: str, returns: bool
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks GitHub
    litellm = pytest.importorskip("litellm")
    answer = litellm.rerank(
        model=model,
        query=QUERY,
        documents=TEXTS,
        api_base=url + path,
        api_key="none",
        return_documents=returns,
    )
    expected = service.llamas()[RERANKER].rank(QUERY, TEXTS, score="sigmoid")
    assert [result["index"] for result in answer.results] == [hit.index for hit in expected]
    scores = [result["relevance_score"] for result in answer.results]
    assert scores == pytest.approx([hit.score for hit in expected], abs=1e-4)
    if returns:
        texts = [result["document"]["text"] for result in answer.results]
        assert texts == [hit.document for hit in expected]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("openai/any", "/v1"),
        ("hosted_vllm/any", "/v1"),
        ("infinity/any", ""),
        ("cohere/embed-english-v3.0", "/v2/embed"),
    ],
)
def test_litellm_embeds_as_all_the_services_that_it_knows(
    url: str, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, model: str, path: str
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks GitHub
    litellm = pytest.importorskip("litellm")
    answer = litellm.embedding(model=model, input=TEXTS, api_base=url + path, api_key="none")
    np.testing.assert_allclose([one["embedding"] for one in answer.data], vectors, atol=1e-4)


def test_langchain_s_client_of_openai_is_told_how_to_send_texts(url: str, vectors: np.ndarray) -> None:
    openai, langchain = pytest.importorskip("openai"), pytest.importorskip("langchain_openai")
    options: dict[str, Any] = {"base_url": f"{url}/v1", "api_key": "none"}
    tiktoken_s_ids = langchain.OpenAIEmbeddings(**options)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        tiktoken_s_ids.embed_documents(TEXTS)
    texts = langchain.OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    np.testing.assert_allclose(texts.embed_documents(TEXTS), vectors, atol=1e-4)
