"""``ggrank index`` and ``ggrank search``."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

import tiny_models
from command_line import ggrank, json_lines, on_terminal, plain, process
from ggrank import Index

NOTES = """\
# Travel

The night train to Vienna leaves at 22:10 from platform 4.

# Baking

Knead the dough until it is smooth, then let it rest for an hour.
"""
QUERY = "how do I bake bread?"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: notes, records, and a file that is no text. No index has a name."""
    monkeypatch.setenv("GGRANK_DATA_DIR", str(tmp_path / "data"))
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
    assert "Warning: broken.txt: a binary file" in result.stderr
    assert line["unsupported"] == {}


def test_the_first_line_names_the_model_and_its_languages(folder: Path) -> None:
    first, *_ = ggrank("index", folder, "--table").stdout.splitlines()
    assert first == "all-minilm-l6-v2-q8_0.gguf (languages: en)"
    (line,) = json_lines(ggrank("index", folder))
    assert (line["model"], line["languages"]) == ("all-minilm-l6-v2-q8_0.gguf", ["en"])


def test_index_without_a_path_goes_over_what_was_indexed_before(indexed: Path) -> None:
    (indexed / "records.jsonl").unlink()
    (line,) = json_lines(ggrank("index"))
    assert (line["removed"], line["unchanged"], line["embedded"]) == (1, 1, 0)


def test_an_index_above_is_named_where_there_is_none_here(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (indexed / "sub").mkdir()
    (indexed / "sub" / "bees.txt").write_text("Bees hum.")
    monkeypatch.chdir(indexed / "sub")
    refused = ggrank("index", "--model", "never-loaded")
    assert refused.exit_code == 1
    assert "with: ggrank index --index ../.ggrank\n" in refused.stderr
    assert "with: ggrank index --index ../.ggrank bees.txt\n" in ggrank("index", "bees.txt").stderr
    assert "Note" not in ggrank("index", "bees.txt").stderr
    assert json_lines(ggrank("index"))[0]["files"] == 1
    assert json_lines(ggrank("index", "--index", "../.ggrank"))[0]["added"] == 1


def test_search_gives_a_json_line_for_each_passage(indexed: Path) -> None:
    lines = json_lines(ggrank("search", QUERY, "--by", "meaning"))
    assert [line["rank"] for line in lines] == [1, 2, 3, 4]
    best = lines[0]
    assert list(best) == [
        *("rank", "place", "path", "headings", "page", "line", "start", "stop", "id", "title", "metadata"),
        *("text", "score", "cosine", "logit", "words", "others", "snippet"),
    ]
    assert (best["path"], best["headings"], best["line"]) == (str(indexed / "notes.md"), "Baking", 7)
    assert NOTES[best["start"] : best["stop"]] == best["text"]
    assert best["cosine"] > lines[1]["cosine"]
    assert {line["id"] for line in lines} == {None, "p1", str(indexed / "notes.md")}


def test_search_shows_people_score_place_and_the_part_that_matches(indexed: Path) -> None:
    lines = ggrank("search", "when does the train leave?", "--table", "-n", "2").stdout.splitlines()
    assert lines[0].split()[2:] == ["notes.md:3", "Travel"]
    assert "The night train to Vienna leaves" in lines[1]
    assert "4 passages of 2 files" in " · ".join(lines)


def test_search_requires_and_leaves_out_phrases_and_says_so(indexed: Path) -> None:
    (line,) = json_lines(ggrank("search", 'how to rest "an hour" -bees'))
    assert line["headings"] == "Baking"
    shown = told("search", 'bread "an hour" -bees')
    assert 'with "an hour" · without "bees"' in shown
    refused = ggrank("search", "--", "-bees")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "only what to leave out: bees" in refused.stderr


def test_each_place_is_shown_as_its_file_has_places(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "page.html").write_text("<title>Bees</title><h1>Hive</h1><p>Bees dance in a html hive.</p>")
    (folder / "rows.csv").write_text("id,text\nb7,Bees dance in a row.\n")
    pytest.importorskip("bs4")
    json_lines(ggrank("index", "notes.md", "page.html", "rows.csv", "records.jsonl"))
    lines = ggrank("search", "train dough bees pump", "--by", "words", "--table", "-n", "9").stdout
    heads = [line.split(maxsplit=2)[2] for line in lines.splitlines() if re.match(r" \d  ", line)]
    assert sorted(heads) == [
        *("notes.md:3  Travel", "notes.md:7  Baking", "page.html  Bees > Hive"),
        *("records.jsonl:1, p1  Pump", "records.jsonl:2", "rows.csv:2, b7"),
    ]


def test_a_document_of_no_file_is_shown_by_its_id(folder: Path) -> None:
    with Index.open(".ggrank") as index:
        index.add(["Bees dance.", "Bees hum."], ids=["b7", None])
    for output in ("--table", "--markdown"):
        shown = ggrank("search", "bees", "--by", "words", output).stdout
        assert all(name in shown for name in ("b7:1", "a text:1", "Bees dance."))
    assert "b7:1" in on_terminal("search", "bees", columns=80)


def test_context_shows_the_whole_passage_and_numbered_lines(indexed: Path) -> None:
    shown = ggrank("search", "night train", "--by", "words", "-C", "2", "--table").stdout.splitlines()
    assert shown[1:6] == [
        "    1  # Travel",
        "    2",
        "    3  The night train to Vienna leaves at 22:10 from platform 4.",
        "    4",
        "    5  # Baking",
    ]
    (line,) = json_lines(ggrank("search", "night train", "--by", "words", "-C", "1"))
    assert (line["before"], line["after"]) == ("\n", "\n")


def test_one_hit_of_each_file(indexed: Path) -> None:
    lines = json_lines(ggrank("search", "train dough bees pump", "--files"))
    assert sorted(Path(line["path"]).name for line in lines) == ["notes.md", "records.jsonl"]


def test_a_terminal_highlights_words_and_links_files_and_nothing_in_a_name_steers_it(folder: Path) -> None:
    name = "no\x1b]0;evil\x07tes\x9b31m.md"
    (folder / name).write_text("# Pump\x1b[2J\n\nThe night\x07 train, \u202etrains, and the night\ttrain.\n")
    json_lines(ggrank("index", name))
    for arguments in (("--explain",), ("-C", "2")):
        shown = on_terminal("search", "night train", *arguments, columns=60)
        assert f"\x1b]8;id={re.search('id=([0-9]+)', shown)[1]};{(folder / name).as_uri()}\x1b\\" in shown  # type: ignore[index]
        assert re.findall(r"\x1b\[1;31m(\w+)", shown)[:3] == ["night", "train", "trains"]
        without_links = re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", shown)
        assert not set("\x07\x9b\u202e") & set(without_links)
        assert "\x1b]" not in without_links
        assert "\x1b[2J" not in without_links
        assert all(len(line) <= 60 for line in plain(without_links))
    assert not set("\x1b\x07\x9b\u202e") & set(on_terminal("get", name, columns=60))
    for output in ("--json", "--markdown", "--table"):
        assert not set("\x1b\x07\x9b\u202e") & set(process("search", "night train", output).stdout)


@pytest.mark.parametrize("columns", [40, 80])
def test_hits_fit_the_terminal_and_keep_the_inner_heading(folder: Path, columns: int) -> None:
    deep = folder / ("a long name of a folder " * 3).strip()
    deep.mkdir()
    headings = "# Staff handbook of 2026\n\n## Travel in other countries\n\n### Night trains\n\n"
    (deep / "notes.md").write_text(headings + "Take the train.\n" + 40 * "\u6771\u4eac" + 90 * "x", "utf-8")
    json_lines(ggrank("index", deep))
    for options in ([], ["-C", "1"], ["--explain"]):
        lines = plain(
            re.sub(r"\x1b\]8;[^\x1b]*\x1b\\", "", on_terminal("search", "train", *options, columns=columns))
        )
        assert max(cell_len(line) for line in lines if ".gguf" not in line) <= columns
        assert any(line.endswith("> Night trains") for line in lines)
    assert "Staff handbook of 2026 > Travel in other countries > Night trains" in told("search", "train")


def test_markdown_is_a_list_that_no_text_can_break(folder: Path) -> None:
    commonmark = pytest.importorskip("markdown_it")
    text = "- a *train* [x](y) <b>&amp; `c` | d\n\n# no heading\n> ~~no~~ $x$ [[wiki]] \\* ![i](j) ==m== #tag"
    (folder / "a [b](c) *d*.txt").write_text(text)
    json_lines(ggrank("index", "a [b](c) *d*.txt", "notes.md"))
    printed = ggrank("search", "train", "--by", "words", "--markdown", "-C", "1").stdout
    tokens = commonmark.MarkdownIt("commonmark").parse(printed)
    items = [token for token in tokens if token.type == "inline"]
    assert [token.type for token in tokens].count("list_item_open") == len(items) == 2
    texts = []
    for item in items:
        kinds = [child.type for child in item.children if child.type != "text_special"]
        assert set(kinds) == {"link_open", "text", "link_close"}
        assert kinds.count("link_open") == 1
        texts.append("".join(child.content for child in item.children))
    assert f"a [b](c) *d*.txt:1: {' '.join(text.split())}" in texts
    assert {item.children[0].attrs["href"] for item in items} == {
        "a%20%5Bb%5D%28c%29%20%2Ad%2A.txt",
        "notes.md",
    }


def test_search_by_words_finds_numbers_and_loads_no_model(
    indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ggrank.Llama.load", None)
    (line,) = json_lines(ggrank("search", "E4711", "--by", "words"))
    assert (line["id"], line["words"], line["cosine"]) == ("p1", ["e4711"], None)
    assert "E4711" in line["snippet"]


def test_search_with_a_reranker_gives_logits_and_explains_the_order(
    indexed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reranker = tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))
    lines = json_lines(ggrank("search", QUERY, "--reranker", reranker, "--explain"))
    logits = [line["logit"] for line in lines]
    assert logits == sorted(logits, reverse=True)
    assert [line["explanation"]["reranked"] for line in lines] == pytest.approx(logits)
    assert all(line["cosine"] is not None for line in lines)
    shown = ggrank("search", "bake dough", "--explain", "--table", "-n", "1").stdout.splitlines()[2]
    expected = r" *cosine 0\.\d+ \(rank 1\), BM25 \d\.\d\d \(rank 1: bake, dough\), fused \d\.\d+"
    assert re.fullmatch(expected, shown)


def test_min_score_leaves_out_what_answers_nothing(indexed: Path) -> None:
    assert json_lines(ggrank("search", QUERY, "--min-score", "0.2"))[0]["headings"] == "Baking"
    assert json_lines(ggrank("search", "medieval tax law", "--min-score", "0.2")) == []


def test_the_footer_names_both_stages_and_counts_one_thing_as_one(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "one.txt").write_text("Bees dance.")
    assert "1 file · 1 passage · 1 embedded now" in ggrank("index", "one.txt", "--table").stdout
    reranker = tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))
    lines = told("search", QUERY, "--reranker", reranker, "--by", "meaning", "--table")
    assert "all-minilm-l6-v2-q8_0.gguf: cosine · bert-reranker-f32.gguf: reranked" in lines
    assert "1 passage of 1 file ·" in lines


def test_files_of_other_kinds_are_counted_and_named_on_request(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png", "c.exe"):
        (folder / "pictures" / name).write_bytes(b"x")
    result = ggrank("index", "pictures", "--table")
    assert "3 files left out: 2 .png, 1 .exe; --verbose names them" in result.stderr
    assert "a.png" not in result.stderr
    assert str(Path("pictures", "a.png")) in ggrank("index", "pictures", "--verbose").stderr.splitlines()
    (line,) = json_lines(ggrank("index", "pictures"))
    assert line["unsupported"] == {".png": 2, ".exe": 1}


def test_files_with_the_same_problem_are_counted_unless_all_are_wanted(folder: Path) -> None:
    (folder / "pictures").mkdir()
    paths = [Path("pictures", f"{n}.txt") for n in range(5)]
    for path in paths:
        path.write_bytes(b"\0")
    (warning,) = ggrank("index", "pictures").stderr.splitlines()
    assert "5 files: a binary file: it has zero bytes, such as" in warning
    shown = ggrank("index", "pictures", "--verbose").stderr
    assert all(f"Warning: {path}: a binary file" in shown for path in paths)


def test_which_files_are_read_is_remembered_until_it_is_said_anew(folder: Path) -> None:
    (folder / "drafts").mkdir()
    (folder / "drafts" / "a.md").write_text("Draft.")
    (folder / "large.md").write_text("x" * 2000)
    (folder / "a.raw").write_text("Raw.")

    def files(*arguments: str) -> int:
        return int(json_lines(ggrank("index", *arguments))[0]["files"])

    assert files(".", "--exclude", "drafts/", "--max-file-size", "0.001") == 2
    assert files() == files("--rebuild") == 2
    note = ggrank("index").stderr
    assert all(part in note for part in ("1 .raw", "1 excluded", "1 too large"))
    assert files("--exclude", "") == 3
    assert files("--max-file-size", "1") == 4
    assert files("--include", "*.raw", "--include", "notes.md") == 2
    assert "not a pattern" in ggrank("index", "--exclude", "!").stderr
    assert files("--include", "") == 4


def test_an_index_with_a_name_is_found_from_everywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ggrank index --name recipes PATH" in ggrank("search", QUERY, "--name", "recipes").stderr
    json_lines(ggrank("index", "notes.md", "--name", "recipes"))
    assert "or name one of yours with --name: recipes\n" in ggrank("search", QUERY).stderr
    json_lines(ggrank("index", "records.jsonl"))
    (folder / "data" / "indexes" / "broken").mkdir()
    monkeypatch.chdir(folder / "data")
    assert json_lines(ggrank("search", QUERY, "--name", "recipes"))[0]["headings"] == "Baking"
    assert ggrank("get", "notes.md", "--name", "recipes").exit_code == 1
    assert ggrank("get", folder / "notes.md", "--name", "recipes").output == NOTES
    assert json_lines(ggrank("similar", "fresh bread", "--name", "recipes"))[0]["headings"] == "Baking"
    here, broken, named = json_lines(ggrank("status"))
    assert (here["index"], here["name"], here["files"]) == (str(folder / ".ggrank"), None, 1)
    assert (named["name"], named["files"], named["passages"]) == ("recipes", 1, 2)
    assert "there is no index" in broken["problem"]
    assert "updated 20" in ggrank("status", "--name", "recipes", "--table").output
    for arguments in (("--name", "../x"), ("--name", "recipes", "--index", "x")):
        assert ggrank("status", *arguments).exit_code == 2


def test_an_emptied_folder_is_not_forgotten_unless_told(indexed: Path) -> None:
    for name in ("notes.md", "records.jsonl", "broken.txt"):
        (indexed / name).unlink()
    refused = ggrank("index")
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert "2 of the index's 2 files are gone" in refused.stderr
    (line,) = json_lines(ggrank("index", "--prune"))
    assert line["removed"] == 2


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
    assert first["headings"] == "Baking"
    assert first["score"] == pytest.approx(1 / (1 + math.exp(-first["logit"])), abs=1e-6)


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
    assert json_lines(ggrank("search", QUERY))[0]["headings"] == "Baking"


def test_a_model_named_by_a_relative_path_is_found_from_elsewhere_and_followed_when_it_moves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_models.write("bert-mean", folder).rename("own.gguf")
    json_lines(ggrank("index", "notes.md", "--model", "own.gguf", "--n-ctx", "64", "--chunk-tokens", "60"))
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert len(json_lines(ggrank("search", QUERY))) == 2
    (folder / "own.gguf").rename("moved.gguf")
    refused = ggrank("search", QUERY).stderr
    assert all(part in refused for part in (".ggrank: the index's model", "own.gguf", "--model FILE"))
    json_lines(ggrank("index", "--index", "../.ggrank", "--model", "moved.gguf", "--n-ctx", "64"))
    monkeypatch.chdir(folder)
    assert len(json_lines(ggrank("search", QUERY))) == 2
    assert json_lines(ggrank("status"))[0]["model"] == str(folder / "sub" / "moved.gguf")


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
    assert "must be an embedding model, such as 'all-minilm-l6-v2'; " in result.stderr


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
    assert "Warning: records.jsonl: 2 lines left out, the first: line 3: not JSON" in result.stderr
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


def test_a_warning_is_wrapped_between_words_on_a_terminal(folder: Path) -> None:
    (folder / "note.md").write_text('---\ntitle: "unclosed\n---\nText.\n')
    lines = plain(on_terminal("index", "note.md", columns=50).replace("\r", "\n"))
    first = next(i for i, line in enumerate(lines) if line.startswith("Warning: note.md: the front matter"))
    assert max(map(len, lines[first : first + 3])) <= 50
    assert lines[first + 1].startswith("  ")
