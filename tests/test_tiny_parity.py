"""Scores, vectors and token ids equal the original models', for every kind of tiny model.

The originals are transformers' models, computed by torch (``scripts/make_goldens.py``); here their answers are
read from ``tests/goldens/tiny``. Flash attention is off: it reads keys and values in float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tiny_models
from ggrank import Llama
from tiny import goldens

RERANKERS = [kind for kind in tiny_models.KINDS if "reranker" in kind]
EMBEDDERS = [kind for kind in tiny_models.KINDS if "reranker" not in kind]
NEAR_TORCH = 1e-3
NEAR_ITSELF = 1e-4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module", params=RERANKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=EMBEDDERS)
def embedder_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def reranker(kind: str, directory: Path) -> Iterator[Llama]:
    with Llama.load(tiny_models.write(kind, directory), flash_attn=False) as llama:
        yield llama


@pytest.fixture(scope="module")
def embedder(embedder_kind: str, directory: Path) -> Iterator[Llama]:
    with Llama.load(tiny_models.write(embedder_kind, directory), flash_attn=False) as llama:
        yield llama


def test_pairs_get_the_token_ids_of_the_original_tokenizer(reranker: Llama, kind: str) -> None:
    found = [_pair_ids(reranker, query, document) for query, document in goldens.pairs()]
    assert _differences(found, goldens.load(kind).ids) == []


def test_texts_get_the_token_ids_of_the_original_tokenizer(embedder: Llama, embedder_kind: str) -> None:
    found = [_text_ids(embedder, text) for text in goldens.texts()]
    assert _differences(found, goldens.load(embedder_kind).ids) == []


def test_every_logit_is_the_original_s_whether_alone_or_in_a_batch(reranker: Llama, kind: str) -> None:
    expected = goldens.load(kind).outputs[:, 0]
    alone = np.concatenate([reranker.score_pairs([pair]) for pair in goldens.pairs()])
    together = reranker.score_pairs(goldens.pairs())
    assert np.ptp(expected) > (0.9 if reranker.score_scale == "probability" else 1.7)
    assert _largest(together, expected) < NEAR_TORCH
    assert _largest(alone, expected) < NEAR_TORCH


def test_every_vector_is_the_original_s_whether_alone_or_in_a_batch(
    embedder: Llama, embedder_kind: str
) -> None:
    expected = _normalized(goldens.load(embedder_kind).outputs)
    alone = np.stack([embedder.embed(text) for text in goldens.texts()])
    together = embedder.embed_many(goldens.texts())
    assert (together * expected).sum(axis=1).min() > 0.99999
    assert (alone * expected).sum(axis=1).min() > 0.99999
    assert max(_largest(together, expected), _largest(alone, expected)) < NEAR_TORCH


def test_lengths_reach_from_a_few_tokens_to_all_that_fit(reranker: Llama, kind: str) -> None:
    lengths = {len(ids) for ids in goldens.load(kind).ids}
    assert {reranker.n_ctx - 1, reranker.n_ctx} <= lengths
    assert len(lengths) > 40


def test_a_score_does_not_depend_on_its_company(reranker: Llama) -> None:
    pairs = goldens.pairs()
    alone = np.concatenate([reranker.score_pairs([pair]) for pair in pairs])
    order = np.random.default_rng(3).permutation(len(pairs))
    reordered = np.empty_like(alone)
    reordered[order] = reranker.score_pairs([pairs[i] for i in order])
    packed = [reranker.score_pairs([pair] + pairs[:63])[0] for pair in pairs[::10]]
    assert _largest(reranker.score_pairs(pairs), alone) < NEAR_ITSELF
    assert _largest(reordered, alone) < NEAR_ITSELF
    assert _largest(np.array(packed), alone[::10]) < NEAR_ITSELF


def test_a_vector_does_not_depend_on_its_company(embedder: Llama) -> None:
    texts = goldens.texts()
    alone = np.stack([embedder.embed(text) for text in texts])
    order = np.random.default_rng(4).permutation(len(texts))
    reordered = np.empty_like(alone)
    reordered[order] = embedder.embed_many([texts[i] for i in order])
    packed = [embedder.embed_many([text] + texts[:63])[0] for text in texts[::10]]
    assert _largest(embedder.embed_many(texts), alone) < NEAR_ITSELF
    assert _largest(reordered, alone) < NEAR_ITSELF
    assert _largest(np.array(packed), alone[::10]) < NEAR_ITSELF


def test_rerank_of_one_query_gives_the_same_logits_as_its_pairs(reranker: Llama) -> None:
    documents = [document for _, document in goldens.pairs()][:40]
    pairs = [("Who may vote?", document) for document in documents]
    assert _largest(reranker.rerank("Who may vote?", documents), reranker.score_pairs(pairs)) < NEAR_ITSELF


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_smaller_weights_move_logits_a_little(
    reranker: Llama, kind: str, dtype: str, directory: Path
) -> None:
    path = tiny_models.write(kind, directory, dtype=dtype)
    with Llama.load(path, flash_attn=False) as quantized:
        moved = np.abs(quantized.score_pairs(goldens.pairs()) - reranker.score_pairs(goldens.pairs()))
    assert 0 < np.median(moved) < (0.02 if dtype == "f16" else 0.2)


# What a sequence is before it is computed has no public name: these two go through the stages as `Llama` does.


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
