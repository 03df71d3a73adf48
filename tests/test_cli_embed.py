"""``ggrank embed``: vectors of a few texts as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from command_line import (
    BUNDLED,
    DOCUMENTS,
    ggrank,
    json_lines,
)
from ggrank import Llama
from job_rows import piped


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def test_embed_gives_the_api_s_vectors_as_json_lines() -> None:
    lines = json_lines(ggrank("embed", *DOCUMENTS))
    with Llama.load(BUNDLED) as llama:
        vectors = llama.embed_many(DOCUMENTS)
    assert [line["index"] for line in lines] == [0, 1, 2]
    np.testing.assert_allclose([line["embedding"] for line in lines], vectors, atol=1e-6)


@pytest.mark.parametrize("args", [[], ["--file", "-"]])
def test_stdin_that_begins_with_a_brace_is_json_lines_even_where_that_line_is_broken(args: list[str]) -> None:
    code, stdout, stderr = piped('{broken\n{"text": "a", "id": 7}\n', "embed", *args)
    assert (code, stdout) == (1, "")
    assert "stdin:1: not JSON" in stderr
    assert piped('{broken\n{"text": "a"}\n', "embed", *args, "--format", "text")[0] == 0
    code, stdout, stderr = piped('{"text": "a", "id": 7}\n', "embed", "first", "-")
    assert [json.loads(line)["id"] for line in stdout.splitlines()] == [None, 7]


def test_embed_sets_a_prefix_and_keeps_int8_when_asked() -> None:
    line = json_lines(ggrank("embed", "cats", "--prefix", "about "))[0]
    with Llama.load(BUNDLED) as llama:
        expected = llama.embed("about cats")
    np.testing.assert_allclose(line["embedding"], expected, atol=1e-5)
    codes = json_lines(ggrank("embed", "cats", "--prefix", "about ", "--dtype", "int8"))[0]["embedding"]
    assert codes == np.rint(127 * expected / np.abs(expected).max()).astype(int).tolist()


def test_embed_cuts_long_texts_or_refuses_them() -> None:
    assert ggrank("embed", "word " * 400).exit_code == 0
    result = ggrank("embed", "word " * 400, "--truncate", "error")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)


def test_embed_refuses_a_reranker(reranker: Path) -> None:
    result = ggrank("embed", "a", "--model", reranker)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_embed_shows_a_table_to_people() -> None:
    result = ggrank("embed", *DOCUMENTS, "--table")
    assert result.stdout.splitlines()[0].split() == ["index", "text", "embedding"]
    assert "384 numbers" in result.stdout


def test_embed_s_table_tells_what_the_cache_had(tmp_path: Path) -> None:
    def found(*texts: str) -> str:
        return ggrank("embed", *texts, "--table", "--cache", tmp_path / "cache").stdout

    assert "from the cache: 0 of 2 vectors" in found("one", "two")
    assert "from the cache: 2 of 3 vectors" in found("one", "two", "three")
