"""OpenAI's own Python client against this server: embeddings in all their forms, and models."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from ggrank import Llama
from ggrank.hub.presets import bundled_path, presets
from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, running, service_of

TEXTS = ["The food was delicious and the waiter was kind.", "Llamas graze on the Altiplano.", ""]


@pytest.fixture(scope="module")
def service() -> Service:
    return service_of(EMBEDDER, RERANKER)


@pytest.fixture(scope="module")
def url(service: Service) -> Iterator[str]:
    with running(service) as client:
        yield f"{client.base_url}/v1"


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="none", base_url=url, timeout=LONG, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def llama(service: Service) -> Llama:
    return service.llamas()[EMBEDDER]


@pytest.fixture(scope="module")
def vectors(llama: Llama) -> NDArray[np.float32]:
    return llama.embed_many(TEXTS)


def test_vectors_are_the_model_s(client: openai.OpenAI, vectors: NDArray[np.float32]) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS)
    assert [item.index for item in answer.data] == [0, 1, 2]
    np.testing.assert_allclose([item.embedding for item in answer.data], vectors, atol=1e-4)
    assert answer.model == EMBEDDER


def test_one_text_is_a_list_of_one(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="any", input=TEXTS[0], encoding_format="float")
    many = client.embeddings.create(model="any", input=[TEXTS[0]], encoding_format="float")
    assert one.data == many.data


def test_floats_are_the_numbers_that_base64_holds(client: openai.OpenAI) -> None:
    # The client asks for base64 unless told otherwise, and decodes it; told so, it does not.
    floats = client.embeddings.create(model="any", input=TEXTS, encoding_format="float")
    decoded = client.embeddings.create(model="any", input=TEXTS)
    packed = client.embeddings.create(model="any", input=TEXTS, encoding_format="base64")
    for exact, by_client, packet in zip(floats.data, decoded.data, packed.data, strict=True):
        assert np.float32(exact.embedding).tolist() == by_client.embedding
        assert isinstance(packet.embedding, str)
        by_hand = np.frombuffer(base64.b64decode(packet.embedding), dtype="<f4")
        assert np.float32(exact.embedding).tolist() == by_hand.tolist()


def test_usage_counts_the_tokens_that_were_computed(client: openai.OpenAI, llama: Llama) -> None:
    n_tokens = sum(map(llama.count_tokens, TEXTS))
    usage = client.embeddings.create(model="any", input=TEXTS).usage
    assert (usage.prompt_tokens, usage.total_tokens) == (n_tokens, n_tokens)


def test_tokens_are_the_text_that_they_came_from(client: openai.OpenAI, llama: Llama) -> None:
    tokens = [[101, *llama.tokenize(text).tolist(), 102] for text in TEXTS[:2]]
    texts = client.embeddings.create(model="any", input=TEXTS[:2])
    lists = client.embeddings.create(model="any", input=tokens)
    alone = client.embeddings.create(model="any", input=tokens[0])
    for text, ids in zip(texts.data, lists.data, strict=True):
        assert ids.embedding == pytest.approx(text.embedding, abs=1e-4)
    assert alone.data[0].embedding == pytest.approx(texts.data[0].embedding, abs=1e-4)


@pytest.mark.parametrize("tokens", [[9906, 1917], [101, 7592], [102, 7592, 101], [101], [102]])
def test_ids_that_may_be_another_tokenizer_s_are_refused_with_the_way_out(
    client: openai.OpenAI, tokens: list[int]
) -> None:
    """Such as tiktoken's, which LangChain's OpenAIEmbeddings sends by default: 9906, 1917 for Hello world."""
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
        client.embeddings.create(model="any", input=[tokens])


def test_dimensions_cut_a_vector_and_give_it_length_one_again(
    vectors: NDArray[np.float32], tmp_path: Path
) -> None:
    """The bundled model's weights under the name of one that was trained with 256 too."""
    path = shutil.copy(bundled_path(presets()[EMBEDDER]), tmp_path / "snowflake-arctic-embed-m-v1.5-x.gguf")
    with (
        running(service_of(str(path))) as http,
        openai.OpenAI(api_key="none", base_url=f"{http.base_url}/v1", timeout=LONG, max_retries=0) as client,
    ):
        answer = client.embeddings.create(model="any", input=TEXTS, dimensions=256)
        cut = vectors[:, :256] / np.linalg.norm(vectors[:, :256], axis=1, keepdims=True)
        np.testing.assert_allclose([item.embedding for item in answer.data], cut, atol=1e-4)
        with pytest.raises(
            openai.BadRequestError, match=r"dimensions of .* must be 256, or 384 for the whole"
        ):
            client.embeddings.create(model="any", input=TEXTS, dimensions=64)
    # Cut and then given length 1, which is another thing than a part of a vector of length 1.
    assert np.linalg.norm(answer.data[0].embedding) == pytest.approx(1, abs=1e-5)


def test_all_dimensions_may_be_asked_for_and_others_are_refused(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="any", input="a", dimensions=384)
    assert len(whole.data[0].embedding) == 384
    for dimensions in (64, 385):
        with pytest.raises(openai.BadRequestError, match=f"dimensions must be 384, found {dimensions}"):
            client.embeddings.create(model="any", input="a", dimensions=dimensions)


def test_a_text_that_was_cut_is_marked(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="any", input=["short", "long " * 600])
    assert [item.model_extra for item in answer.data] == [{"truncated": False}, {"truncated": True}]


def test_truncate_false_refuses_a_text_that_is_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="text 1"):
        client.embeddings.create(model="any", input=["short", "long " * 600], extra_body={"truncate": False})


def test_normalize_false_gives_the_model_s_own_lengths(client: openai.OpenAI, llama: Llama) -> None:
    raw = llama.embed(TEXTS[0], normalize=False)
    for name in ("normalize", "normalized"):  # ggrank's word and Jina's
        answer = client.embeddings.create(model="any", input=TEXTS[0], extra_body={name: False})
        np.testing.assert_allclose(answer.data[0].embedding, raw, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"input": []}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": [1.5]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": ["a", None]}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": [[1], "a"]}, "input"),
        ({"input": [2**31 - 1]}, "input"),
        ({"input": [[1], [30522]]}, "input"),
        ({"input": ["short", "long " * 600], "truncate": False}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 385}, "dimensions"),
        ({"input": "a", "truncate": "chunk"}, "truncate"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "truncate": "middle"}, "truncate"),
    ],
)
def test_a_bad_request_names_its_field(client: openai.OpenAI, wrong: dict[str, object], field: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.post("/embeddings", body=wrong, cast_to=object)
    assert caught.value.param == field
    assert caught.value.type == "invalid_request_error"
    assert caught.value.message.startswith(f"Error code: 400 - {field}")


def test_more_inputs_than_a_request_may_have_name_their_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError, match="input: 2,049 in one request, 2,048 at most") as caught:
        client.embeddings.create(model="any", input=["a"] * 2049)
    assert (caught.value.status_code, caught.value.param) == (413, "input")


def test_an_encoding_that_is_not_known_is_told_as_it_was_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="must be 'float' or 'base64', found 'int8'"):
        client.post("/embeddings", body={"input": "a", "encoding_format": "int8"}, cast_to=object)


def test_a_token_that_the_model_does_not_have_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="0 to 30521"):
        client.embeddings.create(model="any", input=[2**31 - 1])


def test_a_reranker_s_name_means_the_embedder(client: openai.OpenAI) -> None:
    assert client.embeddings.create(model=RERANKER, input="a").model == EMBEDDER


def test_models_are_listed_and_found_by_name(client: openai.OpenAI) -> None:
    listed = list(client.models.list())
    assert [model.id for model in listed] == [EMBEDDER, RERANKER]
    assert client.models.retrieve(RERANKER) == listed[1]
    assert listed[1].model_extra is not None
    assert listed[1].model_extra["meta"]["mode"] == "rerank"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt/none")


def test_the_async_client_gets_the_same(client: openai.OpenAI, url: str) -> None:
    async def ask() -> list[float]:
        async with openai.AsyncOpenAI(api_key="none", base_url=url, timeout=LONG) as asking:
            return (await asking.embeddings.create(model="any", input=TEXTS[0])).data[0].embedding

    alone = client.embeddings.create(model="any", input=TEXTS[0]).data[0].embedding
    assert asyncio.run(ask()) == pytest.approx(alone, abs=1e-4)
