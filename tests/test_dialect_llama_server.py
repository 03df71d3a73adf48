"""llama-server's paths and the plain ``/rerank``: llama.cpp's own examples and tests, asked of this server.

The requests are those of llama.cpp's tools/server/README.md and tools/server/tests/unit/test_rerank.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ggrank import Llama
from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

PATHS = ("/reranking", "/v1/reranking")
ALSO_PLAIN = ("/rerank", *PATHS)
PANDA = {
    "model": "some-model",
    "query": "What is panda?",
    "top_n": 3,
    "documents": [
        "hi",
        "it is a bear",
        "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear "
        "species endemic to China.",
    ],
}
QUERY = "Machine learning is"
DOCUMENTS = [
    "A machine is a physical system that uses power to apply forces and control movement to perform an "
    "action. The term is commonly applied to artificial devices, such as those employing engines or motors, "
    "but also to natural biological macromolecules, such as molecular machines.",
    "Learning is the process of acquiring new understanding, knowledge, behaviors, skills, values, "
    "attitudes, and preferences. The ability to learn is possessed by humans, non-human animals, and some "
    "machines; there is also evidence for some kind of learning in certain plants.",
    "Machine learning is a field of study in artificial intelligence concerned with the development and "
    "study of statistical algorithms that can learn from data and generalize to unseen data, and thus "
    "perform tasks without explicit instructions.",
    "Paris, capitale de la France, est une grande ville européenne et un centre mondial de l'art, de la "
    "mode, de la gastronomie et de la culture. Son paysage urbain du XIXe siècle est traversé par de larges "
    "boulevards et la Seine.",
]


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with running(service) as client:
        yield client


@pytest.fixture(scope="module")
def llama(service: Service) -> Llama:
    return service.llamas()[RERANKER]


def ask(client: httpx.Client, path: str, **request: Any) -> Any:
    answer = client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ALSO_PLAIN)
def test_llama_server_s_example_has_llama_server_s_answer(client: httpx.Client, path: str) -> None:
    answer = ask(client, path, **PANDA)
    assert {"model", "object", "usage", "results"} <= set(answer)
    assert answer["object"] == "list"
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"]
    assert answer["results"][0]["index"] == 2
    assert all(result["relevance_score"] == result["score"] for result in answer["results"])


@pytest.mark.parametrize("path", PATHS)
def test_scores_are_the_model_s_raw_logits(client: httpx.Client, llama: Llama, path: str) -> None:
    answer = ask(client, path, query=QUERY, documents=DOCUMENTS)
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert [scores[i] for i in range(4)] == pytest.approx(llama.rerank(QUERY, DOCUMENTS).tolist(), abs=1e-3)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert max(scores, key=lambda index: scores[index]) == 2
    assert min(scores, key=lambda index: scores[index]) == 3


@pytest.mark.parametrize(
    ("top_n", "expected"),
    [(None, 4), (2, 2), (4, 4), (99, 4), (10**15, 4), (0, 4), (-1, 4), (2.0, 2), ("2", 2)],
)
def test_top_n_means_what_vllm_means_by_it(client: httpx.Client, top_n: object, expected: int) -> None:
    answer = ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, top_n=top_n)
    assert len(answer["results"]) == expected
    assert len(ask(client, "/rerank", query=QUERY, texts=DOCUMENTS, top_n=top_n)) == expected


def test_usage_counts_the_tokens_of_all_pairs(client: httpx.Client, llama: Llama) -> None:
    n_tokens = llama.rank("Which city?", ["Machine learning is ", "Paris, capitale de la"]).n_tokens
    answer = ask(
        client, "/rerank", query="Which city?", documents=["Machine learning is ", "Paris, capitale de la"]
    )
    assert answer["usage"]["prompt_tokens"] == n_tokens


@pytest.mark.parametrize("documents", [[], None, 123, [1, 2, 3]])
@pytest.mark.parametrize("path", ALSO_PLAIN)
def test_documents_that_are_none_are_refused(client: httpx.Client, path: str, documents: object) -> None:
    answer = client.post(path, json={"query": QUERY, "documents": documents})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("documents")


def test_the_plain_path_sends_documents_back_and_llama_server_s_do_not(client: httpx.Client) -> None:
    plain = ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, top_n=2)["results"]
    assert [result["document"]["text"] for result in plain] == [
        DOCUMENTS[result["index"]] for result in plain
    ]
    for word, has_documents in ((False, False), ("false", False), ("true", True), ("yes", True)):
        found = ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, return_documents=word)["results"]
        assert {"document" in result for result in found} == {has_documents}
    assert not any("document" in r for r in ask(client, "/reranking", **PANDA)["results"])
    assert all("document" in r for r in ask(client, "/reranking", **PANDA, return_documents=True)["results"])


@pytest.mark.parametrize("words", [{"normalize": True}, {"raw_scores": False}])
def test_normalize_gives_sigmoids_in_the_same_order(client: httpx.Client, words: dict[str, bool]) -> None:
    logits = ask(client, "/reranking", query=QUERY, documents=DOCUMENTS)["results"]
    raw = ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, raw_scores=True)["results"]
    assert [r["score"] for r in raw] == pytest.approx([r["score"] for r in logits], abs=1e-3)
    sigmoids = ask(client, "/rerank", query=QUERY, documents=DOCUMENTS, **words)["results"]
    assert [result["index"] for result in sigmoids] == [result["index"] for result in logits]
    assert [result["score"] for result in sigmoids] == pytest.approx(
        [1 / (1 + 2.718281828459045 ** -result["score"]) for result in logits], abs=1e-6
    )


def test_a_threshold_is_on_the_scale_of_the_answer(client: httpx.Client) -> None:
    logits = [r["score"] for r in ask(client, "/reranking", query=QUERY, documents=DOCUMENTS)["results"]]
    for words, threshold in (({}, (logits[1] + logits[2]) / 2), ({"normalize": True}, 0.5)):
        kept = ask(client, "/reranking", query=QUERY, documents=DOCUMENTS, threshold=threshold, **words)[
            "results"
        ]
        assert [result["score"] >= threshold for result in kept] == [True] * len(kept)
        assert len(kept) == (2 if not words else sum(logit >= 0 for logit in logits))


def test_a_document_that_was_cut_is_marked_and_fails_nothing_else(client: httpx.Client) -> None:
    answer = ask(client, "/v1/reranking", query=QUERY, documents=[*DOCUMENTS, "machine " * 600])
    assert {result["index"]: result["truncated"] for result in answer["results"]} == {
        0: False, 1: False, 2: False, 3: False, 4: True
    }  # fmt: skip


def test_truncate_says_what_is_done_with_a_document_that_is_too_long(
    client: httpx.Client, llama: Llama
) -> None:
    long = "machine " * 1000 + DOCUMENTS[2]
    by_chunks = ask(client, "/reranking", query=QUERY, documents=[long], truncate="chunk")["results"][0][
        "score"
    ]
    assert by_chunks == pytest.approx(float(llama.rerank(QUERY, [long], truncate="chunk")[0]), abs=1e-3)
    answer = client.post("/rerank", json={"query": QUERY, "documents": [long], "truncate": "error"})
    assert answer.status_code == 400
    assert "document 0 has 10" in answer.json()["error"]["message"]


def test_its_own_path_embeds(client: httpx.Client) -> None:
    two = ask(client, "/embedding", content=["a text", "another"])
    [one] = ask(client, "/embedding", content="a text")
    by_openai = ask(client, "/v1/embeddings", input=["a text", "another"])["data"]
    assert [row["embedding"] for row in two] == [[row["embedding"]] for row in by_openai]
    assert one["embedding"][0] == pytest.approx(by_openai[0]["embedding"], abs=1e-4)
