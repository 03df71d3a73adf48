"""Which files of a folder are documents, against what Git itself ignores."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ggrank import InputError, InputTypeError
from ggrank.search.files import FileRules, find_files


def make(folder: Path, *names: str, **contents: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents.get(name, "text"))
    return folder


def found(folder: Path, **options: object) -> list[str]:
    files = find_files([str(folder)], {str(folder): FileRules(**options)}).files  # type: ignore[arg-type]
    return [Path(path).relative_to(folder).as_posix() for path in files]


def skipped(folder: Path, **options: object) -> dict[str, str]:
    reasons = find_files([str(folder)], {str(folder): FileRules(**options)}).skipped  # type: ignore[arg-type]
    return {Path(path).relative_to(folder).as_posix(): reason for path, reason in reasons.items()}


def test_documents_are_found_in_order_without_what_programs_make(tmp_path: Path) -> None:
    make(
        tmp_path,
        "b.md",
        "a.txt",
        "sub/c.py",
        "node_modules/x/readme.md",
        ".hidden.md",
        ".git/a.txt",
        "photo.raw",
    )
    make(tmp_path, "target/CACHEDIR.TAG", "target/debug/e.md")
    make(tmp_path, "package-lock.json", "poetry.lock", "settings.json", "__pycache__/d.txt")
    (tmp_path / "link").symlink_to(tmp_path / "sub", target_is_directory=True)
    assert found(tmp_path) == ["a.txt", "b.md", "sub/c.py"]
    assert skipped(tmp_path) == {"photo.raw": "unknown format", "settings.json": "unknown format"}


@pytest.mark.skipif(shutil.which("git") is None, reason="compares with Git")
def test_git_agrees_on_what_is_ignored(tmp_path: Path) -> None:
    names = [
        "a.md",
        "build/a.md",
        "keep/build.md",
        "x/log.txt",
        "x/y/log.txt",
        "x/y/keep.txt",
        "z/only.md",
        "z/no.md",
    ]
    make(tmp_path, *names, "x/secret/a.md")
    (tmp_path / ".gitignore").write_text("# a comment\nbuild/\n*.txt\n!keep.txt\n/z/*\n!/z/only.md\n")
    (tmp_path / "x" / ".gitignore").write_text("secret\n!log.txt\n/y/log.txt\n")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    command = ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert sorted(found(tmp_path)) == sorted(name for name in listed if not name.endswith(".gitignore"))
    assert sorted(found(tmp_path / "x")) == sorted(
        name[2:] for name in listed if name.startswith("x/") and "git" not in name
    )


def test_ignore_files_work_without_git(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "drafts/b.md")
    (tmp_path / ".ignore").write_text("drafts/\n")
    assert found(tmp_path) == ["a.md"]
    assert skipped(tmp_path) == {"drafts": "ignored"}


def test_patterns_exclude_and_include(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.raw", "old/c.md", "old/d.txt")
    assert found(tmp_path, exclude=["old/"]) == ["a.md"]
    assert found(tmp_path, include=["*.md"]) == ["a.md", "old/c.md"]
    assert found(tmp_path, include=["*.raw"]) == ["b.raw"]
    assert skipped(tmp_path, include=["*.md"], exclude=["d.*"])["old/d.txt"] == "excluded"


def test_large_files_are_skipped_but_rows_are_not(tmp_path: Path) -> None:
    make(tmp_path, "a.md", "b.jsonl", "c.md")
    (tmp_path / "a.md").write_text("x" * 11)
    (tmp_path / "b.jsonl").write_text("x" * 11)
    assert found(tmp_path, max_file_size=10) == ["b.jsonl", "c.md"]
    assert skipped(tmp_path, max_file_size=10) == {"a.md": "too large"}


def test_what_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    make(tmp_path, "a.md")
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    assert [Path(path).name for path in find_files([str(tmp_path)]).unreadable] == ["gone.md"]
    assert find_files([str(tmp_path / "missing")]).gone == [str(tmp_path / "missing")]


def test_rules_that_are_none_are_refused() -> None:
    with pytest.raises(InputTypeError, match="put it in a list"):
        FileRules().changed("*.md", None, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not a pattern"):
        FileRules().changed(None, ["!"], None)
    with pytest.raises(InputError, match="max_file_size"):
        FileRules().changed(None, None, 0)
