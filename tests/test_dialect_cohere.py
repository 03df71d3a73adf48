"""Cohere's own Python client, both of its APIs, sync and async, against this server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import cohere
import numpy as np
import pytest

from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, running, service_of

QUERY = "What is the capital of the United States?"
# As in the example of Cohere's API reference.
DOCUMENTS = [
    "Carson City is the capital city of the American state of Nevada.",
    "The Commonwealth of the Northern Mariana Islands is a group of islands in the Pacific Ocean. Its "
    "capital is Saipan.",
    "Washington, D.C. (also known as simply Washington or D.C., and officially as the District of Columbia) "
    "is the capital of the United States. It is a federal district.",
    "Capitalization or capitalisation in English grammar is the use of a capital letter at the start of a "
    "word. English usage varies from capitalization in other languages.",
    "Capital punishment has existed in the United States since before the United States was a country. As "
    "of 2017, capital punishment is legal in 30 of the 50 states.",
]
TOO_LONG = "Washington is the capital. " * 400


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with running(service) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def logits(service: Service, url: str) -> list[float]:
    return [float(logit) for logit in service.llamas()[RERANKER].rerank(QUERY, DOCUMENTS)]


@pytest.fixture
def v2(url: str) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="none", base_url=url, timeout=LONG)


@pytest.fixture
def v1(url: str) -> cohere.Client:
    return cohere.Client(api_key="none", base_url=url, timeout=LONG)


def test_the_second_api_gives_the_sigmoids_of_the_model_s_logits_unrounded(
    v2: cohere.ClientV2, logits: list[float]
) -> None:
    answer = v2.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS, top_n=3)
    by_sentence_transformers = [1 / (1 + 2.718281828459045**-logit) for logit in logits]
    best = sorted(range(5), key=lambda i: -logits[i])[:3]
    assert [result.index for result in answer.results] == best
    assert [result.relevance_score for result in answer.results] == pytest.approx(
        [by_sentence_transformers[i] for i in best], abs=1e-4
    )


def test_the_second_api_s_answer_has_what_the_client_reads(v2: cohere.ClientV2) -> None:
    answer = v2.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)
    assert answer.id
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "2"
    assert answer.meta.billed_units is not None
    assert answer.meta.billed_units.search_units == 1
    assert answer.meta.warnings is None


def test_the_first_api_s_answer_has_what_the_client_reads(v1: cohere.Client, logits: list[float]) -> None:
    answer = v1.rerank(model="rerank-english-v3.0", query=QUERY, documents=DOCUMENTS, top_n=1)
    assert answer.meta is not None
    assert answer.meta.api_version is not None
    assert answer.meta.api_version.version == "1"
    [best] = answer.results
    assert best.index == max(range(5), key=lambda i: logits[i])
    assert best.document is None


def test_the_first_api_returns_documents_when_asked(v1: cohere.Client) -> None:
    answer = v1.rerank(query=QUERY, documents=DOCUMENTS, return_documents=True)
    for result in answer.results:
        assert result.document is not None
        assert result.document.text == DOCUMENTS[result.index]


def test_objects_with_a_text_rank_as_their_texts(v1: cohere.Client) -> None:
    as_strings = v1.rerank(query=QUERY, documents=DOCUMENTS)
    as_objects = v1.rerank(query=QUERY, documents=[{"text": text} for text in DOCUMENTS])
    assert [(r.index, r.relevance_score) for r in as_objects.results] == [
        (r.index, r.relevance_score) for r in as_strings.results
    ]


def test_rank_fields_say_what_of_an_object_is_ranked(v1: cohere.Client) -> None:
    objects = [
        {"title": "Washington, D.C. is the capital of the United States.", "text": "Llamas."},
        {"title": "Llamas.", "text": "Washington, D.C. is the capital of the United States."},
    ]
    assert v1.rerank(query=QUERY, documents=objects, rank_fields=["title"]).results[0].index == 0
    assert v1.rerank(query=QUERY, documents=objects, rank_fields=["text"]).results[0].index == 1
    assert v1.rerank(query=QUERY, documents=objects).results[0].index == 1


def test_the_second_api_reads_objects_as_yaml(url: str) -> None:
    client = cohere.ClientV2(api_key="none", base_url=url, timeout=LONG)
    answer = client.rerank(
        model="any",
        query=QUERY,
        documents=["title: Llamas\nfood: grass"],
        request_options={"additional_body_parameters": {"documents": [{"title": "Llamas", "food": "grass"}]}},
    )
    as_string = client.rerank(model="any", query=QUERY, documents=["title: Llamas\nfood: grass"])
    assert answer.results[0].relevance_score == as_string.results[0].relevance_score


def test_a_document_that_was_cut_is_marked_and_fails_nothing_else(v2: cohere.ClientV2) -> None:
    answer = v2.rerank(model="any", query=QUERY, documents=[*DOCUMENTS, TOO_LONG])
    assert len(answer.results) == 6
    assert [r.index for r in answer.results if r.model_extra and r.model_extra["truncated"]] == [5]
    assert answer.meta is not None
    assert answer.meta.warnings == ["documents cut to fit the model: 1"]


def test_the_embedder_s_name_ranks_by_cosine(v2: cohere.ClientV2, service: Service) -> None:
    ranking = service.llamas()[EMBEDDER].rank(QUERY, DOCUMENTS)
    cosines = {ranked.index: ranked.score for ranked in ranking}
    answer = v2.rerank(model=EMBEDDER, query=QUERY, documents=DOCUMENTS)
    assert {r.index: r.relevance_score for r in answer.results} == pytest.approx(cosines, abs=1e-4)


def test_no_documents_are_a_bad_request_that_names_the_field(v1: cohere.Client, v2: cohere.ClientV2) -> None:
    with pytest.raises(cohere.BadRequestError) as first:
        v1.rerank(query=QUERY, documents=[])
    with pytest.raises(cohere.BadRequestError) as second:
        v2.rerank(model="any", query=QUERY, documents=[])
    for error in (first.value, second.value):
        assert error.body["message"].startswith("documents: ")


def test_the_async_clients_get_the_same(v1: cohere.Client, url: str) -> None:
    async def ask() -> list[list[tuple[int, float]]]:
        first = cohere.AsyncClient(api_key="none", base_url=url, timeout=LONG)
        second = cohere.AsyncClientV2(api_key="none", base_url=url, timeout=LONG)
        answers = [  # one after the other: in one micro-batch they would differ by q8_0's rounding
            await first.rerank(query=QUERY, documents=DOCUMENTS),
            await second.rerank(model="any", query=QUERY, documents=DOCUMENTS),
        ]
        return [[(r.index, r.relevance_score) for r in answer.results] for answer in answers]

    alone = v1.rerank(query=QUERY, documents=DOCUMENTS)
    for answer in asyncio.run(ask()):
        assert [index for index, _ in answer] == [result.index for result in alone.results]
        scores = [score for _, score in answer]
        assert scores == pytest.approx([result.relevance_score for result in alone.results], abs=1e-4)


@pytest.mark.parametrize("input_type", ["search_query", "search_document", "classification"])
def test_the_second_api_embeds(v2: cohere.ClientV2, service: Service, input_type: str) -> None:
    answer = v2.embed(
        model="embed-v4.0", input_type=input_type, texts=DOCUMENTS, embedding_types=["float", "base64"]
    )
    expected = service.llamas()[EMBEDDER].embed_many(DOCUMENTS)
    assert answer.embeddings.float_ is not None
    assert answer.embeddings.base64 is not None
    np.testing.assert_allclose(answer.embeddings.float_, expected, atol=1e-4)
    read = [np.frombuffer(base64.b64decode(vector), "<f4") for vector in answer.embeddings.base64]
    np.testing.assert_array_equal(np.array(read), np.array(answer.embeddings.float_, np.float32))
    assert answer.texts == DOCUMENTS


def test_the_first_api_embeds_to_plain_lists(v1: cohere.Client, service: Service) -> None:
    answer = v1.embed(texts=DOCUMENTS, model="embed-english-v3.0", input_type="search_document")
    expected = service.llamas()[EMBEDDER].embed_many(DOCUMENTS)
    np.testing.assert_allclose(np.array(answer.embeddings), expected, atol=1e-4)


def test_what_is_not_known_of_embeddings_is_refused(v2: cohere.ClientV2) -> None:
    asked = {"model": "m", "texts": ["a"], "input_type": "search_query"}
    for wrong in (
        {"embedding_types": ["int8"]},
        {"truncate": "START"},
        {"input_type": "image"},
        {"texts": []},
    ):
        with pytest.raises(cohere.BadRequestError, match="must be"):
            v2.embed(**{**asked, **wrong})  # type: ignore[arg-type]
    with pytest.raises(cohere.BadRequestError, match="texts"):
        v2.embed(**{**asked, "texts": [TOO_LONG], "truncate": "NONE"})  # type: ignore[arg-type]
