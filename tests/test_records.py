"""Records: written whole or not at all, and never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ggrank.records import cache_dir, recall, remember


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_facts_are_added_to_those_that_are_there(directory: Path) -> None:
    remember("a", {"x": 1})
    remember("a", {"y": 2})
    assert recall("a") == {"x": 1, "y": 2}
    assert [path.name for path in directory.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\0"])
def test_a_damaged_record_is_as_good_as_none(directory: Path, damage: str) -> None:
    remember("a", {"x": 1})
    (directory / "a.json").write_text(damage)
    assert recall("a") == {}
    remember("a", {"y": 2})
    assert recall("a") == {"y": 2}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "file"))
    remember("a", {"x": 1})
    assert recall("a") == {}


@pytest.mark.skipif(sys.platform != "linux", reason="the other platforms have places of their own")
def test_the_directory_is_the_platforms_place_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GGRANK_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ggrank"
