"""Scores, vectors and token ids equal the original models', for every kind of tiny model.

The originals are transformers' models, computed by torch (``scripts/make_goldens.py``); here their answers
are read from ``tests/goldens/tiny``. Models are loaded as users load them, with each engine that can
compute them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from ggrank import Llama
from tiny import goldens

RERANKERS = [kind for kind in tiny_models.KINDS if "reranker" in kind]
EMBEDDERS = [kind for kind in tiny_models.KINDS if "reranker" not in kind]
WITH_OPENVINO = ("bert", "xlmr")  # kinds whose network the second engine knows
NEAR_TORCH = 1e-3
NEAR_ITSELF = 1e-4
COMPANY = 64


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def _with_engines(kinds: list[str]) -> list[tuple[str, str]]:
    both = [kind for kind in kinds if kind.startswith(WITH_OPENVINO)]
    return [*((kind, "llama.cpp") for kind in kinds), *((kind, "openvino") for kind in both)]


@pytest.fixture(scope="module", params=_with_engines(RERANKERS), ids="-".join)
def kind_and_engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    return cast(tuple[str, str], request.param)


@pytest.fixture(scope="module", params=_with_engines(EMBEDDERS), ids="-".join)
def embedder_kind_and_engine(request: pytest.FixtureRequest) -> tuple[str, str]:
    return cast(tuple[str, str], request.param)


@pytest.fixture(scope="module")
def kind(kind_and_engine: tuple[str, str]) -> str:
    return kind_and_engine[0]


@pytest.fixture(scope="module")
def embedder_kind(embedder_kind_and_engine: tuple[str, str]) -> str:
    return embedder_kind_and_engine[0]


@pytest.fixture(scope="module")
def reranker(kind_and_engine: tuple[str, str], directory: Path) -> Iterator[Llama]:
    kind, engine = kind_and_engine
    with _load(kind, directory, engine=engine) as llama:
        yield llama


@pytest.fixture(scope="module")
def embedder(embedder_kind_and_engine: tuple[str, str], directory: Path) -> Iterator[Llama]:
    kind, engine = embedder_kind_and_engine
    with _load(kind, directory, engine=engine) as llama:
        yield llama


@pytest.fixture(scope="module")
def alone(reranker: Llama) -> NDArray[np.float32]:
    """The logit of each pair, computed by itself."""
    return np.concatenate([reranker.score_pairs([pair]) for pair in goldens.pairs()])


@pytest.fixture(scope="module")
def vectors_alone(embedder: Llama) -> NDArray[np.float32]:
    """The vector of each text, computed by itself."""
    return np.stack([embedder.embed(text) for text in goldens.texts()])


def test_pairs_get_the_token_ids_of_the_original_tokenizer(reranker: Llama, kind: str) -> None:
    found = [_pair_ids(reranker, query, document) for query, document in goldens.pairs()]
    assert _differences(found, goldens.load(kind).ids) == []


def test_texts_get_the_token_ids_of_the_original_tokenizer(embedder: Llama, embedder_kind: str) -> None:
    found = [_text_ids(embedder, text) for text in goldens.texts()]
    assert _differences(found, goldens.load(embedder_kind).ids) == []


def test_every_logit_is_the_original_s_whether_alone_or_in_a_batch(
    reranker: Llama, kind: str, alone: NDArray[np.float32]
) -> None:
    expected = goldens.load(kind).outputs[:, 0]
    assert _largest(reranker.score_pairs(goldens.pairs()), expected) < NEAR_TORCH
    assert _largest(alone, expected) < NEAR_TORCH


def test_the_logits_compared_are_far_apart(kind: str) -> None:
    narrow = {"qwen3-reranker": 0.9, "jina-reranker": 1.7}  # their heads end in a softmax and a tanh
    assert np.ptp(goldens.load(kind).outputs) > narrow.get(kind, 5)


def test_every_vector_is_the_original_s_whether_alone_or_in_a_batch(
    embedder: Llama, embedder_kind: str, vectors_alone: NDArray[np.float32]
) -> None:
    expected = _normalized(goldens.load(embedder_kind).outputs)
    for vectors in (vectors_alone, embedder.embed_many(goldens.texts())):
        assert (vectors * expected).sum(axis=1).min() > 0.99999
        assert _largest(vectors, expected) < NEAR_TORCH


def test_lengths_reach_from_a_few_tokens_to_all_that_fit(reranker: Llama, kind: str) -> None:
    lengths = {len(ids) for ids in goldens.load(kind).ids}
    assert {reranker.n_ctx - 1, reranker.n_ctx} <= lengths
    assert len(lengths) > 40


def test_a_score_does_not_depend_on_its_company(
    reranker: Llama, kind: str, alone: NDArray[np.float32], directory: Path
) -> None:
    pairs, order = goldens.pairs(), np.random.default_rng(3).permutation(len(alone))
    assert _largest(reranker.score_pairs(pairs), alone) < NEAR_ITSELF
    assert _largest(reranker.score_pairs([pairs[i] for i in order]), alone[order]) < NEAR_ITSELF
    packed = _shortest(kind)
    with _load(kind, directory, n_ubatch=_n_tokens(kind, packed), engine=reranker.engine) as llama:
        assert _largest(llama.score_pairs([pairs[i] for i in packed]), alone[packed]) < NEAR_ITSELF
        assert (
            _largest(llama.score_pairs([pairs[i] for i in packed[::-1]]), alone[packed[::-1]]) < NEAR_ITSELF
        )


def test_a_vector_does_not_depend_on_its_company(
    embedder: Llama, embedder_kind: str, vectors_alone: NDArray[np.float32], directory: Path
) -> None:
    texts, order = goldens.texts(), np.random.default_rng(4).permutation(len(vectors_alone))
    assert _largest(embedder.embed_many(texts), vectors_alone) < NEAR_ITSELF
    assert _largest(embedder.embed_many([texts[i] for i in order]), vectors_alone[order]) < NEAR_ITSELF
    packed = _shortest(embedder_kind)
    n_ubatch = _n_tokens(embedder_kind, packed)
    with _load(embedder_kind, directory, n_ubatch=n_ubatch, engine=embedder.engine) as llama:
        assert _largest(llama.embed_many([texts[i] for i in packed]), vectors_alone[packed]) < NEAR_ITSELF


def test_rerank_of_one_query_gives_the_same_logits_as_its_pairs(reranker: Llama) -> None:
    documents = [document for _, document in goldens.pairs()][:40]
    pairs = [("Who may vote?", document) for document in documents]
    assert _largest(reranker.rerank("Who may vote?", documents), reranker.score_pairs(pairs)) < NEAR_ITSELF


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_smaller_weights_move_logits_a_little(
    kind_and_engine: tuple[str, str], dtype: str, directory: Path
) -> None:
    kind, engine = kind_and_engine
    with _load(kind, directory, dtype=dtype, engine=engine) as llama:
        moved = np.abs(llama.score_pairs(goldens.pairs()) - goldens.load(kind).outputs[:, 0])
    assert 1e-5 < np.median(moved) < (0.02 if dtype == "f16" else 0.2)


def _load(
    kind: str, directory: Path, *, dtype: str = "f32", n_ubatch: int = 512, engine: str = "llama.cpp"
) -> Llama:
    path = tiny_models.write(kind, directory, dtype=dtype)
    return Llama.load(path, n_ubatch=n_ubatch, n_seq_max=COMPANY, engine=cast(Any, engine))


def _shortest(kind: str) -> list[int]:
    """As many sequences as are packed together."""
    lengths = [len(ids) for ids in goldens.load(kind).ids]
    return sorted(range(len(lengths)), key=lengths.__getitem__)[:COMPANY]


def _n_tokens(kind: str, indices: list[int]) -> int:
    """Their tokens, rounded up to a multiple of their number."""
    ids = goldens.load(kind).ids
    longest = -(-sum(len(ids[i]) for i in indices) // COMPANY)
    return COMPANY * longest


# What a sequence is before it is computed has no public name: these two take a text as far as `Llama` does.


def _pair_ids(llama: Llama, query: str, document: str) -> list[int]:
    builder = llama._builder
    sequences = builder.pairs(builder.query_part(query, truncate="end"), document, name="", truncate="end")
    return [int(token) for token in sequences[0].tokens]


def _text_ids(llama: Llama, text: str) -> list[int]:
    return [int(token) for token in llama._sequence(text, "the text", "end").tokens]


def _differences(found: list[list[int]], expected: list[list[int]]) -> list[int]:
    assert len(found) == len(expected)
    return [i for i, ids in enumerate(expected) if found[i] != ids]


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max())


def _normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
