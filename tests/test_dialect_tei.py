"""text-embeddings-inference: its published examples, and Hugging Face's own client, against this server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from huggingface_hub import InferenceClient

from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

# The examples of TEI's README.
QUERY = "What is Deep Learning?"
TEXTS = ["Deep Learning is not...", "Deep learning is..."]
PATHS = ("/rerank", "/reranking", "/v1/reranking", "/v1/rerank")


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with running(service) as client:
        yield client


@pytest.fixture
def inference(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it goes to loopback only
    return InferenceClient(model=f"{client.base_url}/embed")


def ask(client: httpx.Client, path: str, **request: Any) -> Any:
    answer = client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", PATHS)
def test_texts_are_answered_with_tei_s_list_on_every_path(client: httpx.Client, path: str) -> None:
    ranks = ask(client, path, query=QUERY, texts=TEXTS)
    assert [set(rank) for rank in ranks] == [{"index", "score", "truncated"}] * 2
    assert sorted(rank["index"] for rank in ranks) == [0, 1]
    assert 1 >= ranks[0]["score"] >= ranks[1]["score"] >= 0


def test_scores_are_sigmoids_and_raw_scores_are_logits(client: httpx.Client, service: Service) -> None:
    logits = service.llamas()[RERANKER].rerank(QUERY, TEXTS)
    raw = {
        rank["index"]: rank["score"]
        for rank in ask(client, "/rerank", query=QUERY, texts=TEXTS, raw_scores=True)
    }
    scaled = {rank["index"]: rank["score"] for rank in ask(client, "/rerank", query=QUERY, texts=TEXTS)}
    assert [raw[0], raw[1]] == pytest.approx(logits.tolist(), abs=1e-3)
    assert [scaled[0], scaled[1]] == pytest.approx((1 / (1 + np.exp(-logits))).tolist(), abs=1e-3)


def test_return_text_sends_each_text_back(client: httpx.Client) -> None:
    ranks = ask(client, "/rerank", query=QUERY, texts=TEXTS, return_text=True)
    assert [rank["text"] for rank in ranks] == [TEXTS[rank["index"]] for rank in ranks]


def test_more_than_32_texts_are_ranked(client: httpx.Client) -> None:
    assert len(ask(client, "/rerank", query="fruit", texts=[f"Tree {i}" for i in range(100)])) == 100


def test_a_text_that_was_cut_is_marked_and_fails_nothing_else(client: httpx.Client) -> None:
    ranks = ask(client, "/rerank", query=QUERY, texts=[*TEXTS, "deep " * 600])
    assert sorted((rank["index"], rank["truncated"]) for rank in ranks) == [(0, False), (1, False), (2, True)]


def test_truncate_false_refuses_as_tei_does(client: httpx.Client) -> None:
    answer = client.post("/rerank", json={"query": QUERY, "texts": ["deep " * 600], "truncate": False})
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "Validation"


@pytest.mark.parametrize(
    ("path", "request_", "field"),
    [
        ("/rerank", {"query": QUERY, "texts": []}, "texts"),
        ("/rerank", {"query": QUERY, "texts": ["a", 1]}, "texts.1"),
        ("/rerank", {"texts": TEXTS}, "query"),
        ("/rerank", {"query": QUERY, "texts": TEXTS, "truncation_direction": "left"}, "truncation_direction"),
        ("/embed", {"inputs": []}, "inputs"),
        ("/rerank", {"query": QUERY, "texts": ["a", "deep " * 600], "truncate": False}, "texts"),
        ("/rerank", {"query": "deep " * 600, "texts": ["a"], "truncate": False}, "query"),
        ("/embed", {"inputs": ["a", 1]}, "inputs.1"),
        ("/embed", {"inputs": ["a", [1]]}, "inputs"),
        ("/embed", {"inputs": [30522]}, "inputs"),
        ("/embed", {"inputs": ["a", "deep " * 600], "truncate": False}, "inputs"),
        ("/embed", {"inputs": "a", "prompt_name": "s2p"}, "prompt_name"),
        ("/embed", {"inputs": "a", "normalize": "yes"}, "normalize"),
    ],
)
def test_a_bad_request_names_its_field_in_tei_s_words(
    client: httpx.Client, path: str, request_: dict[str, object], field: str
) -> None:
    answer = client.post(path, json=request_)
    assert answer.status_code == 422
    assert answer.json()["error_type"] == "Validation"
    assert answer.json()["error"].startswith(f"{field}: ")


def test_hugging_face_s_client_gets_the_model_s_vectors(inference: InferenceClient, service: Service) -> None:
    llama = service.llamas()[EMBEDDER]
    expected, raw = llama.embed(QUERY), llama.embed(QUERY, normalize=False)
    np.testing.assert_allclose(inference.feature_extraction(QUERY), [expected], atol=1e-4)
    np.testing.assert_allclose(inference.feature_extraction(QUERY, normalize=False), [raw], atol=1e-3)


def test_hugging_face_s_client_can_refuse_what_would_be_cut(inference: InferenceClient) -> None:
    long = "deep " * 600
    assert inference.feature_extraction(long, truncate=True, truncation_direction="right").shape == (1, 384)
    with pytest.raises(Exception, match="422"):
        inference.feature_extraction(long, truncate=False)


def test_embed_takes_one_text_several_or_tokens(client: httpx.Client, service: Service) -> None:
    tokens = [101, *service.llamas()[EMBEDDER].tokenize(QUERY).tolist(), 102]
    [alone] = ask(client, "/embed", inputs=QUERY)
    first, second = ask(client, "/embed", inputs=[QUERY, QUERY])
    [by_tokens] = ask(client, "/embed", inputs=[tokens])
    for vector in (first, second, by_tokens):
        assert vector == pytest.approx(alone, abs=1e-4)


def test_embed_says_in_headers_what_was_cut_and_how_much_was_computed(client: httpx.Client) -> None:
    answer = client.post("/embed", json={"inputs": ["a", "deep " * 600, "b", "learning " * 600]})
    assert answer.headers["x-truncated"] == "1,3"
    assert answer.headers["x-compute-tokens"] == str(3 + 256 + 3 + 256)
    assert "x-truncated" not in client.post("/embed", json={"inputs": "a"}).headers


def test_embed_s_prefix_and_dimensions_do_what_they_say(client: httpx.Client) -> None:
    assert ask(client, "/embed", inputs="llamas", prefix="query: ") == ask(
        client, "/embed", inputs="query: llamas"
    )
    assert ask(client, "/embed", inputs=QUERY, dimensions=384) == ask(client, "/embed", inputs=QUERY)
    refused = client.post("/embed", json={"inputs": QUERY, "dimensions": 16})
    assert refused.status_code == 422
    assert "dimensions must be 384, found 16" in refused.json()["error"]


def test_info_is_the_reranker_s_unless_another_model_is_named(client: httpx.Client) -> None:
    reranker = client.get("/info").json()
    assert (reranker["model_id"], reranker["max_input_length"]) == (RERANKER, 512)
    assert list(reranker["model_type"]) == ["reranker"]
    embedder = client.get("/info", params={"model": EMBEDDER}).json()
    assert embedder["model_type"] == {"embedding": {"pooling": "mean"}}


def test_hugging_face_s_client_finds_the_server_by_its_address_alone(
    client: httpx.Client, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it goes to loopback only
    found = InferenceClient(model=str(client.base_url)).feature_extraction(QUERY)
    np.testing.assert_allclose(np.squeeze(found), service.llamas()[EMBEDDER].embed(QUERY), atol=1e-4)
    ranks = ask(client, "/", query=QUERY, texts=TEXTS)
    assert ranks == ask(client, "/rerank", query=QUERY, texts=TEXTS)
