"""What the server promises whatever the dialect: scores, limits, health, errors, numbers and silence."""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import tiny_models
from ggrank import EngineError, Llama, LlamaParams
from ggrank.hub.presets import bundled_path, presets
from ggrank.server import ServerSettings, health
from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, flaky_service, running, service_of, wait_until

QUERY = "Which animals live in the Andes?"
DOCUMENTS = [
    "Llamas and alpacas graze on the high plains of Peru and Bolivia.",
    "A spreadsheet is a program for tables of numbers.",
    "The condor is the largest bird of the mountains of South America. " * 5,
    "Bread keeps best in a paper bag.",
]
SECRET = "xyzzy-the-secret-words"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = ServerSettings(max_bytes=200_000, max_documents=300, max_tokens=20_000)
    with running(service_of(EMBEDDER, RERANKER, settings=settings)) as client:
        yield client


@pytest.fixture(scope="module")
def alone() -> Iterator[Llama]:
    with Llama.load(RERANKER, engine="llama.cpp", n_threads=1) as llama:
        yield llama


@pytest.fixture(scope="module")
def rerankers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | Path]:
    """Two of whole floats, and the bundled one, whose activations are rounded to 8 bits or to bf16."""
    folder = tmp_path_factory.mktemp("models")
    f32 = tiny_models.quantize(bundled_path(presets()[RERANKER]), folder / "f32.gguf", dtype="f32")
    return {"tiny": tiny_models.write("bert-reranker", folder), "f32": f32, "q8_0": RERANKER}


def scores(answer: httpx.Response) -> list[float]:
    assert answer.status_code == 200, answer.text
    found = {result["index"]: result["relevance_score"] for result in answer.json()["results"]}
    return [found[i] for i in range(len(found))]


def numbers(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Every sample of /metrics by its name and its labels' values."""
    text = client.get("/metrics").text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


@pytest.mark.parametrize(
    ("model", "engine", "most"),
    [("tiny", "llama.cpp", 1e-4), ("f32", "openvino", 1e-5), ("q8_0", "llama.cpp", 0.06)],
)
def test_many_callers_at_once_get_the_scores_that_each_would_get_alone(
    model: str, engine: Any, most: float, rerankers: dict[str, str | Path]
) -> None:
    """As near as the file allows: docs/llama-cpp.md, what shares a micro-batch."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    params = LlamaParams(rerankers[model], engine=engine, n_threads=1)
    asked = [(f"{QUERY} {i}", DOCUMENTS[: 1 + i % 4] * (1 + i % 3)) for i in range(40)]
    with Llama.load(params) as llama:
        alone = [llama.rerank(query, documents) for query, documents in asked]
    service, flaky = flaky_service(params=params)
    with running(service) as client, ThreadPoolExecutor(10) as pool:

        def ask(question: tuple[str, list[str]]) -> list[float]:
            query, documents = question
            return scores(client.post("/v1/reranking", json={"query": query, "documents": documents}))

        flaky.may_run.clear()  # so that all of them wait together
        found = [pool.submit(ask, question) for question in asked]
        worker = service.llamas()[RERANKER].worker
        wait_until(lambda: len(worker._jobs) == 10)
        flaky.may_run.set()
        for together, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(together.result(), expected, rtol=0, atol=most)
        numbers_of = numbers(client)
    shared = numbers_of[("ggrank_micro_batch_requests_sum", RERANKER)]
    # A model of 64 numbers a token pays so much for strangers that it computes each sequence alone.
    assert model == "tiny" or shared > numbers_of[("ggrank_micro_batch_requests_count", RERANKER)]


def test_one_document_that_is_too_long_is_cut_and_marked_and_spoils_nothing(
    client: httpx.Client, alone: Llama
) -> None:
    documents = [DOCUMENTS[0], "mountain " * 5000, DOCUMENTS[1]]
    answer = client.post("/v1/reranking", json={"query": QUERY, "documents": documents})
    np.testing.assert_allclose(scores(answer), alone.rerank(QUERY, documents), atol=0.03)
    cut = {result["index"]: result["truncated"] for result in answer.json()["results"]}
    assert cut == {0: False, 1: True, 2: False}


BODIES = {
    "no JSON": (b"{'query': 1}", "body"),
    "half of it": (b'{"query": "a", "documents": ["b"', "body"),
    "nothing": (b"", "body"),
    "a list": (b'["a"]', "body"),
    "a number": (b"1", "body"),
    "no UTF-8": (b'{"query": "\xff\xfe\xfa", "documents": ["b"]}', "body"),
    "a thousand brackets": (b"[" * 100_000, "body"),
    "nesting in a field": (b'{"query": "a", "documents": ' + b"[" * 5000 + b"]" * 5000 + b"}", ""),
    "no query": (b'{"documents": ["b"]}', "query"),
    "no documents": (b'{"query": "a"}', "documents"),
    "a query that is a number": (b'{"query": 1, "documents": ["b"]}', "query"),
    "a query that is NaN": (b'{"query": NaN, "documents": ["b"]}', "body"),
    "documents that are a string": (b'{"query": "a", "documents": "b"}', "documents"),
    "a document that is null": (b'{"query": "a", "documents": ["b", null]}', "documents"),
    "half a document for top_n": (b'{"query": "a", "documents": ["b"], "top_n": 0.5}', "top_n"),
    "top_n that is a word": (b'{"query": "a", "documents": ["b"], "top_n": "all"}', "top_n"),
    "more digits than Python reads": (
        b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}",
        "body",
    ),
    "a threshold that is NaN": (b'{"query": "a", "documents": ["b"], "threshold": NaN}', "body"),
    "a number beyond a double's range": (b'{"query": "a", "documents": ["b"], "threshold": 1e999}', "body"),
    "infinity in a field that is not known": (b'{"query": "a", "documents": ["b"], "x": [Infinity]}', "body"),
    "infinity in a document": (b'{"query": "a", "documents": [{"text": "b", "price": -1e999}]}', "body"),
}


@pytest.mark.parametrize(("body", "field"), BODIES.values(), ids=BODIES.keys())
def test_bad_input_is_400_or_422_and_names_the_field(client: httpx.Client, body: bytes, field: str) -> None:
    for path in ("/rerank", "/v1/rerank", "/v2/rerank", "/v1/reranking"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (path, answer.text)
        assert field in answer.text
        assert not re.search(r"Input should|Field required|should have", answer.text), "pydantic's words"


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/v1/reranking"])
def test_all_fields_that_are_missing_are_named(client: httpx.Client, path: str) -> None:
    assert "query and documents are missing; send them" in client.post(path, json={"top_n": 0}).text
    assert "documents: missing; send it" in client.post(path, json={"query": QUERY}).text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"query": 1}, "query: must be a string, found 1;"),
        ({"documents": []}, "documents: must be a list of 1 or more, found an empty list;"),
        ({"documents": ["b", {}]}, "documents.1: must be a string or an object with fields, found an empty"),
        ({"top_n": "three"}, "top_n: must be a whole number, found a string;"),
        ({"top_n": 2.5}, "top_n: must be a whole number, found 2.5;"),
        ({"return_documents": "perhaps"}, "return_documents: must be true or false, found a string;"),
        ({"top_n": [], "query": 1}, "query: must be a string, found 1 (and 1 more);"),
        ({"raw_scores": SECRET}, "raw_scores: must be true or false, found a string;"),
        ({"documents": None, "texts": [1, SECRET]}, "texts.0: must be a string, found 1;"),
        (
            {"documents": None, "texts": ["a"], "truncation_direction": SECRET},
            "must be 'right' or 'Right', found a string",
        ),
        (
            {"documents": None, "texts": ["a"], "truncation_direction": "left"},
            "must be 'right' or 'Right', found 'left'",
        ),
        ({"truncate": "middle"}, "truncate: must be true, false, 'end', 'error' or 'chunk', found 'middle'"),
    ],
)
def test_a_wrong_value_is_told_by_what_was_expected_and_found_without_its_text(
    client: httpx.Client, wrong: dict[str, object], told: str
) -> None:
    answer = client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS, **wrong})
    assert answer.status_code in (400, 422)
    assert told in answer.text
    assert "/docs describes every field" in answer.text
    assert SECRET not in answer.text


def test_a_body_of_another_content_type_is_bad_input(client: httpx.Client) -> None:
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = client.post("/rerank", content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 422)
        assert "Content-Type: application/json" in answer.text
    # A web page of any origin may send one without a type, and the browser asks nobody before.
    assert client.post("/rerank", content=body.encode()).status_code in (400, 422)


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\u0000"', '"a\\u0000b"', '""', '"\\udfff\\ud800 x"'])
def test_texts_that_no_file_could_hold_are_ranked_or_refused(client: httpx.Client, text: str) -> None:
    for body in (f'{{"query": {text}, "documents": ["b"]}}', f'{{"query": "a", "documents": [{text}]}}'):
        answer = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (200, 400, 422)


def test_huge_numbers_are_taken_or_refused(client: httpx.Client) -> None:
    body = f'{{"query": "a", "documents": ["b"], "top_n": {10**40}}}'
    answer = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 422)


def test_a_body_of_more_bytes_than_the_limit_is_413_with_the_limit(client: httpx.Client) -> None:
    body = json.dumps({"query": QUERY, "documents": ["x" * 300_000]}).encode()
    answer = client.post("/rerank", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, "200,000" in answer.text) == (413, True)


def test_a_body_in_chunks_without_a_length_is_413_with_the_limit(client: httpx.Client) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(300):
            yield b"x" * 10_000

    answer = client.post("/rerank", content=chunks(), headers={"Content-Type": "application/json"})
    assert "content-length" not in answer.request.headers
    assert (answer.status_code, "200,000" in answer.text) == (413, True)


def test_a_length_that_is_a_lie_does_not_bring_the_server_down(client: httpx.Client) -> None:
    for length in ("9" * 30, "-1", "abc"):
        with connected(client) as raw:
            raw.sendall(
                f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()
            )
            assert b" 4" in raw.recv(100)[:12]
    assert client.get("/health").status_code == 200


def test_more_documents_than_the_limit_are_413_with_the_limit(client: httpx.Client) -> None:
    answer = client.post("/rerank", json={"query": QUERY, "documents": ["x"] * 301})
    assert (answer.status_code, "300" in answer.text) == (413, True)
    answer = client.post("/v1/embeddings", json={"input": ["x"] * 301, "model": "m"})
    assert (answer.status_code, "300" in answer.text) == (413, True)


LISTS = {
    "/rerank": "documents",
    "/v1/rerank": "documents",
    "/v2/rerank": "documents",
    "/reranking": "texts",
    "/v1/embeddings": "input",
    "/embed": "inputs",
}


@pytest.fixture(scope="module", params=[2048, 10**6])
def roomy(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A server that takes large bodies, once with fewer documents than those have, and once with more."""
    service, _ = flaky_service(ServerSettings(max_documents=request.param))
    with running(service) as client:
        yield client


@pytest.mark.parametrize(("path", "field"), LISTS.items(), ids=LISTS)
@pytest.mark.parametrize("item", ["null", "[]", "{}"])
def test_hundreds_of_thousands_of_wrong_items_are_one_small_error_that_names_their_field(
    roomy: httpx.Client, path: str, field: str, item: str
) -> None:
    body = f'{{"query": "a", "{field}": [{",".join([item] * 300_000)}]}}'
    answer = roomy.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 413, 422)
    assert (field in answer.text, len(answer.content) < 1000) == (True, True), answer.text[:1000]


def test_more_rank_fields_than_anybody_has_are_one_error(roomy: httpx.Client) -> None:
    for names in (["a"] * 100_000, [1] * 100_000):
        body = {"query": "a", "documents": [{"a": "b"}], "rank_fields": names}
        answer = roomy.post("/v1/rerank", json=body)
        assert (answer.status_code, len(answer.content) < 1000) == (400, True)
        assert "rank_fields: must be a list of 100 at most, found a list" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "field"),
    [("/tokenize", "content"), ("/detokenize", "tokens")],
)
def test_more_tokens_than_a_request_may_have_are_not_made_or_read_either(
    client: httpx.Client, path: str, field: str
) -> None:
    value = "a " * 20_001 if path == "/tokenize" else [5] * 20_001
    answer = client.post(path, json={field: value})
    assert (answer.status_code, "more than 20,000 tokens" in answer.text) == (413, True), answer.text


def test_the_rest_of_a_body_that_is_too_large_is_read_so_that_its_sender_sees_the_answer(
    client: httpx.Client,
) -> None:
    with connected(client) as raw:
        head = b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw.sendall(head + b"30d40\r\n" + b"x" * 200_000 + b"\r\n1\r\nx\r\n")  # one byte too many
        raw.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n")
        assert raw.recv(1000).startswith(b"HTTP/1.1 413")


def test_more_tokens_than_the_limit_are_413_with_the_limit(client: httpx.Client) -> None:
    long = " ".join(f"word{i}" for i in range(15_000))
    body = {"query": QUERY, "documents": [long], "truncate": "chunk"}
    answer = client.post("/rerank", json=body)
    assert (answer.status_code, "20,000" in answer.text) == (413, True), answer.text


def test_a_path_that_is_not_there_and_a_wrong_method_are_told(client: httpx.Client) -> None:
    unknown = client.get("/v1/nothing")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["message"] == "there is nothing at /v1/nothing; /docs lists what there is"
    assert unknown.json()["error"]["code"] is None, "no model was asked for"
    answer = client.get("/v2/rerank")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert "/v2/rerank takes POST, found GET; /docs shows how" in answer.text


def test_a_text_that_is_too_long_is_told_to_who_asks_and_to_who_runs_the_server(client: httpx.Client) -> None:
    long = "mountain " * 600
    for path, body in (
        ("/rerank", {"query": QUERY, "documents": [long]}),
        ("/rerank", {"query": long, "documents": DOCUMENTS}),
        ("/v1/embeddings", {"input": long}),
    ):
        answer = client.post(path, json={**body, "truncate": False})
        told = answer.json()["error"]["message"]
        assert (answer.status_code, "has 600 tokens" in told) == (400, True), told
        assert 'send "truncate": true' in told
        assert "start the server with a larger n_ctx" in told
        assert "load the model" not in told, "no caller can"
        assert client.post(path, json={**body, "truncate": True}).status_code == 200


def test_an_unknown_model_name_means_the_default_and_the_answer_says_which(client: httpx.Client) -> None:
    body = {"query": QUERY, "documents": DOCUMENTS, "model": "rerank-v3.5"}
    assert client.post("/v1/rerank", json=body).json()["model"] == RERANKER
    embedded = client.post("/v1/embeddings", json={"input": "a", "model": "text-embedding-3-small"})
    assert embedded.json()["model"] == EMBEDDER


def test_metrics_tell_of_requests_tokens_and_micro_batches(client: httpx.Client) -> None:
    before = numbers(client)
    used = client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS}).json()["usage"][
        "total_tokens"
    ]
    client.post("/rerank", json={"query": QUERY})
    client.get("/nothing")
    for name in ("swagger-ui.css", "nothing"):
        client.get(f"/docs-assets/{name}")
    client.get("/openapi.json")

    def rise(*key: str) -> float:
        return after[key] - before.get(key, 0.0)

    def rise_now(name: str) -> float:
        return numbers(client)[name, RERANKER] - before.get((name, RERANKER), 0.0)

    # The worker counts a micro-batch when it has given the results away.
    wait_until(lambda: rise_now("ggrank_sequences_total") >= len(DOCUMENTS))
    wait_until(lambda: rise_now("ggrank_micro_batch_requests_count") >= 1)
    after = numbers(client)
    assert rise("ggrank_requests_total", "POST", "/rerank", "200") == 1
    assert rise("ggrank_requests_total", "POST", "/rerank", "400") == 1
    assert rise("ggrank_requests_total", "GET", "unknown", "404") == 1
    assert rise("ggrank_requests_total", "GET", "/docs-assets/", "200") == 1
    assert rise("ggrank_requests_total", "GET", "/docs-assets/", "404") == 1
    assert rise("ggrank_requests_total", "GET", "/openapi.json", "200") == 1
    assert rise("ggrank_request_seconds_count", "/rerank") == 2
    assert rise("ggrank_tokens_total", RERANKER) == used
    assert rise("ggrank_sequences_total", RERANKER) == len(DOCUMENTS)
    assert rise("ggrank_micro_batch_fill_count", RERANKER) >= 1
    assert after[("ggrank_queue_requests",)] == 0
    assert after[("ggrank_queue_tokens", RERANKER)] == 0


def test_openapi_names_every_path_and_no_error_shape_that_nobody_answers_with(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert {"/rerank", "/v2/rerank", "/v1/embeddings", "/health", "/metrics"} <= set(document["paths"])
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_docs_load_nothing_from_anywhere_else(client: httpx.Client) -> None:
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert '"validatorUrl": null' in page
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(loaded) >= 2
    for address in loaded:
        assert client.get(address).status_code == 200, address


# What waits, what goes away, what fails: on an engine that the test can stop and spoil.


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(max_queue=2, timeout=LONG)


def connected(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=LONG)


def sent(client: httpx.Client, body: dict[str, Any], path: str = "/rerank") -> socket.socket:
    """A connection on which a request has been sent, and nothing read."""
    connection, content = connected(client), json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}"
    connection.sendall(head.encode() + b"\r\n\r\n" + content)
    return connection


def test_more_requests_than_may_wait_are_429_with_retry_after(settings: ServerSettings) -> None:
    service, engine = flaky_service(settings)
    with running(service) as client:
        engine.may_run.clear()
        with ThreadPoolExecutor(2) as pool:
            body = {"query": QUERY, "documents": DOCUMENTS}
            waiting = [pool.submit(client.post, "/rerank", json=body) for _ in range(2)]
            wait_until(lambda: service.n_requests == 2)
            refused = client.post("/rerank", json=body)
            engine.may_run.set()
            assert [found.result().status_code for found in waiting] == [200, 200]
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        wait_until(lambda: service.n_requests == 0)
        assert client.post("/rerank", json=body).status_code == 200


def test_while_too_many_tokens_wait_a_request_is_429() -> None:
    service, engine = flaky_service(ServerSettings(max_queue_tokens=100))
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        engine.may_run.clear()
        first = pool.submit(client.post, "/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        worker = service.llamas()[RERANKER].worker
        wait_until(lambda: worker.n_waiting_tokens > 100)
        assert client.post("/rerank", json={"query": "a", "documents": ["b"]}).status_code == 429
        engine.may_run.set()
        assert first.result().status_code == 200


def test_a_caller_that_goes_away_stops_costing(settings: ServerSettings) -> None:
    service, engine = flaky_service(settings)
    with running(service) as client:
        engine.may_run.clear()
        documents = [f"{text} {i}" for i in range(200) for text in DOCUMENTS]
        connection = sent(client, {"query": QUERY, "documents": documents})
        assert engine.entered.wait(LONG)
        connection.close()
        wait_until(lambda: service.n_requests == 0)
        engine.may_run.set()
        assert client.post("/rerank", json={"query": QUERY, "documents": ["b"]}).status_code == 200
        assert len(engine.batches) <= 2
        assert numbers(client)[("ggrank_requests_total", "POST", "/rerank", "499")] == 1


def test_a_request_that_takes_longer_than_it_may_is_503(settings: ServerSettings) -> None:
    service, engine = flaky_service(ServerSettings(timeout=0.2))
    with running(service, settings) as client:  # its body may take longer
        engine.may_run.clear()
        answer = client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        engine.may_run.set()
        assert (answer.status_code, "0.2 s" in answer.text) == (503, True)
        assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_body_that_does_not_come_is_408() -> None:
    service, _ = flaky_service(ServerSettings(timeout=0.2))
    with running(service) as client, connected(client) as raw:
        raw.sendall(b"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert raw.recv(1000).startswith(b"HTTP/1.1 408")


def test_what_the_engine_says_is_503_and_the_next_request_is_answered(settings: ServerSettings) -> None:
    service, engine = flaky_service(settings)

    def fail(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise EngineError("llama.cpp failed with status -3 on 40 tokens: no memory")

    with running(service) as client:
        body = {"query": QUERY, "documents": DOCUMENTS}
        engine.spoil = fail
        answer = client.post("/rerank", json=body)
        assert (answer.status_code, "status -3 on 40 tokens" in answer.text) == (503, True)
        engine.spoil = lambda values: values
        assert client.post("/rerank", json=body).status_code == 200


def test_health_is_503_when_scores_are_not_finite_and_200_when_they_are_again(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    service, engine = flaky_service(settings)
    with running(service) as client:
        assert client.get("/health").status_code == 200
        assert client.head("/health").status_code == 200
        engine.spoil = lambda values: values * np.nan
        assert (client.head("/health").status_code, client.head("/health").content) == (503, b"")
        sick = client.get("/health")
        assert (sick.status_code, sick.json()["status"]) == (503, "failing")
        assert "finite" in sick.json()["models"][RERANKER]
        engine.spoil = lambda values: values
        assert client.get("/health").status_code == 200


def test_health_computes_once_for_all_who_ask_of_an_idle_model(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    service, engine = flaky_service(settings)
    with running(service) as client, ThreadPoolExecutor(20) as pool:
        engine.may_run.clear()
        first = pool.submit(client.get, "/health")
        assert engine.entered.wait(LONG)
        # The probe is running, so all others are answered from its state.
        assert {client.get("/health").status_code for _ in range(20)} == {200}
        engine.may_run.set()
        assert first.result().status_code == 200
    assert len(engine.batches) == 1


def test_health_computes_nothing_while_the_last_result_is_new(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 3600.0)
    service, engine = flaky_service(settings)
    with running(service) as client:
        assert client.get("/health").status_code == 200
    assert engine.batches == []


def test_a_caller_that_goes_away_does_not_cancel_the_probe_of_others(
    settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    service, engine = flaky_service(settings)
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        engine.may_run.clear()
        with pytest.raises(httpx.ReadTimeout):
            client.get("/health", timeout=0.2)
        waiting = pool.submit(client.get, "/health")
        engine.may_run.set()
        assert waiting.result().status_code == 200
        wait_until(lambda: len(engine.batches) >= 1)


def test_health_answers_at_once_while_a_micro_batch_is_running_and_the_queue_is_full(
    settings: ServerSettings,
) -> None:
    service, engine = flaky_service(settings)
    with running(service) as client, ThreadPoolExecutor(3) as pool:
        engine.may_run.clear()
        body = {"query": QUERY, "documents": [f"{text} {i}" for i in range(50) for text in DOCUMENTS]}
        waiting = [pool.submit(client.post, "/rerank", json=body) for _ in range(2)]
        wait_until(lambda: service.n_requests == 2)
        assert engine.entered.wait(LONG)
        assert client.get("/health").status_code == 200  # and nothing was computed for it
        assert engine.batches == []
        engine.may_run.set()
        assert {found.result().status_code for found in waiting} == {200}


def test_health_is_503_once_a_micro_batch_takes_longer_than_it_may(settings: ServerSettings) -> None:
    service, engine = flaky_service(replace(settings, health_timeout=0.2))
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        engine.may_run.clear()
        waiting = pool.submit(client.post, "/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        assert engine.entered.wait(LONG)
        wait_until(lambda: client.get("/health").status_code == 503)
        assert "--health-timeout 0.2" in client.get("/health").json()["models"][RERANKER]
        engine.may_run.set()
        assert waiting.result().status_code == 200
        assert client.get("/health").status_code == 200


def test_before_the_models_are_loaded_everything_that_needs_one_is_503() -> None:
    service = Service()
    with running(service) as client:
        assert (client.get("/health").status_code, client.get("/health").json()["status"]) == (503, "loading")
        answer = client.post("/rerank", json={"query": QUERY, "documents": DOCUMENTS})
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{EMBEDDER}", "/info"])
def test_half_a_list_of_models_is_no_answer(path: str) -> None:
    service, whole = Service(), service_of(EMBEDDER)
    service._served.update(whole._served)  # the first of several that are being loaded
    with running(service) as client:
        answer = client.get(path)
        assert (answer.status_code, int(answer.headers["retry-after"]) > 0) == (503, True)
        service.load([])
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", ""])
def test_brackets_in_brackets_are_a_bad_request(content_type: str) -> None:
    with running(service_of(EMBEDDER)) as client:
        body = b'{"input": ' + 10_000 * b"[" + 10_000 * b"]" + b"}"
        answer = client.post("/v1/embeddings", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 400


def test_stopping_lets_what_is_in_finish(settings: ServerSettings) -> None:
    service, engine = flaky_service(settings)
    with ThreadPoolExecutor(2) as pool:
        with running(service) as client:
            engine.may_run.clear()
            body = {"query": QUERY, "documents": DOCUMENTS}
            waiting = pool.submit(httpx.post, f"{client.base_url}/rerank", json=body, timeout=LONG)
            assert engine.entered.wait(LONG)
            threading.Timer(0.2, engine.may_run.set).start()
        assert waiting.result().status_code == 200


def test_no_text_of_a_request_is_ever_logged(
    settings: ServerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    service, engine = flaky_service(settings)

    def fail(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise KeyError(SECRET)

    caplog.set_level(logging.DEBUG)
    with running(service, access_log=True) as client:
        for body in (
            {"query": SECRET, "documents": [SECRET]},
            {"query": SECRET, "documents": SECRET},
            {SECRET: SECRET},
            {"query": SECRET, "documents": [SECRET] * 3000},
        ):
            client.post(f"/rerank?q={SECRET}", json=body, headers={"X-Text": SECRET})
        client.post(f"/{SECRET}", content=SECRET)
        client.request(SECRET.upper(), "/rerank")
        engine.spoil = fail
        failed = client.post("/rerank", json={"query": SECRET, "documents": [SECRET]})
        with connected(client) as raw:
            raw.sendall(f"{SECRET} is no HTTP\r\n\r\n".encode())
            raw.recv(1000)
    assert failed.status_code == 503
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    assert any("POST /rerank 200" in line for line in ours)
    assert [line for line in ours if SECRET in line.lower()] == []


def test_a_bug_is_500_without_its_words_and_the_server_goes_on(
    settings: ServerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    service, _ = flaky_service(settings)
    with running(service) as client:
        service.models = lambda: {}[SECRET]  # type: ignore[method-assign]
        answer = client.get("/v1/models")
        assert (answer.status_code, SECRET in answer.text) == (500, False)
        assert client.post("/v2/rerank", json={"query": "a", "documents": ["b"]}).status_code in (200, 500)
    assert any("KeyError" in record.getMessage() for record in caplog.records)
    assert not any(SECRET in record.getMessage() for record in caplog.records)
