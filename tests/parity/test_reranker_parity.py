"""The bundled reranker beside transformers on the same weights, computed now."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import make_goldens_reranker
import tiny_models
from ggrank import Llama
from make_goldens_reranker import MODEL, pairs

pytestmark = pytest.mark.parity
logger = logging.getLogger(__name__)


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return make_goldens_reranker.compute()


@pytest.fixture(scope="module")
def f32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights without rounding them again, written by llama.cpp's own quantizer."""
    path = tmp_path_factory.mktemp("f32") / "ggrank-reranker-mini-f32.gguf"
    return tiny_models.quantize(MODEL, path, dtype="f32")


def test_the_goldens_are_still_what_transformers_says(expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.load(make_goldens_reranker.GOLDENS), expected, atol=1e-4)


def test_in_f32_a_thousand_logits_are_those_of_transformers_but_for_the_table_of_gelu(
    f32: Path, expected: np.ndarray
) -> None:
    with Llama.load(f32, n_ctx=512, engine="llama.cpp") as reranker:
        logits = reranker.score_pairs(pairs())
    logger.info("f32, 1,000 pairs: max difference %.6f", np.abs(logits - expected).max())
    np.testing.assert_allclose(logits, expected, atol=2.5e-3, rtol=0)
    in_float16 = make_goldens_reranker.compute(gelu="table")
    logger.info("with the float16 table of GELU: %.6f", np.abs(logits - in_float16).max())
    np.testing.assert_allclose(logits, in_float16, atol=1e-3, rtol=0)


def test_in_f32_with_openvino_a_thousand_logits_are_those_of_transformers(
    f32: Path, expected: np.ndarray
) -> None:
    with Llama.load(f32, n_ctx=512, engine="openvino") as reranker:
        logits = reranker.score_pairs(pairs())
    logger.info("f32 with openvino: %.6f", np.abs(logits - expected).max())
    np.testing.assert_allclose(logits, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("engine", ["llama.cpp", "openvino"])
def test_in_q8_0_they_differ_by_the_rounding_of_activations(
    expected: np.ndarray, engine: Literal["llama.cpp", "openvino"]
) -> None:
    with Llama.load("ggrank-reranker-mini", engine=engine) as reranker:
        logits = reranker.score_pairs(pairs())
    difference = np.abs(logits - expected)
    logger.info("q8_0, 1,000 pairs: max %.4f, mean %.4f", difference.max(), difference.mean())
    assert np.corrcoef(logits, expected)[0, 1] > 0.9995
