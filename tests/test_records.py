"""Records: written whole or not at all, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import ENVIRONMENT
from ggrank.rows.records import cache_dir, forget, recall, remember


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_facts_are_added_to_those_that_are_there(directory: Path) -> None:
    remember("a", {"x": 1})
    remember("a", {"y": 2})
    assert recall("a") == {"x": 1, "y": 2}
    assert [path.name for path in directory.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\0", "[" * 100_000])
def test_a_damaged_record_is_as_good_as_none(directory: Path, damage: str) -> None:
    remember("a", {"x": 1})
    (directory / "a.json").write_text(damage)
    assert recall("a") == {}
    remember("a", {"y": 2})
    assert recall("a") == {"y": 2}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "file"))
    assert not remember("a", {"x": 1})
    assert recall("a") == {}
    assert not forget("a", ["x"])


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="users are others there")
@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become somebody else"
)
def test_a_user_without_a_home_has_no_records_and_no_error() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, ggrank.rows.records as r; os.setuid(54321)\n"
            "print(r.remember('a', {}), r.recall('a'))",
        ],
        env={name: value for name, value in ENVIRONMENT.items() if name not in _HOMES},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False {}\n"


_HOMES = {"HOME", "GGRANK_CACHE_DIR", "XDG_CACHE_HOME"}


@pytest.mark.skipif(sys.platform != "linux", reason="the other platforms have places of their own")
def test_the_directory_is_the_platforms_place_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GGRANK_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ggrank"
