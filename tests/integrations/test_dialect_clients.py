"""Frameworks' own clients of Jina and TEI against this server; only the address is another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("chromadb")
pytest.importorskip("lancedb")
pytest.importorskip("requests")

import lancedb.rerankers.jinaai
import numpy as np
import pyarrow as pa
from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer, JinaEmbeddingFunction
from lancedb.rerankers import JinaReranker

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
    embed = HuggingFaceEmbeddingServer(url=f"{url}/embed")
    np.testing.assert_allclose(embed(TEXTS), vectors, atol=1e-4)


def test_chroma_s_client_of_jina_gets_the_model_s_vectors(
    url: str, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setenv("CHROMA_JINA_API_KEY", "none")
    embed = JinaEmbeddingFunction(truncate=True, normalized=True, embedding_type="float")
    embed._api_url = f"{url}/v1/embeddings"  # it has no option for the address
    np.testing.assert_allclose(embed(TEXTS), vectors, atol=1e-4)


def test_lancedb_s_client_of_jina_gets_the_reranker_s_order(
    url: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lancedb.rerankers.jinaai, "API_URL", f"{url}/v1/rerank")  # as above
    table = pa.table({"text": TEXTS, "_distance": pa.array([0.3, 0.2, 0.1], pa.float32())})
    ranked = JinaReranker(api_key="none", column="text").rerank_vector(QUERY, table)
    expected = service.llamas()[RERANKER].rank(QUERY, TEXTS, score="sigmoid")
    assert ranked["text"].to_pylist() == [hit.document for hit in expected]
    assert ranked["_relevance_score"].to_pylist() == pytest.approx([hit.score for hit in expected], abs=1e-4)
