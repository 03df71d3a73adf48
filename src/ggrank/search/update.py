"""One update of an index: what changed on the disk is read, embedded and stored, batch by batch.

What was committed stays, however the update ends; the next one keeps what is stored already, so that nothing
is embedded twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import stat_result
from pathlib import Path
from sqlite3 import Connection

import numpy as np

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of
from ggrank.scoring import l2_normalize
from ggrank.search.files import FileRules, FoundFiles, find_files, is_below
from ggrank.search.models import Embedder
from ggrank.search.readers import read_documents
from ggrank.search.sections import FileDocument
from ggrank.search.settings import foreign_vector
from ggrank.search.store import (
    Store,
    StoredFile,
    finish_file,
    remove_documents,
    remove_file,
    start_file,
    touch_file,
)
from ggrank.search.writing import Writer, storable


@dataclass(frozen=True)
class Progress:
    """How far an update is; all that it counts is committed.

    Attributes:
        n_bytes: of changed files, done.
        n_bytes_total: of all changed files.
        n_passages: of changed files, stored.
        n_embedded: of them, those that were not known before.
        n_tokens: embedded, special ones not counted.
    """

    n_bytes: int = 0
    n_bytes_total: int = 0
    n_passages: int = 0
    n_embedded: int = 0
    n_tokens: int = 0


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why; or only so many lines of it, where ``n_lines`` says so."""

    path: str
    reason: str
    n_lines: int = 0


@dataclass(frozen=True)
class Changes:
    """What an update did.

    Attributes:
        added, changed, removed, unchanged: how many files.
        skipped: files and folders that could not be read, and why; what was known of them stays. One with
            ``n_lines`` is in the index without so many of its lines.
        unsupported: files in folders that no reader is for by suffix; and by reason those that are ignored or
            too large.
        progress: how many passages and tokens.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    unsupported: dict[str, list[str]]
    progress: Progress


@dataclass(eq=False)
class _File:
    """A file that is looked at: how it is in the index and on the disk, and what became of it."""

    path: str
    facts: stat_result
    before: StoredFile | None
    sha256: str = ""
    stored: StoredFile | None = None
    is_started: bool = False
    n_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def looks_unchanged(self) -> bool:
        """By size and time, without a look at its bytes."""
        before, now = self.before, self.facts
        return (
            before is not None
            and before.is_complete
            and (before.size, before.mtime_ns) == (now.st_size, now.st_mtime_ns)
        )

    @property
    def is_same(self) -> bool:
        """By its bytes, once their sum is known."""
        return self.before is not None and self.before.is_complete and self.before.sha256 == self.sha256


class Update:
    """One update; the writer's lock is held, and `run` is called once."""

    def __init__(
        self, store: Store, embedder: Embedder, *, on_progress: Callable[[Progress], object] | None = None
    ) -> None:
        self._store = store
        self._on_progress = on_progress
        self._writer = Writer(store, embedder, on_commit=self._committed)
        self._finished: list[_File] = []
        self._reading: _File | None = None
        self._skipped: list[Skipped] = []
        self._counts: Counter[str] = Counter()
        self._n_bytes = 0
        self._n_bytes_total = 0

    def run(
        self, named: Sequence[str], *, rules: Mapping[str, FileRules] | None = None, prune: bool = False
    ) -> Changes:
        """Brings the index up to date with the files at and below these absolute paths.

        Args:
            rules: of all folders that were ever named; they are remembered.
            prune: also where more than half of the files below a folder are gone.

        Raises:
            InputError: more than half of the files below a folder are gone, and ``prune`` is not set.
            SearchIndexError: the index cannot be written.
        """
        stored = {file.path: file for file in self._store.files()}
        # What was named once stays, whatever its kind: also below a folder that is named now.
        before = [root for root in self._store.roots() if any(is_below(root, path) for path in named)]
        found = find_files(dict.fromkeys([*named, *before]), rules)
        files = [_File(path, facts, stored.get(path)) for path, facts in found.files.items()]
        gone = [file for file in stored.values() if found.is_gone(file.path)]
        if not prune:
            _check_gone(found, gone, files)
        changed = [file for file in files if not file.looks_unchanged]
        self._counts["unchanged"] = len(files) - len(changed)
        self._skipped += [Skipped(path, reason) for path, reason in found.unreadable.items()]
        self._n_bytes_total = sum(file.facts.st_size for file in changed)
        with self._store.transaction() as db:
            roots = ((root,) for root in named if root not in found.gone)
            db.executemany("INSERT OR IGNORE INTO root (path) VALUES (?)", roots)
            kept = ((root, json.dumps(list(vars(one).values()))) for root, one in (rules or {}).items())
            db.executemany("INSERT OR REPLACE INTO rules VALUES (?, ?)", kept)
        self._committed()
        for file in changed:
            self._take(file)
        self._writer.flush()
        self._remove(gone)
        return Changes(
            **{name: self._counts[name] for name in ("added", "changed", "removed", "unchanged")},
            skipped=tuple(self._skipped),
            unsupported=found.unsupported(),
            progress=self._progress(),
        )

    def _take(self, file: _File) -> None:
        """Reads one file. One that cannot be read is left out, and what was known of it stays."""
        self._reading = file
        try:
            file.sha256 = sha256_of(Path(file.path))
            if not file.is_same:
                for read in read_documents(Path(file.path)):
                    self._take_document(file, read)
        except (InputError, OSError) as error:
            self._skipped.append(Skipped(file.path, getattr(error, "strerror", None) or str(error)))
            self._n_bytes += file.facts.st_size
            return
        finally:
            self._reading = None
        if file.problems:
            n_lines = len(file.problems)
            left_out = f"{n_lines:,} lines left out, the first:" if n_lines > 1 else "1 line left out:"
            self._skipped.append(Skipped(file.path, f"{left_out} {file.problems[0]}", n_lines))
        self._start(file)
        self._writer.then(lambda db: self._finish(db, file))

    def _take_document(self, file: _File, found: FileDocument) -> None:
        file.n_bytes = found.n_bytes
        if found.problem:
            file.problems.append(found.problem)
            return
        document = storable(found)
        self._start(file)
        if file.before is not None and self._writer.keep(file.before, document):
            return
        vector = None
        if found.vector is not None and found.origin is not None:
            if problem := foreign_vector(self._store.settings, found.origin):
                raise InputError(problem)
            vector = l2_normalize(np.array(found.vector, np.float32))
        self._writer.add(document, file=lambda: file.stored, vector=vector)

    def _start(self, file: _File) -> None:
        """The file's next version begins in the transaction of its first document, or of its end."""
        if not file.is_started and not file.is_same:
            file.is_started = True
            self._writer.then(lambda db: setattr(file, "stored", start_file(db, file.path)))

    def _finish(self, db: Connection, file: _File) -> None:
        facts = {"size": file.facts.st_size, "mtime_ns": file.facts.st_mtime_ns}
        if file.is_same and file.before is not None:
            touch_file(db, file.before, **facts)
        elif file.stored is not None:
            finish_file(db, file.stored, sha256=file.sha256, **facts)
        self._finished.append(file)

    def _committed(self) -> None:
        """After each commit: what is done is counted and reported."""
        for file in self._finished:
            is_new = file.before is None or not file.before.sha256
            self._counts["unchanged" if file.is_same else "added" if is_new else "changed"] += 1
        self._n_bytes += sum(file.facts.st_size for file in self._finished)
        self._finished = []
        if self._on_progress is not None:
            self._on_progress(self._progress())

    def _progress(self) -> Progress:
        reading = self._reading.n_bytes if self._reading is not None else 0
        writer = self._writer
        return Progress(
            n_bytes=self._n_bytes + reading,
            n_bytes_total=self._n_bytes_total,
            n_passages=writer.n_passages,
            n_embedded=writer.n_embedded,
            n_tokens=writer.n_tokens,
        )

    def _remove(self, gone: Sequence[StoredFile]) -> None:
        with self._store.transaction() as db:
            for file in gone:
                remove_file(db, file)
        self._counts["removed"] = len(gone)


def _check_gone(found: FoundFiles, gone: Iterable[StoredFile], files: Iterable[_File]) -> None:
    """Raises InputError where more than half of what the index has of a folder is gone, moved files aside."""
    moved = {(file.facts.st_size, file.facts.st_mtime_ns) for file in files if file.before is None}
    lost = [
        file.path
        for file in gone
        if (file.size, file.mtime_ns) not in moved
        and not any(is_below(file.path, skipped) for skipped in found.skipped)
    ]
    known = [file.path for file in files if file.before is not None]
    for folder in found.folders:
        n_lost = sum(is_below(path, folder) for path in lost)
        n_known = sum(is_below(path, folder) for path in known)
        if n_lost > n_known:
            raise InputError(
                f"{folder}: {n_lost:,} of the index's {n_lost + n_known:,} files are gone. If they are gone "
                "for good, say so with --prune (prune=True); else mount or restore the folder"
            )


def remove(store: Store, names: Sequence[str | float], paths: Sequence[str]) -> int:
    """Takes added documents by their ids, and files by their paths, out of an index; all of them, or none.

    Raises:
        InputError: an id or a path that the index does not have.
    """
    files, roots = store.files(), store.roots()
    for path in paths:
        if not any(is_below(one, path) for one in [*roots, *(file.path for file in files)]):
            raise InputError(f"{path} is not in the index, which is of: {', '.join(roots) or 'nothing'}")
    files = [file for file in files if any(is_below(file.path, path) for path in paths)]
    store.refill_words()
    with store.transaction() as db:
        for name in names:
            if not remove_documents(db, "file = 0 AND name = ?", name):
                raise InputError(f"no document that was added has the id {name!r}")
        for file in files:
            remove_file(db, file)
        gone = [(root,) for root in roots if any(is_below(root, path) for path in paths)]
        db.executemany("DELETE FROM root WHERE path = ?", gone)
        db.executemany("DELETE FROM rules WHERE root = ?", gone)
    return len(names) + len(files)
