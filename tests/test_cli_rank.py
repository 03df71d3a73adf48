"""``ggrank rank`` and ``ggrank demo``, on the bundled model."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from command_line import (
    BUNDLED,
    DOCUMENTS,
    QUERY,
    RUST,
    ggrank,
    json_lines,
    process,
)
from ggrank import Llama
from ggrank.cli.demo import QUESTIONS, read_passages
from test_readers import pdf


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def test_rank_gives_the_api_s_ranking_as_json_lines() -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS))
    with Llama.load(BUNDLED) as llama:
        ranking = llama.rank(QUERY, DOCUMENTS)
    assert [line["index"] for line in lines] == [found.index for found in ranking]
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert [line["text"] for line in lines] == [found.document for found in ranking]
    assert [line["score"] for line in lines] == pytest.approx([found.score for found in ranking], abs=1e-6)
    assert list(lines[0]) == ["rank", "index", "id", "score", "logit", "text", "truncated"]
    assert lines[0]["logit"] is None
    assert lines[0]["truncated"] is False


def test_rank_keeps_the_n_best() -> None:
    assert [line["index"] for line in json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--top-n", "1"))] == [1]


def test_rank_keeps_what_reaches_the_threshold() -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--threshold", "0.3"))
    assert [line["index"] for line in lines] == [1]
    result = ggrank("rank", QUERY, *DOCUMENTS, "--threshold", "0.9", "--table")
    assert "no document scores at least 0.9" in result.stderr
    assert "rank" not in result.stdout.split()


def test_rank_with_a_reranker_gives_logits(reranker: Path) -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--model", reranker))
    with Llama.load(reranker) as llama:
        logits = llama.rerank(QUERY, DOCUMENTS)
    assert [line["logit"] for line in lines] == pytest.approx(sorted(logits.tolist(), reverse=True), abs=1e-4)
    assert [line["score"] for line in lines] == [line["logit"] for line in lines]


def test_rank_with_score_sigmoid_keeps_the_logits_beside(reranker: Path) -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--model", reranker, "--score", "sigmoid"))
    expected = [1 / (1 + np.exp(-line["logit"])) for line in lines]
    assert [line["score"] for line in lines] == pytest.approx(expected, abs=1e-5)


def test_rank_in_steps_equals_one_ranking_of_all() -> None:
    documents = [f"{passage.id} {i}" for i in range(4) for passage in read_passages()]
    lines = json_lines(ggrank("rank", QUERY, stdin="\n".join(documents)))
    with Llama.load(BUNDLED) as llama:
        ranking = llama.rank(QUERY, documents)
    assert len(lines) == len(documents) > 128
    # q8_0 rounds a little differently beside other neighbours.
    assert [line["score"] for line in lines] == pytest.approx([found.score for found in ranking], abs=5e-3)
    assert sorted(line["index"] for line in lines) == list(range(len(documents)))


def test_equal_documents_keep_their_order() -> None:
    lines = json_lines(ggrank("rank", QUERY, stdin=f"{RUST}\n" * 150))
    assert [line["index"] for line in lines] == list(range(150))


def test_the_footer_says_how_much_the_cache_had(reranker: Path, tmp_path: Path) -> None:
    cached = ("--cache", tmp_path / "cache", "--table", "--top-n", "1")
    documents = [f"document {i}" for i in range(70)]  # two steps; the query is embedded once
    for n_found in (0, 71):
        footer = ggrank("rank", QUERY, *documents, *cached).stdout
        assert f"from the cache: {n_found} of 71 vectors" in footer
    ggrank("rank", QUERY, *documents[:18], "--model", reranker, *cached)
    footer = ggrank("rank", QUERY, *documents[:20], "--model", reranker, *cached).stdout
    assert "from the cache: 18 of 20 pairs" in footer
    assert "from the cache" not in ggrank("rank", QUERY, *documents, "--table").stdout


LONG = "Lunch is at noon, and nobody has to pay for it. " * 10
FILES = [
    ("rows.csv", f"id;text\n7;{RUST}\n8;{LONG}\n".encode(), "7"),
    ("page.html", f"<nav>Home</nav><h1>Guide</h1><p>{LONG}</p><h2>Code</h2><p>{RUST}</p>".encode(), None),
    ("notes.md", f"# Guide\n\n{LONG}\n\n## Code\n\n{RUST}\n".encode(), "notes.md, line 7"),
    ("book.pdf", pdf(LONG, RUST), "book.pdf, page 2"),
]


@pytest.mark.parametrize(("name", "data", "id_"), FILES, ids=[name for name, *_ in FILES])
def test_a_file_is_read_by_its_format_and_its_best_passage_is_first(
    name: str, data: bytes, id_: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    lines = json_lines(ggrank("rank", QUERY, "--file", tmp_path / name))
    assert len(lines) >= 2
    assert RUST in lines[0]["text"]
    assert not any(line["truncated"] for line in lines)
    assert lines[0]["id"] == id_ or id_ is None
    assert not any("Home" in line["text"] for line in lines)


@pytest.mark.skipif(sys.platform == "win32", reason="file names are Unicode there")
def test_a_model_file_whose_name_is_not_utf_8_ranks(tmp_path: Path) -> None:
    model = tmp_path / os.fsdecode(b"caf\xe9.gguf")
    shutil.copyfile(ggrank("models", "path", BUNDLED).stdout.strip(), model)
    for engine in ("auto", "llama.cpp"):
        lines = json_lines(ggrank("rank", QUERY, RUST, "--model", model, "--engine", engine))
        assert lines[0]["score"] == pytest.approx(0.659, abs=0.01)


def test_a_long_document_is_marked_as_cut() -> None:
    line = json_lines(ggrank("rank", QUERY, "word " * 400))[0]
    assert line["truncated"] is True


def test_truncate_error_refuses_a_long_document() -> None:
    result = ggrank("rank", QUERY, "word " * 400, "--truncate", "error")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_score_that_the_model_cannot_give_is_an_error() -> None:
    result = ggrank("rank", QUERY, RUST, "--score", "logit")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_every_preset_question_finds_its_passage() -> None:
    lines = json_lines(ggrank("demo", "--json"))
    best = [line["id"] for line in lines if line["rank"] == 1]
    assert best == ["stale-bread", "caffeine", "waggle-dance"]
    assert len(lines) == 3 * len(QUESTIONS)


def test_demo_answers_a_question_of_one_s_own() -> None:
    lines = json_lines(ggrank("demo", "--json", "How did sailors find out where they were?"))
    assert (lines[0]["id"], len(lines)) == ("longitude", 5)


def test_demo_shows_model_device_tokens_time_and_what_is_next() -> None:
    output = ggrank("demo").stdout
    for word in ("all-minilm-l6-v2", "runs on", "tokens", " ms", "Next: ggrank demo"):
        assert word in output
    assert output.count("document") >= len(QUESTIONS)


def test_a_demo_prints_no_library_logs() -> None:
    assert process("demo").stderr == ""


def test_the_demo_has_a_few_dozen_passages_with_ids_of_their_own() -> None:
    passages = read_passages()
    assert 30 <= len(passages) == len({passage.id for passage in passages})


def test_an_empty_input_gives_no_lines_and_a_note(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("", "utf-8")
    result = ggrank("rank", "anything", "--file", str(tmp_path / "empty.txt"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no documents" in result.stderr
