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
        (["--since", "2025-01-01"], {"travel.md", "leave.md", "app.LOG.txt"}),
        (["--where", "tags=staff"], {"travel.md", "leave.md"}),
        (["--where", "tags!=money", "--ext", "md"], {"leave.md"}),
        (["--where", "year>=2020", "--where", "year<2024"], {"travel.md"}),
        (["--where", "draft=true"], {"leave.md"}),
        (["--where", "year=2021", "--path", "logs"], set()),
    ],
)
def test_filters_leave_only_what_matches(folder: Path, options: list[str], found: set[str]) -> None:
    hits = json_lines(
        ggrank("search", "trains and days", "--index", folder / ".ggrank", "-n", "9", "--json", *options)
    )
    assert {Path(hit["path"]).name for hit in hits} == found


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


def test_the_index_of_a_folder_above_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "notes")
    (hit, *_) = json_lines(ggrank("search", "trains", "--by", "words", "--json"))
    assert hit["path"] == str(folder / "notes" / "travel.md")


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


def test_get_reads_nothing_that_is_not_indexed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "secret.txt").write_text("The key is under the mat.")
    monkeypatch.chdir(folder)
    done = ggrank("get", "secret.txt")
    assert done.exit_code == 1
    assert "is not in the index" in done.output


def test_rows_of_a_csv_file_are_filtered_by_numbers_and_read_by_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faq.csv").write_text("id,text,year\na,Cycle paths are new,2024\nb,Bikes are fast,2019\n")
    monkeypatch.chdir(tmp_path)
    assert ggrank("index", "faq.csv").exit_code == 0
    for condition, found in (("year>=2020", ["a"]), ("year=2019", ["b"]), ("year!=2019", ["a"])):
        hits = json_lines(ggrank("search", "bikes", "--where", condition, "--json"))
        assert [hit["id"] for hit in hits] == found
    assert ggrank("get", "b").output == ggrank("get", "faq.csv:3").output == "Bikes are fast\n"
    assert "each of its 2 rows is a document" in ggrank("get", "faq.csv").output
    assert "has 1 line, and no line 9" in ggrank("get", "b:9").output


def test_a_wrong_path_is_not_taken_for_a_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "notes")
    assert "there is no file nope.md" in ggrank("similar", "nope.md").output
    assert json_lines(ggrank("similar", "trains and hotels", "--json"))


def test_status_counts_what_is_there(folder: Path) -> None:
    facts = json.loads(ggrank("status", "--index", folder / ".ggrank", "--json").output)
    assert facts["files"] == facts["documents"] == facts["passages"] == len(NOTES)
    assert facts["vectors"] == "float32"
    assert facts["bytes"] > 0
