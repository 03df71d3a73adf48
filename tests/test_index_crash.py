"""Whatever ends an update and whenever: the index opens, holds all that was acknowledged, and goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from command_line import ENVIRONMENT
from ggrank import Index, Llama
from job_rows import go_on

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

TEXTS = [f"Passage {i} is about the number {i * i} and the year {1500 + i}." for i in range(1500)]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as llama:
        yield llama


@pytest.fixture(scope="module")
def expected(embedder: Llama) -> dict[str, NDArray[np.float32]]:
    return dict(zip(TEXTS, embedder.embed_many(TEXTS), strict=True))


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 1,470 records, and 30 files."""
    folder = tmp_path_factory.mktemp("documents")
    records = (json.dumps({"id": i, "text": text}) for i, text in enumerate(TEXTS[:1470]))
    (folder / "corpus.jsonl").write_text("\n".join(records))
    for i, text in enumerate(TEXTS[1470:]):
        (folder / f"{i:02}.txt").write_text(text)
    return folder


STOPPING = """
    import os, signal, sys
    from ggrank.cli import main
    at = int(sys.argv.pop(1))
    fsync, calls = os.fsync, 0
    def stopping_fsync(number):
        global calls
        calls += 1
        if calls == at: os.kill(os.getpid(), signal.SIGSTOP)
        fsync(number)
    os.fsync = stopping_fsync
    main()
"""


def updating(documents: Path, folder: Path) -> subprocess.Popen[bytes]:
    """An update of twelve batches that stops, as SIGSTOP does, in the fourth: however fast it is, and however
    slow who looks on, it is never done before it is killed.
    """
    return child("-c", textwrap.dedent(STOPPING), "4", "index", documents, "--index", folder)


def wait_for_more(update: subprocess.Popen[bytes], folder: Path, seen: int) -> int:
    """How many are stored, once there are more than were seen, or nothing more comes."""
    while (found := n_stored(folder)) <= seen and update.poll() is None:
        time.sleep(0.002)
    return found


def child(*args: str | Path) -> subprocess.Popen[bytes]:
    """Ctrl-C reaches it even where these tests run in the background, where shells turn that off."""
    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def n_stored(folder: Path) -> int:
    """Passages that another process can see."""
    try:
        address = f"{(folder / '1' / 'index.sqlite').as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True, timeout=0)) as db:
            return int(db.execute("SELECT count(*) FROM passage").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet, or being made: waiting could take longer than the update
        return 0


def assert_whole(folder: Path, expected: dict[str, NDArray[np.float32]]) -> None:
    """SQLite and FTS5 find no fault, and every passage's vector is that of its own text."""
    with closing(sqlite3.connect(folder / "1" / "index.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        rows = db.execute("SELECT passage, text FROM place_text").fetchall()
        assert db.execute("SELECT count(*) FROM words_docsize").fetchone() == (len(dict(rows)),)
        for row, text in rows:
            number = text.split()[1]
            found = db.execute("SELECT rowid FROM words WHERE words MATCH ?", (f'"passage {number}"',))
            assert found.fetchall() == [(row,)]
    numbers = np.fromfile(folder / "1" / "vectors-0.float32", "<f4")
    for row, text in rows:
        assert numbers[384 * row : 384 * (row + 1)] @ expected[text] > 0.995


def contents(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "1" / "index.sqlite")) as db:
        return db.execute(
            "SELECT path, is_complete, sha256, name, document.key, start, stop, line, headings, text "
            "FROM place_text JOIN document ON document.id = document JOIN file ON file.id = document.file "
            "ORDER BY path, name, start"
        ).fetchall()


def test_an_index_that_was_killed_again_and_again_becomes_the_same_as_an_undisturbed_one(
    tmp_path: Path, documents: Path, embedder: Llama, expected: dict[str, NDArray[np.float32]]
) -> None:
    folder = tmp_path / "killed"
    seen = 0
    for _ in range(2):
        update = updating(documents, folder)
        seen = wait_for_more(update, folder, seen)
        update.kill()
        update.wait()
        assert n_stored(folder) >= seen > 0
        assert_whole(folder, expected)
    assert seen < len(TEXTS), "it was killed in the middle"
    with Index.open(folder, embedder=embedder) as index:
        kept = len(index)
        changes = index.update([documents])
    assert changes.progress.n_embedded == len(TEXTS) - kept
    with Index.open(tmp_path / "undisturbed", embedder=embedder) as index:
        index.update([documents])
    assert_whole(folder, expected)
    assert contents(folder) == contents(tmp_path / "undisturbed")


KILLED_AT_A_SYNC = """
    import os, signal, sys
    from ggrank import Index, Llama
    from ggrank.search import writing
    folder, documents, at, when = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    writing.BATCH = 8
    at += 2  # a new index syncs the name of its first generation
    fsync, calls = os.fsync, 0
    def dying_fsync(number):
        global calls
        calls += 1
        if when == "before" and calls == at: os.kill(os.getpid(), signal.SIGKILL)
        fsync(number)
        if when == "after" and calls == at: os.kill(os.getpid(), signal.SIGKILL)
    os.fsync = dying_fsync
    with Llama.load("all-minilm-l6-v2") as embedder, Index.open(folder, embedder=embedder) as index:
        index.update([documents], on_progress=lambda progress: print(progress.n_passages, flush=True))
"""


@pytest.mark.parametrize(("at", "when"), [(1, "before"), (2, "before"), (2, "after")])
def test_killed_between_the_vectors_and_their_commit_only_that_batch_is_missing(
    tmp_path: Path,
    embedder: Llama,
    expected: dict[str, NDArray[np.float32]],
    at: int,
    when: str,
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    for i, text in enumerate(TEXTS[:30]):
        (documents / f"{i:02}.txt").write_text(text)
    update = child("-c", textwrap.dedent(KILLED_AT_A_SYNC), tmp_path / "index", documents, str(at), when)
    output, _ = update.communicate()
    assert update.returncode == -signal.SIGKILL
    acknowledged = int(output.split()[-1])
    assert acknowledged == n_stored(tmp_path / "index") == 8 * (at - 1)
    assert_whole(tmp_path / "index", expected)
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        assert index.update([documents]).progress.n_embedded == 30 - acknowledged
        assert len(index) == 30
    assert_whole(tmp_path / "index", expected)


def test_an_index_whose_making_was_cut_off_is_made_again(tmp_path: Path, embedder: Llama) -> None:
    (tmp_path / "a.txt").write_text("Bees dance.")
    half = b"SQLite format 3\0"
    for files in ({}, {"1/index.sqlite": b""}, {"1/index.sqlite": half}, {".current.unfinished": b"1"}):
        folder = tmp_path / f"index{len(list(tmp_path.iterdir()))}"
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        with Index.open(folder, embedder=embedder) as index:
            assert index.update([tmp_path / "a.txt"]).added == 1
            assert index.search("bees")[0].text == "Bees dance."


def test_killed_while_the_vectors_move_the_index_is_as_before_or_after(
    tmp_path: Path, embedder: Llama, expected: dict[str, NDArray[np.float32]]
) -> None:
    for name, texts in (("a.jsonl", TEXTS[:400]), ("b.jsonl", TEXTS[400:600])):
        records = (json.dumps({"id": i, "text": text}) for i, text in enumerate(texts))
        (tmp_path / name).write_text("\n".join(records))
    with Index.open(tmp_path / "whole", embedder=embedder) as index:
        index.update([tmp_path / "a.jsonl"])
        index.update([tmp_path / "b.jsonl"])
    for point in ("before the transaction", "after the transaction"):
        folder = tmp_path / point
        shutil.copytree(tmp_path / "whole", folder)
        killed = child("-c", textwrap.dedent(KILLED_IN_COMPACTION), folder, tmp_path / "a.jsonl", point)
        assert killed.wait() == -signal.SIGKILL
        with Index.open(folder, embedder=embedder) as index:
            hits = index.search("the year 1900", by="words", top_n=300)
            assert sorted({hit.text for hit in hits}) == sorted(set(TEXTS[400:600]))
            for hit in index.search(TEXTS[500], top_n=50):
                assert hit.cosine == pytest.approx(float(expected[TEXTS[500]] @ expected[hit.text]), abs=0.01)
            index.update([tmp_path / "b.jsonl"])
            index.add(["A new one."])
            assert index.search("A new one.")[0].text == "A new one."


KILLED_IN_COMPACTION = """
    import os, signal, sys
    from pathlib import Path
    from ggrank import Index
    from ggrank.search import store
    unlink, move = Path.unlink, store._move_passages
    def kill(*args, **options): os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[3].startswith("before"): store._move_passages = kill
    else: Path.unlink = kill
    with Index.open(sys.argv[1]) as index:
        index.remove(paths=[sys.argv[2]])
"""


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, documents: Path, embedder: Llama, expected: dict[str, NDArray[np.float32]]
) -> None:
    update = updating(documents, tmp_path / "index")
    wait_for_more(update, tmp_path / "index", 0)
    update.send_signal(signal.SIGINT)
    _, errors = go_on(update)
    assert update.returncode == 130
    assert re.search(rb"Stopped; \d+ new passages are kept. The same command goes on.", errors)
    assert b"Traceback" not in errors
    assert 0 < n_stored(tmp_path / "index") < len(TEXTS)
    assert_whole(tmp_path / "index", expected)


def test_a_full_disk_is_one_clear_error_and_what_was_there_stays(
    tmp_path: Path, documents: Path, embedder: Llama, expected: dict[str, NDArray[np.float32]]
) -> None:
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([documents / "01.txt"])
    resource = pytest.importorskip("resource")
    limit = 200_000  # bytes of a file: enough for the first batches' vectors, not for all
    update = subprocess.run(
        [sys.executable, "-m", "ggrank", "index", documents, "--index", tmp_path / "index"],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        encoding="utf-8",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert update.returncode == 1
    assert update.stderr.startswith("Error: ")
    assert len(update.stderr.splitlines()) == 1
    assert 1 <= n_stored(tmp_path / "index") < len(TEXTS)
    assert_whole(tmp_path / "index", expected)
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        index.update([documents])
        assert len(index) == len(TEXTS)
