"""``ggrank index --watch`` as a process: what is written while it runs is found by a search."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command_line import ENVIRONMENT
from ggrank import Index

pytest.importorskip("watchfiles")

PATIENCE = 120
"""Seconds after which a test gives up; on an idle machine each step takes about two."""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A folder with one note and a file beside it, both watched."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "first.md").write_text("Llamas graze.")
    (tmp_path / "single.txt").write_text("Bees dance.")
    process = subprocess.Popen(
        [sys.executable, "-m", "ggrank", "index", "notes", "single.txt", "--watch", "--exclude", "secret/"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=(tmp_path / "stderr").open("w"),
        text=True,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: "Watching 2 paths" in (tmp_path / "stderr").read_text() or process.poll() is not None)
    yield tmp_path, process
    process.kill()
    process.wait()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)


def found(folder: Path, word: str) -> list[str]:
    with Index.open(folder / ".ggrank") as index:
        return [Path(hit.path).name for hit in index.search(word, by="words")]


def test_what_is_written_while_it_watches_is_found(watched: tuple[Path, subprocess.Popen[str]]) -> None:
    folder, process = watched
    notes = folder / "notes"
    (notes / "secret").mkdir()
    (notes / "secret" / "hidden.md").write_text("Zebra.")
    (notes / "new.md").write_text("Owls hunt.")
    until(lambda: found(folder, "owls") == ["new.md"])

    # As editors save: the old file goes, another one takes its name.
    (notes / "first.md~").write_text("Llamas spit.")
    (notes / "first.md").unlink()
    (notes / "first.md~").rename(notes / "first.md")
    (folder / "single.tmp").write_text("Bees swarm.")
    (folder / "single.tmp").replace(folder / "single.txt")
    until(lambda: found(folder, "spit") == ["first.md"] and found(folder, "swarm") == ["single.txt"])
    assert found(folder, "graze") == found(folder, "dance") == []

    # A file that is written slowly, and is no Word file before its end.
    data = (Path(__file__).parent / "documents" / "library" / "soliloquies.docx").read_bytes()
    with (notes / "plays.docx").open("wb") as file:
        file.write(data[:5000])
        file.flush()
        until(lambda: "plays.docx: a .docx file that cannot be read" in (folder / "stderr").read_text())
        file.write(data[5000:])
    until(lambda: "plays.docx" in found(folder, "countrymen"))

    (notes / "new.md").unlink()
    until(lambda: found(folder, "owls") == [])
    assert found(folder, "zebra") == []
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) in (0, 130)
    lines = (folder / "stderr").read_text().splitlines()
    assert not any("Traceback" in line or "Error" in line for line in lines)
    assert any(line.endswith(" 1 removed") for line in lines)


@pytest.mark.skipif(os.name == "nt", reason="a folder that is in use cannot go there")
def test_a_folder_that_is_emptied_is_a_warning_and_comes_back(
    watched: tuple[Path, subprocess.Popen[str]],
) -> None:
    folder, process = watched
    (folder / "notes" / "first.md").rename(folder / "elsewhere.md")
    until(lambda: "1 of the index's 1 files are gone" in (folder / "stderr").read_text())
    assert found(folder, "graze") == ["first.md"]
    (folder / "elsewhere.md").rename(folder / "notes" / "first.md")
    (folder / "notes" / "second.md").write_text("Owls hunt.")
    until(lambda: found(folder, "owls") == ["second.md"])
    assert process.poll() is None
