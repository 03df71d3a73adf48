"""Filters of ``ggrank search``, and ``similar``, ``get`` and ``status``, over a folder of notes."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from command_line import ggrank, json_lines
from ggrank import Index, InputError, InputTypeError

NOTES = {
    "notes/travel.md": "---\ntags: [staff, money]\nyear: 2021\n---\n# Travel\n\nWe pay for trains.\n",
    "notes/leave.md": "---\ntags: [staff]\nyear: 2024\ndraft: true\n---\n# Leave\n\nThirty days.\n",
    "notes/garden.txt": "Tomatoes want sun and water.\n",
    "logs/app.LOG.txt": "The train of thought was lost.\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    for name, text in NOTES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        modified = 1_600_000_000 if "garden" in name else 1_760_000_000
        os.utime(path, (modified, modified))
    with Index.open(folder / ".ggrank") as index:
        index.update([folder / "notes", folder / "logs"])
    return folder


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], {"travel.md", "leave.md", "garden.txt", "app.LOG.txt"}),
        (["--path", "notes"], {"travel.md", "leave.md", "garden.txt"}),
        (["--path", "notes/*.md"], {"travel.md", "leave.md"}),
        (["--path", "notes/t*", "--path", "logs/"], {"travel.md", "app.LOG.txt"}),
        (["--ext", "md"], {"travel.md", "leave.md"}),
        (["--ext", ".TXT", "--path", "notes"], {"garden.txt"}),
        (["--ext", "*.md, LOG.txt"], {"travel.md", "leave.md", "app.LOG.txt"}),
        (["--since", "2025-01-01"], {"travel.md", "leave.md", "app.LOG.txt"}),
        (["--where", "tags=staff"], {"travel.md", "leave.md"}),
        (["--where", "tags!=money", "--ext", "md"], {"leave.md"}),
        (["--where", "year>=2020", "--where", "year<2024"], {"travel.md"}),
        (["--where", "draft=true"], {"leave.md"}),
        (["--where", "year=2021", "--path", "logs"], set()),
        (["--path", "notes/**/*.md"], {"travel.md", "leave.md"}),
        (["--path", "**/*.LOG.txt"], {"app.LOG.txt"}),
        (["--path", "home*/**/t*.md"], {"travel.md"}),
        (["--path", "./notes/*.md"], {"travel.md", "leave.md"}),
        (["--path", "./*.md"], {"travel.md", "leave.md"}),
        (["--path", "./travel.md"], set()),
        (["--path", "logs/../notes/./t*"], set()),
        (["--since", "0001-01-01"], {"travel.md", "leave.md", "garden.txt", "app.LOG.txt"}),
        (["--since", "9999-12-31"], set()),
        (["--where", f"year<{10**400}", "--where", f"year>-{10**30}"], {"travel.md", "leave.md"}),
        (["--where", "draft!=true", "--ext", "md"], {"travel.md"}),
        (["--where", "tags=NaN"], set()),
        (["--where", "tags=\udcff"], set()),
        (["--path", "\udcff", "--ext", "\udcff"], set()),
    ],
)
def test_filters_leave_only_what_matches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], found: set[str]
) -> None:
    monkeypatch.chdir(folder)
    hits = json_lines(
        ggrank("search", "trains and days", "--index", folder / ".ggrank", "-n", "9", "--json", *options)
    )
    assert {Path(hit["path"]).name for hit in hits} == found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "Tags=staff"], "no indexed document has the field 'Tags' (there are: tags, year"),
        (["--path", "nowhere", "--path", "logs"], ""),
        (["--path", "nowhere"], "no indexed file has the path 'nowhere'"),
        (["--ext", "rst,*.tex"], "no indexed file has the suffix 'rst,*.tex'"),
        (["--where", "year=1999"], ""),
    ],
)
def test_a_filter_that_matches_nothing_is_named(folder: Path, options: list[str], message: str) -> None:
    done = ggrank("search", "trains", "--by", "words", "--index", folder / ".ggrank", *options)
    assert message in done.stderr
    assert done.stderr.count("\n") == bool(message)


def test_filters_in_python(folder: Path) -> None:
    with Index.open(folder / ".ggrank") as index:
        hits = index.search("trains", by="words", suffixes=["md"], since=datetime(2025, 1, 1))
        assert [Path(hit.path).name for hit in hits] == ["travel.md"]
        with pytest.raises(InputTypeError, match="put it in a list"):
            index.search("trains", paths="notes")
        with pytest.raises(InputError, match="where knows"):
            index.search("trains", where={"year": {"~": 1}})


def test_a_condition_that_cannot_be_read_says_what_is_expected(folder: Path) -> None:
    done = ggrank("search", "trains", "--index", folder / ".ggrank", "--where", "year")
    assert done.exit_code == 2
    assert "name=value" in done.output


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('"We pay', "Note: a quote in the query is not closed"),
        ("the of", "Nothing is close to the query"),
    ],
)
def test_a_query_that_may_be_a_mistake_is_told(folder: Path, query: str, said: str) -> None:
    done = ggrank("search", query, "--by", "words", "--table", "--index", folder / ".ggrank")
    assert said in done.output
    assert said not in ggrank("search", "pay", "--by", "words", "--index", folder / ".ggrank").output


@pytest.mark.parametrize("words", [("travel", "policy"), ("travel", "-draft")])
def test_a_query_without_quotes_is_told_to_have_them(words: tuple[str, ...]) -> None:
    done = ggrank("search", *words)
    assert done.exit_code == 2
    assert "Put the query in quotes" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retrieve-k", "9"], "goes with --reranker"),
        (["--retrieve-k", "1", "-n", "3", "--reranker", "ggrank-reranker-mini"], "must not be below --top-n"),
        (["--explain", "--markdown"], "does not go with --markdown"),
        (["--json", "--markdown"], "exclude each other"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(options: list[str], message: str) -> None:
    done = ggrank("search", "trains", *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_the_index_of_a_folder_above_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "notes")
    (hit, *_) = json_lines(ggrank("search", "trains", "--by", "words", "--json"))
    assert hit["path"] == str(folder / "notes" / "travel.md")
    monkeypatch.chdir(folder / "logs")
    for output, place in (("--table", "../notes/travel.md:7"), ("--markdown", "](../notes/travel.md)")):
        assert place in ggrank("search", "pay", "--by", "words", output).stdout


def test_similar_leaves_out_the_file_itself(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "notes")
    hits = json_lines(ggrank("similar", "travel.md", "--json"))
    assert len(hits) == 3
    assert str(folder / "notes" / "travel.md") not in {hit["path"] for hit in hits}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("garden.txt", NOTES["notes/garden.txt"]),
        ("travel.md:5:3", "# Travel\n\nWe pay for trains.\n"),
        ("travel.md:7", "We pay for trains.\n"),
    ],
)
def test_get_prints_a_document_or_some_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, text: str
) -> None:
    monkeypatch.chdir(folder / "notes")
    assert ggrank("get", place).output == text


def test_lines_end_where_an_editor_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("one\x0c\x0bof\u2028the\x85first\nsecond")
    monkeypatch.chdir(tmp_path)
    ggrank("index", "a.txt")
    assert ggrank("get", "a.txt:2").output == "second\n"
    assert "has 2 lines, and no line 3" in ggrank("get", "a.txt:3").output


@pytest.mark.parametrize("indexed_by_link", [True, False])
def test_a_file_is_found_by_its_name_and_through_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indexed_by_link: bool
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "bees.txt").write_text("Bees dance.\n")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "alias.txt").symlink_to(tmp_path / "real" / "bees.txt")
    monkeypatch.chdir(tmp_path)
    ggrank("index", "link" if indexed_by_link else "real")
    for name in ("link/bees.txt", "real/bees.txt", "alias.txt", tmp_path / "link" / "bees.txt"):
        assert ggrank("get", name).output == "Bees dance.\n"
        assert ggrank("similar", name, "--json").output == ""
    with Index.open(".ggrank") as index:
        assert index.get("real/bees.txt").text == "Bees dance.\n"


def test_similar_reads_a_file_that_is_not_indexed(folder: Path, tmp_path: Path) -> None:
    for name, text in (("zzz.txt", NOTES["notes/garden.txt"]), ("rows.csv", "text\na\nb\n")):
        (tmp_path / name).write_text(text)
    (best, *_) = json_lines(ggrank("similar", tmp_path / "zzz.txt", "--index", folder / ".ggrank", "--json"))
    assert Path(best["path"]).name == "garden.txt"
    assert best["cosine"] == pytest.approx(1, abs=1e-3)
    assert "is a table" in ggrank("similar", tmp_path / "rows.csv", "--index", folder / ".ggrank").output


def test_the_age_of_an_index_does_not_change_while_it_is_read(folder: Path) -> None:
    with Index.open(folder / ".ggrank") as index:
        before = index.updated
        index.search("trains", by="words")
    for path in (folder / ".ggrank").rglob("*"):
        os.utime(path)
    with Index.open(folder / ".ggrank") as index:
        assert index.updated == before
        index.update()
        assert index.updated > before


def test_get_reads_nothing_that_is_not_indexed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret.txt").write_text("The key is under the mat.")
    monkeypatch.chdir(folder)
    done = ggrank("get", "secret.txt")
    assert done.exit_code == 1
    assert "is not in the index" in done.output


def test_rows_of_a_csv_file_are_filtered_by_numbers_and_read_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faq.csv").write_text(
        "id,text,year,version,new,zip\n"
        "a,Cycle paths are new,2024,1.2.10,True,01234\nb,Bikes are fast,2019,1.20,false,1234\n"
    )
    monkeypatch.chdir(tmp_path)
    assert ggrank("index", "faq.csv").exit_code == 0
    for condition, found in (
        ("year>=2020", ["a"]),
        ("year=2019", ["b"]),
        ("year!=2019", ["a"]),
        ("version=1.2", ["b"]),
        ("version=1.2.10", ["a"]),
        ("new=true", ["a"]),
        ("new!=true", ["b"]),
        ("new=True", ["a"]),
        ("zip=01234", ["a"]),
    ):
        hits = json_lines(ggrank("search", "bikes", "--where", condition, "--json"))
        assert [hit["id"] for hit in hits] == found
    for name in ("b", "faq.csv:3", "faq.csv:3, b"):
        assert ggrank("get", name).output == "Bikes are fast\n"
    assert "each of its 2 rows is a document" in ggrank("get", "faq.csv").output
    assert "has 1 line, and no line 9" in ggrank("get", "b:9").output


def test_a_wrong_path_is_not_taken_for_a_text(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "notes")
    assert "there is no file nope.md" in ggrank("similar", "nope.md").output
    assert "notes is a folder" in ggrank("similar", folder / "notes").output
    (tmp_path / "zeros.txt").write_bytes(b"a\0b")
    assert f"{tmp_path / 'zeros.txt'}: a binary file" in ggrank("similar", tmp_path / "zeros.txt").output
    assert json_lines(ggrank("similar", "trains and hotels", "--json"))


def test_status_counts_what_is_there(folder: Path) -> None:
    facts = json.loads(ggrank("status", "--index", folder / ".ggrank", "--json").output)
    assert facts["files"] == facts["documents"] == facts["passages"] == len(NOTES)
    assert facts["vectors"] == "float32"
    assert facts["bytes"] > 0
