"""The catalogue holds the known facts exactly, and nothing where nothing is known."""

from __future__ import annotations

import re

import pytest

from ggrank.errors import ModelNotFoundError
from ggrank.hub.checksums import sha256_of
from ggrank.presets import Preset, bundled_path, presets
from ggrank.types import PoolingType

BGE_QUERY = "Represent this sentence for searching relevant passages: "


def test_the_catalogue_has_the_promised_names() -> None:
    assert list(presets()) == [
        "all-minilm-l6-v2",
        "ggrank-reranker-mini",
        "bge-small-en-v1.5",
        "bge-base-en-v1.5",
        "nomic-embed-text-v1.5",
        "bge-reranker-base",
        "bge-reranker-large",
        "bge-reranker-v2-m3",
        "qwen3-reranker-0.6b",
        "gte-reranker-modernbert-base",
    ]


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("bge-small-en-v1.5", "CompendiumLabs/bge-small-en-v1.5-gguf", "bge-small-en-v1.5-q4_k_m.gguf"),
        ("bge-reranker-base", "turingevo/bge-reranker-base-Q4_K_M-GGUF", "bge-reranker-base-q4_k_m.gguf"),
        ("bge-reranker-v2-m3", "gpustack/bge-reranker-v2-m3-GGUF", "bge-reranker-v2-m3-Q4_K_M.gguf"),
        ("nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v1.5-GGUF", "nomic-embed-text-v1.5.Q4_K_M.gguf"),
        (
            "gte-reranker-modernbert-base",
            "jolleyboy/gte-reranker-modernbert-base-GGUF",
            "gte-reranker-modernbert-base-Q8_0.gguf",
        ),
    ],
)
def test_a_preset_names_its_repo_and_file(name: str, repo: str, file: str) -> None:
    assert (presets()[name].repo, presets()[name].file) == (repo, file)


def test_what_is_pinned_is_pinned_exactly() -> None:
    small, m3 = presets()["bge-small-en-v1.5"], presets()["bge-reranker-v2-m3"]
    assert small.sha256 == "363a0a4855dff6c653e06efe3209157debcf7f74e52d0d7c71e2747cd523043e"
    assert m3.revision == "3093af03b1a635e67b084b1d8c03c5f5e020fd05"
    assert m3.sha256 == "e186a244ed455b4ab66ec64339ce7427a6ae13f5c0b5e544de96e50f0f8b3673"
    assert m3.size == 438_376_864


def test_what_is_not_known_is_empty() -> None:
    pinned = {name for name, preset in presets().items() if preset.sha256}
    assert pinned == {"all-minilm-l6-v2", "ggrank-reranker-mini", "bge-small-en-v1.5", "bge-reranker-v2-m3"}
    assert [name for name, preset in presets().items() if preset.revision] == ["bge-reranker-v2-m3"]
    assert [name for name, preset in presets().items() if preset.size] == ["bge-reranker-v2-m3"]


@pytest.mark.parametrize("name", ["bge-small-en-v1.5", "bge-base-en-v1.5"])
def test_bge_embedders_pool_the_first_token_and_prefix_queries(name: str) -> None:
    preset = presets()[name]
    assert (preset.pooling_type, preset.query_prefix) == (PoolingType.CLS, BGE_QUERY)
    assert preset.document_prefix == ""


def test_nomic_prefixes_both_sides() -> None:
    preset = presets()["nomic-embed-text-v1.5"]
    assert preset.pooling_type is PoolingType.MEAN
    assert (preset.query_prefix, preset.document_prefix) == ("search_query: ", "search_document: ")


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_every_preset_is_complete_enough_to_use(preset: Preset) -> None:
    assert preset.file.endswith(".gguf")
    assert preset.bundled != bool(preset.repo)
    assert preset.summary
    assert preset.license in ("MIT", "Apache-2.0")
    assert preset.is_reranker == ("reranker" in preset.name)
    assert preset.sha256 is None or re.fullmatch("[0-9a-f]{64}", preset.sha256)


@pytest.mark.parametrize(("name", "n_ctx"), [("all-minilm-l6-v2", 256), ("ggrank-reranker-mini", 512)])
def test_a_bundled_file_is_the_one_that_its_sum_names(name: str, n_ctx: int) -> None:
    preset = presets()[name]
    assert preset.n_ctx == n_ctx
    assert sha256_of(bundled_path(preset)) == preset.sha256


def test_an_installation_without_the_bundled_file_says_so() -> None:
    with pytest.raises(ModelNotFoundError, match="this installation is incomplete"):
        bundled_path(Preset("gone", "", "MIT", "gone.gguf", bundled=True))
