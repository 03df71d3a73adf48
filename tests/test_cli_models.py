"""``ggrank models``: the catalogue, paths, sums, and what a file says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tiny_models
from command_line import (
    BUNDLED,
    ggrank,
    json_lines,
    on_terminal,
    plain,
)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def test_models_list_has_every_preset_and_the_bundled_one_is_here() -> None:
    models = {line["name"]: line for line in json_lines(ggrank("models", "list"))}
    assert models[BUNDLED]["present"] is True
    assert models["bge-reranker-base"]["present"] is False
    assert models["bge-reranker-base"]["kind"] == "reranker"


def test_models_list_says_what_each_model_reads_and_gives() -> None:
    models = {line["name"]: line for line in json_lines(ggrank("models", "list"))}
    gemma = models["embeddinggemma-300m"]
    assert (gemma["languages"], gemma["context"], gemma["width"]) == (["100+"], 2048, 768)
    assert (gemma["dimensions"], gemma["license"]) == ("128, 256 or 512", "Gemma")
    assert [name for name, model in models.items() if not model["open_source"]] == ["embeddinggemma-300m"]
    assert models["granite-embedding-97m-multilingual-r2"]["context"] is None


def test_models_list_as_a_table_has_every_fact_of_a_model() -> None:
    lines = ggrank("models", "list", "--table").stdout.splitlines()
    shown = next(line for line in lines if line.startswith(BUNDLED))
    expected = ("embedding", "en", "512", "384", "26 MB", "Apache-2.0", "bundled", "English embeddings")
    assert all(word in shown for word in expected)


def test_models_alone_lists_them_and_fits_a_narrow_terminal() -> None:
    lines = plain(on_terminal("models", columns=80))
    assert [line.split()[0] for line in lines].count(BUNDLED) == 1
    assert lines[0].split() == ["name", "kind", "languages", "size", "here"]
    assert max(map(len, lines)) <= 80


def test_models_list_as_a_table_names_licences_that_are_not_open_source() -> None:
    lines = ggrank("models", "list", "--table").stdout.splitlines()
    assert [line.split()[0] for line in lines if "not open source" in line] == ["embeddinggemma-300m"]


def test_models_path_prints_where_a_file_is() -> None:
    result = ggrank("models", "path", BUNDLED)
    assert Path(result.stdout.strip()).is_file()


def test_models_path_of_a_model_that_is_not_here_fails() -> None:
    result = ggrank("models", "path", "bge-reranker-base")
    assert (result.exit_code, result.stdout) == (1, "")


def test_models_download_of_the_bundled_model_needs_no_network() -> None:
    result = ggrank("models", "download", BUNDLED)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).is_file()


def test_models_download_into_a_folder_puts_the_file_there(tmp_path: Path) -> None:
    result = ggrank("models", "download", BUNDLED, "--dir", tmp_path)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).parent == tmp_path


def test_models_download_dry_run_says_what_it_would_fetch() -> None:
    result = ggrank("models", "download", "bge-reranker-v2-m3", "--dry-run")
    assert result.exit_code == 0
    assert "438,376,864 bytes" in result.stdout
    assert "gpustack/bge-reranker-v2-m3-GGUF" in result.stdout
    assert "e186a244ed455b4a" in result.stdout


def test_models_verify_compares_the_bundled_files() -> None:
    assert [line["state"] for line in json_lines(ggrank("models", "verify"))] == ["ok", "ok"]


def test_models_verify_of_a_model_that_is_not_here_fails() -> None:
    result = ggrank("models", "verify", "bge-reranker-base")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_models_info_has_what_the_file_and_the_catalogue_say() -> None:
    line = json_lines(ggrank("models", "info", BUNDLED))[0]
    assert (line["architecture"], line["quantization"], line["pooling_type"]) == ("bert", "q8_0", "MEAN")
    assert (line["head"], line["n_embd"], line["languages"]) == (False, 384, ["en"])


def test_models_info_of_a_model_that_is_not_here_is_the_catalogue_s() -> None:
    line = json_lines(ggrank("models", "info", "qwen3-reranker-0.6b"))[0]
    assert (line["present"], line["license"], line["kind"]) == (False, "Apache-2.0", "reranker")


def test_models_info_of_a_reranker_says_that_it_has_a_head(reranker: Path) -> None:
    line = json_lines(ggrank("models", "info", reranker))[0]
    assert (line["head"], line["pooling_type"]) == (True, "RANK")


def test_models_info_as_a_table_is_one_fact_a_line() -> None:
    lines = ggrank("models", "info", BUNDLED, "--table").stdout.splitlines()
    assert "architecture   bert" in lines


def test_no_path_and_no_checksum_is_broken_over_lines(reranker: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("folder" * 9)
    deep.mkdir()
    file = Path(shutil.copy(reranker, deep / "a.gguf"))
    assert f"path           {file}" in plain(on_terminal("models", "info", str(file), columns=40))
    for line in plain(on_terminal("models", "verify", columns=40)):
        assert line.startswith("ok  ")


def test_models_info_of_something_else_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "page.gguf"
    file.write_text("<!doctype html>", "utf-8")
    result = ggrank("models", "info", file)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
