"""The catalogue holds the known facts exactly, and nothing where nothing is known."""

from __future__ import annotations

import re

import pytest

from ggrank.errors import InputError, ModelNotFoundError
from ggrank.hub.checksums import sha256_of
from ggrank.hub.presets import (
    Preset,
    bundled_path,
    check_dimensions,
    multilingual_preset,
    preset_of_file,
    presets,
)
from ggrank.types import PoolingType

BGE_QUERY = "Represent this sentence for searching relevant passages: "


WEB_TASK = "Instruct: Given a web search query, retrieve relevant passages that answer the query\n"


def test_the_catalogue_has_the_promised_names_the_bundled_ones_first() -> None:
    assert list(presets())[:2] == ["all-minilm-l6-v2", "ggrank-reranker-mini"]
    assert set(presets()) == {
        *("all-minilm-l6-v2", "bge-small-en-v1.5", "bge-base-en-v1.5", "nomic-embed-text-v1.5"),
        *("granite-embedding-small-english-r2", "snowflake-arctic-embed-m-v1.5", "multilingual-e5-small"),
        *("granite-embedding-97m-multilingual-r2", "granite-embedding-311m-multilingual-r2", "bge-m3"),
        *("harrier-oss-v1-270m", "embeddinggemma-300m", "nomic-embed-text-v2-moe", "qwen3-embedding-0.6b"),
        *("snowflake-arctic-embed-l-v2.0", "ggrank-reranker-mini", "bge-reranker-base", "bge-reranker-large"),
        *("bge-reranker-v2-m3", "mmarco-minilm-l12-multilingual", "qwen3-reranker-0.6b"),
        "gte-reranker-modernbert-base",
    }


@pytest.mark.parametrize(
    ("name", "repo", "file"),
    [
        ("bge-small-en-v1.5", "CompendiumLabs/bge-small-en-v1.5-gguf", "bge-small-en-v1.5-q4_k_m.gguf"),
        ("bge-reranker-base", "sabafallah/bge-reranker-base-Q4_K_M-GGUF", "bge-reranker-base-q4_k_m.gguf"),
        ("bge-reranker-v2-m3", "gpustack/bge-reranker-v2-m3-GGUF", "bge-reranker-v2-m3-Q4_K_M.gguf"),
        (
            "multilingual-e5-small",
            "TwinSunsLLC/multilingual-e5-small-gguf",
            "multilingual-e5-small-q8_0.gguf",
        ),
        ("qwen3-embedding-0.6b", "Qwen/Qwen3-Embedding-0.6B-GGUF", "Qwen3-Embedding-0.6B-Q8_0.gguf"),
        (
            "snowflake-arctic-embed-m-v1.5",
            "Snowflake/snowflake-arctic-embed-m-v1.5",
            "gguf/snowflake-arctic-embed-m-v1.5-q8_0.gguf",
        ),
    ],
)
def test_a_preset_names_its_repo_and_file(name: str, repo: str, file: str) -> None:
    preset = presets()[name]
    assert (preset.repo, preset.file, preset.file_name) == (repo, file, file.split("/")[-1])


@pytest.mark.parametrize(
    ("name", "revision", "sha256", "size"),
    [
        ("bge-small-en-v1.5", "d32f8c04", "363a0a48", 24_808_576),
        ("bge-reranker-v2-m3", "3093af03", "e186a244", 438_376_864),
        ("bge-reranker-base", None, "18a10177", 219_068_480),
        ("multilingual-e5-small", "b6cac961", "e011debc", 132_439_008),
        ("embeddinggemma-300m", "0f741b5a", "b5ce9d77", 333_590_944),
        ("qwen3-embedding-0.6b", "370f27d7", "06507c7b", 639_150_592),
        ("mmarco-minilm-l12-multilingual", "2b37d162", "91d70301", 132_584_000),
    ],
)
def test_what_is_pinned_is_pinned_exactly(name: str, revision: str | None, sha256: str, size: int) -> None:
    preset = presets()[name]
    assert (preset.revision and preset.revision[:8]) == revision
    assert (preset.sha256 and preset.sha256[:8], preset.size) == (sha256, size)


def test_what_is_not_known_is_empty() -> None:
    downloads = [preset for preset in presets().values() if not preset.bundled]
    assert {preset.name for preset in downloads if not preset.sha256} == {
        *("bge-base-en-v1.5", "snowflake-arctic-embed-m-v1.5"),
        *("bge-reranker-large", "gte-reranker-modernbert-base"),
    }
    assert {preset.name for preset in downloads if not preset.revision} == {
        *("bge-reranker-base", "bge-reranker-large", "snowflake-arctic-embed-l-v2.0")
    }
    assert {preset.name for preset in downloads if not preset.size} == {
        *("granite-embedding-311m-multilingual-r2", "nomic-embed-text-v2-moe", "bge-reranker-large")
    }
    assert {preset.name for preset in downloads if not preset.context} == {
        *("granite-embedding-97m-multilingual-r2", "harrier-oss-v1-270m", "qwen3-reranker-0.6b")
    }


@pytest.mark.parametrize(
    ("name", "pooling", "query", "document"),
    [
        ("bge-small-en-v1.5", "CLS", BGE_QUERY, ""),
        ("bge-base-en-v1.5", "CLS", BGE_QUERY, ""),
        ("snowflake-arctic-embed-m-v1.5", "CLS", BGE_QUERY, ""),
        ("nomic-embed-text-v1.5", "MEAN", "search_query: ", "search_document: "),
        ("nomic-embed-text-v2-moe", "MEAN", "search_query: ", "search_document: "),
        ("multilingual-e5-small", "MEAN", "query: ", "passage: "),
        ("snowflake-arctic-embed-l-v2.0", "CLS", "query: ", ""),
        ("embeddinggemma-300m", "MEAN", "task: search result | query: ", "title: none | text: "),
        ("qwen3-embedding-0.6b", "LAST", f"{WEB_TASK}Query:", ""),
        ("harrier-oss-v1-270m", "LAST", f"{WEB_TASK}Query: ", ""),
        ("bge-m3", "CLS", "", ""),
        ("granite-embedding-97m-multilingual-r2", "CLS", "", ""),
    ],
)
def test_prefixes_are_exact_to_the_blank(name: str, pooling: str, query: str, document: str) -> None:
    preset = presets()[name]
    assert (preset.query_prefix, preset.document_prefix) == (query, document)
    assert preset.pooling_type is PoolingType[pooling]


def test_vectors_may_be_cut_where_the_model_was_trained_for_it_and_nowhere_else() -> None:
    found = {preset.name: preset.matryoshka for preset in presets().values() if preset.matryoshka}
    assert {name: str(widths) for name, widths in found.items()} == {
        "snowflake-arctic-embed-m-v1.5": "256",
        "nomic-embed-text-v1.5": "64 to 768",
        "granite-embedding-311m-multilingual-r2": "128, 256, 384 or 512",
        "embeddinggemma-300m": "128, 256 or 512",
        "snowflake-arctic-embed-l-v2.0": "256",
        "qwen3-embedding-0.6b": "32 to 1024",
    }
    assert [name for name, widths in found.items() if widths.layer_norm] == ["nomic-embed-text-v1.5"]


def test_a_width_that_was_not_trained_is_an_error_that_names_those_that_were() -> None:
    gemma = presets()["embeddinggemma-300m"].matryoshka
    for width in (128, 256, 512, 768):
        check_dimensions(width, model="m", n_embd=768, trained=gemma)
    for width in (64, 384, 767, 769, 1024):
        with pytest.raises(InputError, match=rf"128, 256 or 512, or 768 for the whole .* found {width}"):
            check_dimensions(width, model="m", n_embd=768, trained=gemma)
    with pytest.raises(InputError, match=r"not trained .*Matryoshka.* qwen3-embedding-0\.6b"):
        check_dimensions(256, model="m", n_embd=384, trained=None)
    check_dimensions(384, model="m", n_embd=384, trained=None)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("bge-small-en-v1.5-q8_0.gguf", "bge-small-en-v1.5"),
        ("snowflake-arctic-embed-m-v1.5-q8_0.gguf", "snowflake-arctic-embed-m-v1.5"),
        ("embeddinggemma-300M-Q8_0.gguf", "embeddinggemma-300m"),
        ("mmarco-mMiniLMv2-L12-H384-v1-Q8_0.gguf", "mmarco-minilm-l12-multilingual"),
        ("my-own-model.gguf", None),
    ],
)
def test_a_file_is_known_by_its_name(file: str, name: str | None) -> None:
    found = preset_of_file(file)
    assert (found and found.name) == name


def test_only_the_gemma_terms_are_no_open_source_licence() -> None:
    closed = [preset.name for preset in presets().values() if not preset.is_open_source]
    assert closed == ["embeddinggemma-300m"]


def test_the_models_that_warnings_recommend_read_many_languages() -> None:
    assert multilingual_preset(reranker=False).name == "multilingual-e5-small"
    assert multilingual_preset(reranker=True).name == "bge-reranker-v2-m3"


@pytest.mark.parametrize("preset", presets().values(), ids=lambda preset: preset.name)
def test_every_preset_is_complete_enough_to_use(preset: Preset) -> None:
    assert preset.file.endswith(".gguf")
    assert preset.bundled != bool(preset.repo)
    assert preset.summary
    assert preset.license in ("MIT", "Apache-2.0", "Gemma")
    assert preset.languages
    assert preset.is_reranker == (preset.width is None) == ("eranker" in preset.summary)
    assert preset.matryoshka is None or max(preset.matryoshka.widths) <= (preset.width or 0)
    assert preset.sha256 is None or re.fullmatch("[0-9a-f]{64}", preset.sha256)


@pytest.mark.parametrize(("name", "n_ctx"), [("all-minilm-l6-v2", 256), ("ggrank-reranker-mini", 512)])
def test_a_bundled_file_is_the_one_that_its_sum_names(name: str, n_ctx: int) -> None:
    preset = presets()[name]
    assert preset.n_ctx == n_ctx
    assert sha256_of(bundled_path(preset)) == preset.sha256


def test_an_installation_without_the_bundled_file_says_so() -> None:
    with pytest.raises(ModelNotFoundError, match="this installation is incomplete"):
        bundled_path(Preset("gone", "", "MIT", "gone.gguf", bundled=True))
