"""One update of an index: what changed on the disk is read, embedded and stored, batch by batch.

What was committed stays, however the update ends; the next one keeps what is stored already, so that nothing
is embedded twice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
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
from ggrank.search.settings import check_origin
from ggrank.search.store import Store, StoredFile
from ggrank.search.writing import Writer, cleaned, remove_documents, remove_file, storable


@dataclass(frozen=True)
class IndexProgress:
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
    progress: IndexProgress


@dataclass(eq=False)
class _File:
    """A file that is looked at: how it is in the index and on the disk, and what became of it."""

    path: str
    facts: stat_result
    before: StoredFile | None
    sha256: str = ""
    now: StoredFile | None = None
    n_bytes: int = 0
    is_one: bool = True
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
    """One update; the writer's lock is held, and `run` is called once.

    ``old`` is the store that a new one is made in place of.
    """

    def __init__(
        self,
        store: Store,
        embedder: Embedder,
        *,
        old: Store | None = None,
        on_progress: Callable[[IndexProgress], object] | None = None,
    ) -> None:
        self._store = store
        self._before = old or store
        self._is_anew = old is not None
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

        ``rules`` are those of all folders that were ever named, and are remembered.
        """
        stored = {file.path: file for file in self._store.files()}
        # What was named once stays, whatever its kind: also below a folder that is named now.
        before = [root for root in self._before.roots() if any(is_below(root, path) for path in named)]
        roots = list(dict.fromkeys([*named, *before]))
        forgotten = [path for path in self._before.roots(forgotten=True) if path not in named]
        found = find_files(roots, rules)
        _leave_out(found, roots, forgotten)
        if not prune:
            self._check_lost(found, kept=found.files)
        # What is not UTF-8 is skipped, whatever it is.
        there = [root for root in roots if root not in found.gone and root == cleaned(root)]
        self._remember(there, forgotten, rules or {})
        files = [_File(path, facts, stored.get(path)) for path, facts in found.files.items()]
        changed = [file for file in files if not file.looks_unchanged]
        self._counts["unchanged"] = len(files) - len(changed)
        self._skipped += [Skipped(path, reason) for path, reason in found.unreadable.items()]
        self._n_bytes_total = sum(file.facts.st_size for file in changed)
        self._committed()
        for file in changed:
            self._take(file)
        self._writer.flush()
        self._remove([file for file in stored.values() if self._is_gone(file.path, found, roots)])
        self._forget_unread(found, roots)
        if self._is_anew and not prune:
            self._check_lost(found, kept={file.path for file in self._store.files()})
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
        self._writer.then(partial(self._finish, file))

    def _take_document(self, file: _File, found: FileDocument) -> None:
        file.n_bytes, file.is_one = found.n_bytes, not found.place
        self._writer.share = 0.0
        try:
            if found.problem and found.place:
                raise InputError(found.problem)
            document = storable(found)
        except InputError as error:
            if not found.place:
                raise
            file.problems.append(found.problem or f"{found.place}: {error}")
            return
        if document.problem:
            n_lines = document.text[: document.sections[0].start].count("\n")
            self._skipped.append(Skipped(file.path, document.problem, n_lines))
        now = self._start(file)
        if file.before is not None and self._writer.keep(now, document):
            return
        vector = None
        if found.vector is not None and found.origin is not None:
            check_origin(self._store.settings, found.origin)
            vector = l2_normalize(np.array(found.vector, np.float32))
        self._writer.add(document, file=now, vector=vector)

    def _start(self, file: _File) -> StoredFile:
        """The file's next version, which begins with its first document, or with its end."""
        if file.now is None:
            same = file.before if file.is_same else None
            file.now = same or self._writer.start(file.path, file.before)
        return file.now

    def _finish(self, file: _File, db: Connection) -> None:
        now = self._start(file)
        remove_documents(db, "file = ? AND version < ?", now.id, now.version)
        db.execute(
            "UPDATE file SET size = ?, mtime_ns = ?, sha256 = ?, is_complete = 1 WHERE id = ?",
            (file.facts.st_size, file.facts.st_mtime_ns, file.sha256, now.id),
        )
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

    def _progress(self) -> IndexProgress:
        file, writer = self._reading, self._writer
        reading = 0
        if file is not None:
            reading = file.n_bytes or int(writer.share * file.is_one * file.facts.st_size)
        return IndexProgress(
            n_bytes=self._n_bytes + reading,
            n_bytes_total=self._n_bytes_total,
            n_passages=writer.n_passages,
            n_embedded=writer.n_embedded,
            n_tokens=writer.n_tokens,
        )

    def _remember(
        self, roots: Sequence[str], forgotten: Sequence[str], rules: Mapping[str, FileRules]
    ) -> None:
        known = [] if self._is_anew else self._store.roots()
        with self._store.transaction() as db:
            if self._is_anew:
                db.execute("DELETE FROM root")
            rows = [*((path, 1) for path in forgotten), *((root, 0) for root in roots if root not in known)]
            db.executemany("INSERT OR REPLACE INTO root VALUES (?, ?)", rows)
            kept = (
                (root, json.dumps(list(vars(one).values())))
                for root, one in rules.items()
                if root == cleaned(root)
            )
            db.executemany("INSERT OR REPLACE INTO rules VALUES (?, ?)", kept)

    def _is_gone(self, path: str, found: FoundFiles, roots: Sequence[str]) -> bool:
        if self._is_anew and not any(is_below(path, root) for root in roots):
            return True  # an earlier attempt to make the index anew was given other paths
        return found.is_gone(path)

    def _remove(self, gone: Sequence[StoredFile]) -> None:
        with self._store.transaction() as db:
            for file in gone:
                remove_file(db, file)
        self._counts["removed"] = len(gone)

    def _forget_unread(self, found: FoundFiles, roots: Sequence[str]) -> None:
        """A file that was named, and never could be read, is not remembered."""
        unread = {one.path for one in self._skipped if not one.n_lines} & {*roots} & {*found.files}
        if unread := unread - {file.path for file in self._before.files()}:
            with self._store.transaction() as db:
                db.executemany("DELETE FROM root WHERE path = ?", [(path,) for path in unread])

    def _check_lost(self, found: FoundFiles, *, kept: Collection[str]) -> None:
        """Raises InputError where more than half of what the index has of a folder would be lost.

        Files that moved, and those that a rule leaves out now, are not lost. While an index is made anew,
        files that cannot be read are.
        """
        known = {file.path: (file.size, file.mtime_ns) for file in self._before.files()}
        moved = {(one.st_size, one.st_mtime_ns) for path, one in found.files.items() if path not in known}
        lost = [
            path
            for path, facts in known.items()
            if path not in kept
            and (self._is_anew or found.is_gone(path))
            and facts not in moved
            and not any(str(one) in found.skipped for one in (Path(path), *Path(path).parents))
        ]
        for folder in found.folders:
            n_lost = sum(is_below(path, folder) for path in lost)
            n_kept = sum(is_below(path, folder) for path in known if path in kept)
            if n_lost > n_kept:
                what = "gone or cannot be read" if self._is_anew else "gone"
                raise InputError(
                    f"{folder}: {n_lost:,} of the index's {n_lost + n_kept:,} files are {what}. If that is "
                    "for good, say so with --prune (prune in Python); else mount or restore the folder"
                )


def _leave_out(found: FoundFiles, roots: Sequence[str], forgotten: Sequence[str]) -> None:
    """Leaves out what was forgotten and not named since; of both the nearest folder above a file decides."""
    for path in list(found.files) if forgotten else ():
        above = (str(one) for one in (Path(path), *Path(path).parents))
        if next(one for one in above if one in roots or one in forgotten) in forgotten:
            del found.files[path]
            found.skipped[path] = "forgotten"


def remove(store: Store, names: Sequence[str | float], paths: Sequence[str]) -> int:
    """Takes added documents by their ids, and files by their paths, out of an index; all of them, or none.

    A path below a root that stays is remembered as forgotten.
    """
    files, roots = store.files(), store.roots()
    for path in paths:
        if not any(is_below(one, path) for one in [*roots, *(file.path for file in files)]):
            raise InputError(f"{path} is not in the index, which is of: {', '.join(roots) or 'nothing'}")
    files = [file for file in files if any(is_below(file.path, path) for path in paths)]
    known = [*roots, *store.roots(forgotten=True)]
    gone = [root for root in known if any(is_below(root, path) for path in paths)]
    forgotten = [path for path in paths if any(is_below(path, root) for root in roots if root not in gone)]
    store.refill_words()
    with store.transaction() as db:
        for name in names:
            if not remove_documents(db, "file = 0 AND name = ?", name):
                raise InputError(f"no document that was added has the id {name!r}")
        for file in files:
            remove_file(db, file)
        db.executemany("DELETE FROM root WHERE path = ?", [(root,) for root in gone])
        db.executemany("DELETE FROM rules WHERE root = ?", [(root,) for root in gone])
        db.executemany("INSERT OR REPLACE INTO root VALUES (?, 1)", [(path,) for path in forgotten])
    return len(names) + len(files)
