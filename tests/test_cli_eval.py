"""``ggrank eval``: what it prints and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_models
from command_line import ggrank, json_lines
from test_evaluation import write, write_beir

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_beir(tmp_path_factory.mktemp("sets") / "zoo")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def test_a_pipe_gets_one_json_line_for_each_set(zoo: Path, tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.tsv", "capital of France\tParis\n")
    lines = json_lines(ggrank("eval", zoo, pairs))
    assert [line["name"] for line in lines] == ["zoo", "pairs"]
    assert lines[0]["systems"][0]["metrics"]["nDCG@10"] == 1.0
    assert len(lines[0]["made_with"]["embedder"]["sha256"]) == 64


def test_a_person_gets_tables_with_the_queries_that_changed(zoo: Path, reranker: Path) -> None:
    result = ggrank("eval", zoo, "--reranker", reranker, "--top-k", "3", "--table")
    assert result.exit_code == 0, result.output
    assert "1 queries without a relevant document left out" in result.stdout
    assert "bert-reranker-f32@3" in result.stdout


def test_json_markdown_and_plot_are_written(zoo: Path, reranker: Path, tmp_path: Path) -> None:
    outputs = ["--save-json", tmp_path / "r.json", "--save-markdown", tmp_path / "r.md", "--plot"]
    result = ggrank("eval", zoo, "--reranker", reranker, *outputs, tmp_path / "r.png")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "r.json").read_text("utf-8"))["sets"][0]["name"] == "zoo"
    assert "| zoo (2 queries) |" in (tmp_path / "r.md").read_text("utf-8")
    assert (tmp_path / "r.png").read_bytes().startswith(PNG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.md", "r.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "picture.bmp"], "ends in .png, .svg, .pdf"),
        (["--save-json", "no/such/folder/r.json"], "does not exist"),
        (["--top-k", "101"], "1<=x<=100"),
        (["--reranker", "no/such.gguf"], "no/such.gguf"),
    ],
)
def test_wrong_usage_is_told_before_the_work(zoo: Path, arguments: list[str], message: str) -> None:
    result = ggrank("eval", zoo, *arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output


def test_two_sets_of_one_name_are_refused(zoo: Path, tmp_path: Path) -> None:
    result = ggrank("eval", zoo, write_beir(tmp_path / "zoo"))
    assert result.exit_code == 2
    assert "same name" in result.output
