"""What holds for every dialect: no request ends in a 5xx, and a document has one score in all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggrank import LlamaParams
from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

QUERY = "where do llamas live?"
DOCUMENTS = ["Llamas live in the Andes.", "Paris is a city in France.", "Bread needs yeast."]
RERANK = ("/rerank", "/reranking", "/v1/reranking", "/v1/rerank", "/v2/rerank")
PATHS = (*RERANK, "/embed", "/", "/embedding", "/v1/embeddings", "/embeddings", "/v1/embed", "/v2/embed")
PATHS += ("/tokenize", "/detokenize")
FIELDS = (
    "query", "documents", "texts", "input", "inputs", "content", "tokens", "ids", "model", "top_n",
    "threshold", "normalize", "raw_scores", "truncate", "return_documents", "return_text", "rank_fields",
    "dimensions", "encoding_format", "prefix", "prompt_name", "input_type", "truncation_direction",
    "add_special", "with_pieces",
)  # fmt: skip


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running(service_of(EMBEDDER, RERANKER)) as client:
        yield client


def scores(answer: Any) -> dict[int, float]:
    results = answer if isinstance(answer, list) else answer["results"]
    return {r["index"]: r["relevance_score"] if "relevance_score" in r else r["score"] for r in results}


@pytest.mark.parametrize("words", [{"normalize": True}, {"normalize": False}])
def test_a_document_has_the_same_score_in_every_dialect(client: httpx.Client, words: dict[str, bool]) -> None:
    requests = [(path, "documents") for path in RERANK] + [(path, "texts") for path in RERANK[:-1]]
    found = [
        scores(client.post(path, json={"query": QUERY, name: DOCUMENTS, **words}).json())
        for path, name in requests
    ]
    assert all(answer == pytest.approx(found[0], abs=1e-4) for answer in found)


@pytest.mark.parametrize(
    ("path", "name", "is_scaled"),
    [
        ("/rerank", "documents", True),
        ("/rerank", "texts", True),
        ("/reranking", "documents", False),
        ("/v1/reranking", "documents", False),
        ("/v1/rerank", "documents", True),
        ("/v2/rerank", "documents", True),
    ],
)
def test_each_dialect_has_its_own_default_scale(
    client: httpx.Client, path: str, name: str, *, is_scaled: bool
) -> None:
    found = scores(client.post(path, json={"query": QUERY, name: DOCUMENTS}).json())
    assert all(0 <= score <= 1 for score in found.values()) is is_scaled


@pytest.mark.parametrize("path", RERANK)
def test_an_embedder_s_name_ranks_by_cosine_whatever_scale_is_asked_for(
    client: httpx.Client, path: str
) -> None:
    request = {"model": EMBEDDER, "query": QUERY, "documents": DOCUMENTS}
    plain, scaled = (
        scores(client.post(path, json={**request, **words}).json()) for words in ({}, {"normalize": True})
    )
    assert plain == pytest.approx(scaled, abs=1e-4)
    assert min(plain.values()) >= -1
    assert max(plain.values()) <= 1


def test_a_server_with_an_embedder_only_ranks_by_cosine() -> None:
    with running(service_of(EMBEDDER)) as client:
        for path in RERANK:
            answer = client.post(path, json={"query": QUERY, "documents": DOCUMENTS})
            assert (answer.status_code, answer.json()["model"]) == (200, EMBEDDER)


def test_a_server_with_a_reranker_only_says_that_it_cannot_embed() -> None:
    with running(service_of(RERANKER)) as client:
        assert client.post("/embed", json={"inputs": "a"}).status_code == 422
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 400
        assert client.get("/v1/models").json()["data"][0]["id"] == RERANKER


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", ["", "{", "[]", "null", '"text"', "5", '{"query": NaN}', "\x00", "[" * 2000])
def test_a_body_that_is_no_request_is_refused_in_the_dialect_s_words(
    client: httpx.Client, path: str, body: str
) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert isinstance(answer.json(), dict)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
REQUESTS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6)
ALMOST_RIGHT = st.fixed_dictionaries(
    {"query": st.text(max_size=8), "documents": st.lists(st.text(max_size=8), min_size=1, max_size=3)},
    optional=dict.fromkeys(FIELDS[8:], ANYTHING),
)


@settings(max_examples=60)
@given(request=REQUESTS | ALMOST_RIGHT, path=st.sampled_from(PATHS))
def test_no_request_ends_in_a_server_s_error(
    client: httpx.Client, request: dict[str, object], path: str
) -> None:
    # Python's own words for JSON: NaN, numbers of any length, and escapes of half characters go through.
    answer = client.post(path, content=json.dumps(request), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    assert answer.status_code in (200, 400, 422)
    if answer.status_code != 200:
        assert set(answer.json()) & {"error", "message"}
        assert not re.search(r"Input should|Field required|should have", answer.text), "pydantic's words"


PAGE = (Path(__file__).resolve().parent.parent / "docs" / "dialects.md").read_text("utf-8")
CLIENTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
REQUESTS_SHOWN = re.findall(r"curl localhost:8080(\S+) .*?-d '(.*?)'", PAGE, re.DOTALL)


@pytest.mark.parametrize("code", CLIENTS, ids=range(len(CLIENTS)))
def test_the_page_s_clients_work(
    client: httpx.Client, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it goes to loopback only
    exec(code.replace("http://localhost:8080", str(client.base_url).rstrip("/")), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize(("path", "body"), REQUESTS_SHOWN, ids=range(len(REQUESTS_SHOWN)))
def test_the_page_s_requests_work(client: httpx.Client, path: str, body: str) -> None:
    answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text


def test_the_page_names_every_path_of_a_dialect(client: httpx.Client) -> None:
    paths = {path.replace("{name}", "NAME") for path in client.get("/openapi.json").json()["paths"]}
    named = set(re.findall(r"(?<=[` ])/[a-z0-9_/]+(?:NAME)?(?=`)", PAGE)) | set(
        re.findall(r"(?:GET|POST) (/\S+)`", PAGE)
    )
    assert paths - {"/", "/health", "/metrics"} <= named


@pytest.mark.parametrize(
    ("path", "field", "word", "prefix"),
    [
        ("/v1/embeddings", "input_type", "search_query", "query: "),
        ("/v1/embeddings", "input_type", "document", "passage: "),
        ("/v1/embeddings", "task", "retrieval.query", "query: "),
        ("/v1/embeddings", "task", "retrieval.passage", "passage: "),
        ("/v1/embeddings", "task", "clustering", ""),
        ("/v1/embeddings", "user", "query", ""),
        ("/embed", "prompt_name", "query", "query: "),
        ("/embed", "prompt_name", "passage", "passage: "),
    ],
)
def test_a_model_s_own_prefix_is_set_where_the_request_says_what_the_texts_are(
    path: str, field: str, word: str, prefix: str
) -> None:
    own = {"query_prefix": "query: ", "document_prefix": "passage: "}
    service = Service()
    service.load([LlamaParams(EMBEDDER, engine="llama.cpp", n_threads=1, **own)])  # type: ignore[arg-type]
    name = "inputs" if path == "/embed" else "input"
    with running(service) as client:

        def vector(**body: str) -> Any:
            answer = client.post(path, json=body).raise_for_status().json()
            return answer[0] if path == "/embed" else answer["data"][0]["embedding"]

        expected = vector(**{name: f"{prefix}where do llamas live?"})
        assert vector(**{name: QUERY, field: word}) == pytest.approx(expected, abs=1e-6)
        assert client.post(path, json={name: QUERY, field: 7}).status_code in (200, 400, 422)
