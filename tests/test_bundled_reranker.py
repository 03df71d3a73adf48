"""The bundled reranker is a sound file, and gives the logits that its weights give in transformers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest

import build_bundled_models
import make_goldens_reranker
from ggrank import Llama, PoolingType
from ggrank.gguf import open_gguf
from ggrank.hub.presets import bundled_path, presets

PATH = bundled_path(presets()["ggrank-reranker-mini"])


@pytest.fixture(scope="module")
def reranker() -> Iterator[Llama]:
    with Llama.load("ggrank-reranker-mini") as model:
        yield model


def test_the_file_has_its_sum_and_at_most_27_megabytes() -> None:
    recorded = build_bundled_models.read_sums(PATH.parent)[PATH.name]
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == recorded
    assert PATH.stat().st_size <= 27_000_000


def test_the_notice_names_licence_and_sources() -> None:
    notice = Path(PATH.parent, "NOTICE").read_text("utf-8")
    for expected in (PATH.name, "Apache License 2.0", "all-MiniLM-L6-v2", "training/MODEL_CARD.md"):
        assert expected in notice


def test_the_file_says_what_it_is() -> None:
    file = open_gguf(PATH)
    assert (file.architecture, file.n_ctx_train, file.quantization) == ("bert", 512, "q8_0")
    assert file.pooling_type is PoolingType.RANK
    assert file.metadata["general.name"] == "ggrank-reranker-mini"
    assert {"cls.weight", "cls.bias", "cls.output.weight", "cls.output.bias"} <= set(file.tensors)


def test_a_document_has_segment_ids_of_its_own() -> None:
    (types,) = (tensor for tensor in gguf.GGUFReader(PATH).tensors if tensor.name == "token_types.weight")
    first, second = types.data.reshape(2, -1)
    assert np.abs(first - second).max() > 1e-4


def test_the_logits_are_those_of_transformers_up_to_q8_0_s_noise(reranker: Llama) -> None:
    logits = reranker.score_pairs(make_goldens_reranker.pairs())
    expected = np.load(make_goldens_reranker.GOLDENS)
    assert logits.shape == expected.shape == (1000,)
    assert np.corrcoef(logits, expected)[0, 1] > 0.9995
    assert np.abs(logits - expected).max() < 0.03 * (expected.max() - expected.min())


def test_an_answer_is_above_zero_and_a_stranger_below(reranker: Llama) -> None:
    answer, stranger = reranker.rerank(
        "How long does cooked rice keep?",
        ["Cooked rice keeps three to four days in the refrigerator.", "The Rhine rises in the Alps."],
    )
    assert answer > 0 > stranger
