"""Jina's published examples against this server, and what ``/v1/rerank`` says to Cohere's clients as well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import EMBEDDER, RERANKER, running, service_of

# The example of Jina's reranker API.
EXAMPLE = {
    "model": "jina-reranker-v2-base-multilingual",
    "query": "Organic skincare products for sensitive skin",
    "top_n": 3,
    "documents": [
        "Organic skincare for sensitive skin with aloe vera and chamomile: Imagine the soothing embrace.",
        "New makeup trends focus on bold colors and innovative techniques: Step into the world of beauty.",
        "Bio-Hautpflege für empfindliche Haut mit Aloe Vera und Kamille: Erleben Sie die Wirkung der Natur.",
        "Neue Make-up-Trends setzen auf kräftige Farben und innovative Techniken.",
        "Cuidado de la piel orgánico para piel sensible con aloe vera y manzanilla.",
    ],
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(service_of(EMBEDDER, RERANKER)) as client:
        yield client


def ask(client: httpx.Client, path: str, **request: Any) -> Any:
    answer = client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_jina_s_example_has_jina_s_answer(client: httpx.Client) -> None:
    answer = ask(client, "/v1/rerank", **EXAMPLE)
    assert answer["object"] == "list"
    assert answer["model"] == RERANKER
    assert answer["usage"]["total_tokens"] > 0
    assert len(answer["results"]) == 3
    assert answer["results"][0]["index"] == 0
    for result in answer["results"]:
        assert result["document"] == {"text": EXAMPLE["documents"][result["index"]]}
        assert 0 <= result["relevance_score"] <= 1


def test_the_same_answer_has_what_cohere_s_clients_read(client: httpx.Client) -> None:
    answer = ask(client, "/v1/rerank", **EXAMPLE)
    assert answer["id"]
    assert answer["meta"]["api_version"] == {"version": "1", "is_experimental": False}


def test_documents_come_back_by_default_for_jina_s_models_only(client: httpx.Client) -> None:
    def has_documents(**words: object) -> bool:
        return any("document" in r for r in ask(client, "/v1/rerank", **{**EXAMPLE, **words})["results"])

    assert has_documents()
    assert not has_documents(return_documents=False)
    assert not has_documents(model="rerank-v3.5")
    assert has_documents(model="rerank-v3.5", return_documents=True)


def test_documents_may_be_objects_with_a_text(client: httpx.Client) -> None:
    as_strings = ask(client, "/v1/rerank", **EXAMPLE)["results"]
    objects = [{"text": text} for text in EXAMPLE["documents"]]
    assert ask(client, "/v1/rerank", **{**EXAMPLE, "documents": objects})["results"] == as_strings


def test_an_object_comes_back_whole(client: httpx.Client) -> None:
    document = {"text": "Aloe vera", "id": 7, "price": 1.5, "sold": None}
    [result] = ask(client, "/v1/rerank", **{**EXAMPLE, "documents": [document]})["results"]
    assert result["document"] == document


def test_raw_scores_are_the_logits_of_the_same_order(client: httpx.Client) -> None:
    scaled = ask(client, "/v1/rerank", **EXAMPLE)["results"]
    raw = ask(client, "/v1/rerank", **EXAMPLE, raw_scores=True)["results"]
    assert [1 / (1 + 2.718281828459045 ** -result["relevance_score"]) for result in raw] == pytest.approx(
        [result["relevance_score"] for result in scaled], abs=1e-6
    )


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"documents": []}, "documents"),
        ({"documents": ["a", 1]}, "documents.1"),
        ({"documents": [{"image": {"url": "x"}}]}, "documents.0"),
        ({"documents": [{}]}, "documents.0"),
        ({"query": None}, "query"),
        ({"top_n": "all"}, "top_n"),
        ({"threshold": "high"}, "threshold"),
        ({"truncate": "middle"}, "truncate"),
        ({"rank_fields": "text"}, "rank_fields"),
    ],
)
def test_an_error_is_worded_for_all_who_use_the_path(
    client: httpx.Client, words: dict[str, object], field: str
) -> None:
    answer = client.post("/v1/rerank", json={**EXAMPLE, **words})
    error = answer.json()
    assert answer.status_code == 400
    assert error["detail"].startswith(f"{field}: ")  # Jina
    assert error["message"] == error["detail"]  # Cohere
    assert error["error"]["message"] == error["detail"]  # llama-server


def test_a_lone_surrogate_comes_back_as_the_replacement_character(client: httpx.Client) -> None:
    body = b'{"query": "\\udfff", "documents": ["a\\ud800", {"text": "\\ud800"}], "return_documents": true}'
    answer = client.post("/v1/rerank", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    assert {r["document"]["text"] for r in answer.json()["results"]} == {"a\ufffd", "\ufffd"}


def test_jina_s_embedding_requests_read_as_openai_s(client: httpx.Client) -> None:
    by_jina = ask(
        client, "/v1/embeddings", model="jina-embeddings-v3", task="text-matching", dimensions=384,
        embedding_type="float", normalized=True, input=[{"text": "Hello"}, "world"],
    )  # fmt: skip
    by_openai = ask(client, "/v1/embeddings", model="any", dimensions=384, input=["Hello", "world"])
    assert by_jina == by_openai
