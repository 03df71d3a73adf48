"""Segment ids: the logits of BERT cross-encoders that read a pair's document as segment 1.

Expected are the logits of transformers' ``BertForSequenceClassification`` (``scripts/make_goldens.py``), with
token ids and segment ids of the original tokenizer. ``test_tiny_parity.py`` has other pairs for these models.
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

KINDS = ("bert-reranker-segments", "bert-reranker-segments-384")
ENGINES = ("llama.cpp", "openvino")
NEAR_TORCH = 1e-3


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module", params=[(k, e) for k in KINDS for e in ENGINES], ids="-".join)
def kind_and_reranker(request: pytest.FixtureRequest, directory: Path) -> Iterator[tuple[str, Llama]]:
    kind, engine = request.param
    with Llama.load(tiny_models.write(kind, directory), engine=engine, n_seq_max=64) as llama:
        yield kind, llama


def test_pairs_of_every_length_have_the_original_s_logits(kind_and_reranker: tuple[str, Llama]) -> None:
    kind, reranker = kind_and_reranker
    pairs, expected = goldens.segment_pairs()["lengths"], goldens.segment_logits(kind, "lengths")
    alone = np.concatenate([reranker.score_pairs([pair]) for pair in pairs])
    assert _largest(alone, expected) < NEAR_TORCH
    assert _largest(reranker.score_pairs(pairs), expected) < NEAR_TORCH


def test_cut_queries_and_documents_keep_their_segments(kind_and_reranker: tuple[str, Llama]) -> None:
    kind, reranker = kind_and_reranker
    logits = reranker.score_pairs(goldens.segment_pairs()["cut"])
    assert _largest(logits, goldens.segment_logits(kind, "cut")) < NEAR_TORCH


def test_every_window_of_a_long_document_is_segment_1(kind_and_reranker: tuple[str, Llama]) -> None:
    kind, reranker = kind_and_reranker
    logits = reranker.score_pairs(goldens.segment_pairs()["windows"], truncate="chunk")
    assert _largest(logits, goldens.segment_logits(kind, "windows")) < NEAR_TORCH


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_pairs_without_segment_ids_are_wrong_by_units(engine: str, directory: Path) -> None:
    """``ggrank.segment_ids`` is false in this file, so the logits are those of torch with zeros alone."""
    path = tiny_models.write("bert-reranker-segments-off", directory)
    with Llama.load(path, engine=cast(Any, engine)) as llama:
        logits = llama.score_pairs(goldens.pairs())
    assert _largest(logits, goldens.segment_logits(KINDS[0], "without")) < NEAR_TORCH
    assert _largest(logits, goldens.load(KINDS[0]).outputs[:, 0]) > 1


def _largest(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.abs(found - expected).max())
