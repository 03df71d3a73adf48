"""Tokens and back, compared with the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ggrank.server.service import Service
from serving import EMBEDDER, RERANKER, running, service_of

TEXT = "what is the capital of france?"


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with running(service) as client:
        yield client


@pytest.fixture(scope="module")
def ids(service: Service, client: httpx.Client) -> list[int]:
    return service.llamas()[RERANKER].tokenize(TEXT).tolist()


def ask(client: httpx.Client, path: str, **request: Any) -> Any:
    answer = client.post(path, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_llama_server_s_tokens_are_the_model_s(client: httpx.Client, ids: list[int]) -> None:
    assert ask(client, "/tokenize", content=TEXT) == {"tokens": ids}
    assert ask(client, "/tokenize", content=TEXT, add_special=True) == {"tokens": [101, *ids, 102]}


def test_llama_server_s_pieces_spell_the_text(client: httpx.Client, ids: list[int]) -> None:
    tokens = ask(client, "/tokenize", content=TEXT, with_pieces=True)["tokens"]
    assert [token["id"] for token in tokens] == ids
    assert "".join(token["piece"] for token in tokens).replace(" ", "") == TEXT.replace(" ", "")


def test_tokens_become_the_text_again(client: httpx.Client, ids: list[int]) -> None:
    found = ask(client, "/detokenize", tokens=[101, *ids, 102])["content"]
    assert found.strip().replace(" ?", "?") == TEXT


def test_the_text_of_a_special_token_is_plain_text(client: httpx.Client) -> None:
    assert 102 not in ask(client, "/tokenize", content="[SEP]", add_special=False)["tokens"]


@pytest.mark.parametrize("tokens", [[2**31 - 1], [30522], [-1], [2**63], [1.5], ["a"], [True], [], None])
def test_ids_that_are_no_tokens_are_refused(client: httpx.Client, tokens: object) -> None:
    answer = client.post("/detokenize", json={"tokens": tokens})
    assert answer.status_code == 400
    assert "tokens" in answer.json()["error"]["message"]
