"""``ggrank index`` and ``ggrank search``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tiny_models
from command_line import ggrank, json_lines, on_terminal, plain, process

NOTES = """\
# Travel

The night train to Vienna leaves at 22:10 from platform 4.

# Baking

Knead the dough until it is smooth, then let it rest for an hour.
"""
QUERY = "how do I bake bread?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: notes, records, and a file that is no text."""
    (tmp_path / "notes.md").write_text(NOTES)
    records = [
        {"_id": "p1", "title": "Pump", "text": "Error E4711 means that it runs dry."},
        {"text": "Bees dance."},
    ]
    (tmp_path / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (tmp_path / "broken.txt").write_bytes(b"caf\0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def indexed(folder: Path) -> Path:
    json_lines(ggrank("index", folder))
    return folder


def test_index_says_what_it_did_as_a_json_line(folder: Path) -> None:
    result = ggrank("index", folder)
    (line,) = json_lines(result)
    assert line["skipped"] == [
        {"path": str(folder / "broken.txt"), "reason": "a binary file: it has zero bytes"}
    ]
    assert {
        word: line[word] for word in ("added", "changed", "removed", "unchanged", "files", "passages")
    } == {"added": 2, "changed": 0, "removed": 0, "unchanged": 0, "files": 2, "passages": 4}
    assert f"Warning: {folder / 'broken.txt'}: a binary file" in result.stderr
    assert (folder / ".ggrank" / "index.sqlite").exists()


def test_the_first_line_names_the_model_and_its_languages(folder: Path) -> None:
    first, *_ = ggrank("index", folder, "--table").stdout.splitlines()
    assert first == "all-minilm-l6-v2-q8_0.gguf (languages: en)"
    (line,) = json_lines(ggrank("index", folder))
    assert (line["model"], line["languages"]) == ("all-minilm-l6-v2-q8_0.gguf", ["en"])


def test_index_without_a_path_goes_over_what_was_indexed_before(indexed: Path) -> None:
    (indexed / "records.jsonl").unlink()
    (line,) = json_lines(ggrank("index"))
    assert (line["removed"], line["unchanged"], line["embedded"]) == (1, 1, 0)


def test_search_gives_a_json_line_for_each_passage(indexed: Path) -> None:
    lines = json_lines(ggrank("search", QUERY, "--hybrid=no"))
    assert [line["rank"] for line in lines] == [1, 2, 3, 4]
    best = lines[0]
    assert list(best) == [
        *("rank", "score", "logit", "cosine", "path", "place", "start", "stop", "id", "text", "snippet")
    ]
    assert (best["path"], best["place"], best["logit"]) == (str(indexed / "notes.md"), "Baking", None)
    assert NOTES[best["start"] : best["stop"]] == best["text"]
    assert best["score"] == best["cosine"] > lines[1]["score"]
    assert {line["id"] for line in lines} == {None, "p1"}


def test_search_shows_people_score_place_and_the_part_that_matches(indexed: Path) -> None:
    lines = ggrank("search", "when does the train leave?", "--table", "-n", "2").stdout.splitlines()
    assert "notes.md, Travel" in lines[0]
    assert "The night train to Vienna leaves" in lines[1]
    assert "4 passages of 2 files" in lines[-1]


def test_search_keeps_the_n_best_and_hybrid_finds_numbers(indexed: Path) -> None:
    (line,) = json_lines(ggrank("search", "E4711", "--hybrid", "--top-n", "1"))
    assert line["id"] == "p1"
    assert "E4711" in line["snippet"]


def test_search_with_a_reranker_gives_logits(indexed: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    reranker = tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))
    lines = json_lines(ggrank("search", QUERY, "--reranker", reranker))
    assert [line["score"] for line in lines] == sorted((line["logit"] for line in lines), reverse=True)
    assert all(line["cosine"] is not None for line in lines)


def test_search_fuses_scores_unless_told_otherwise(indexed: Path) -> None:
    lines = json_lines(ggrank("search", QUERY))
    assert lines == json_lines(ggrank("search", QUERY, "--hybrid=scores", "--reranker", "none"))
    assert lines[0]["place"] == "Baking"
    assert lines[0]["score"] != lines[0]["cosine"]
    assert all(line["logit"] is None for line in lines)
    assert "fused by scores" in ggrank("search", QUERY, "--table").stdout


def test_the_footer_names_both_stages_and_counts_one_thing_as_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "one.txt").write_text("Bees dance.")
    assert "1 file · 1 passage · 1 embedded now" in ggrank("index", "one.txt", "--table").stdout
    reranker = tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))
    lines = ggrank("search", QUERY, "--reranker", reranker, "--hybrid=no", "--table").stdout
    assert "all-minilm-l6-v2-q8_0.gguf: cosine · bert-reranker-f32.gguf: reranked, logit" in lines
    assert "1 passage of 1 file ·" in lines


def test_search_passes_engine_and_cache_on_to_both_models(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reranker = tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))
    arguments = ("search", QUERY, "--reranker", reranker, "--engine", "llama.cpp", "--cache", "results")
    assert "from the cache: 0 of 1 vector · from the cache: 0 of 4 pairs" in told(*arguments)
    assert "from the cache: 1 of 1 vector · from the cache: 4 of 4 pairs" in told(*arguments)
    assert "from the cache" not in told(*arguments[:-2])


def told(*arguments: str | Path) -> str:
    return " · ".join(ggrank(*arguments, "--table").stdout.splitlines())


def test_search_reranks_with_the_bundled_reranker_when_asked(indexed: Path) -> None:
    first = json_lines(ggrank("search", QUERY, "--reranker", "ggrank-reranker-mini"))[0]
    assert (first["place"], first["score"]) == ("Baking", first["logit"])


def test_the_index_s_own_model_and_settings_are_used_unless_others_are_named(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))
    options = (
        "--model",
        model,
        "--n-ctx",
        "64",
        "--chunk-tokens",
        "60",
        "--overlap",
        "5",
        "--vectors",
        "int8",
    )
    json_lines(ggrank("index", "notes.md", *options))
    assert len(json_lines(ggrank("search", QUERY))) == 2
    (line,) = json_lines(ggrank("index"))
    assert line["unchanged"] == 1
    refused = ggrank("index", "--model", "all-minilm-l6-v2")
    assert refused.exit_code == 1
    assert len(refused.stderr.splitlines()) == 1
    assert "bert-mean-f32.gguf" in refused.stderr
    assert "--rebuild" in refused.stderr
    (line,) = json_lines(ggrank("index", "--rebuild"))
    assert line["added"] == 1
    assert json_lines(ggrank("search", QUERY))[0]["place"] == "Baking"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("search", QUERY), "there is no index"),
        (("index",), "nothing to index"),
        (("index", "nowhere"), "no such file or folder"),
        (("index", "notes.md", "--chunk-tokens", "500"), "n_ctx is 256"),
        (("search", QUERY, "--index", "notes.md"), "notes.md"),
        (("search", QUERY), "ggrank index PATH\n"),
        (("search", QUERY, "--index", "my index"), "ggrank index --index 'my index' PATH\n"),
        (("search", " \n"), "query is empty"),
        (("index", "--forget", "notes.md"), "there is no index"),
        (("index", "notes.md", "--forget", "notes.md"), "--forget goes alone"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder: Path, args: tuple[str, ...], message: str) -> None:
    result = ggrank(*args)
    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (folder / ".ggrank").exists()


def test_a_reranker_as_the_embedder_is_told_where_it_belongs(indexed: Path) -> None:
    result = ggrank("search", QUERY, "--model", "ggrank-reranker-mini")
    assert result.exit_code == 1
    assert "is a reranker: give it as the reranker" in result.stderr


def test_forget_takes_a_folder_that_is_gone_out_of_the_index(folder: Path) -> None:
    for name in ("old", "new"):
        (folder / name).mkdir()
        (folder / name / "notes.md").write_text(NOTES + name)
        json_lines(ggrank("index", name))
    (folder / "old" / "notes.md").unlink()
    (folder / "old").rmdir()
    refused = ggrank("index")
    assert refused.exit_code == 1
    assert f"ggrank index --forget {folder / 'old'}" in refused.stderr
    assert json_lines(ggrank("index", "--forget", "old")) == [{"removed": 1}]
    (line,) = json_lines(ggrank("index"))
    assert (line["unchanged"], line["files"]) == (1, 1)
    assert ggrank("index", "--forget", "new/notes.md", "--forget", "new", "--table").stdout == "1 removed\n"


def test_lines_that_are_left_out_are_told_and_their_file_counts_as_indexed(folder: Path) -> None:
    records = folder / "records.jsonl"
    records.write_text(records.read_text() + "\noops\n[]\n")
    result = ggrank("index", records, "--table")
    assert result.stdout.splitlines()[1] == "1 added"
    assert f"Warning: {records}: 2 lines left out, the first: line 3: not JSON" in result.stderr
    (line,) = json_lines(ggrank("index", records, "--rebuild"))
    (skipped,) = line["skipped"]
    assert list(skipped) == ["path", "reason"]


def test_an_empty_index_is_a_note(folder: Path) -> None:
    (folder / "empty").mkdir()
    json_lines(ggrank("index", "empty"))
    result = ggrank("search", "anything")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing in the index" in result.stderr


def test_a_terminal_gets_a_bar_and_a_pipe_gets_none(folder: Path) -> None:
    shown = plain(on_terminal("index", str(folder), columns=100).replace("\r", "\n"))
    assert any(line.startswith("indexing") and "4 passages" in line for line in shown)
    assert any("2 added, 1 skipped" in line for line in shown)
    assert all(len(line) <= 100 for line in shown if line.startswith("indexing"))
    assert process("index", folder).stderr.startswith("Warning: ")
