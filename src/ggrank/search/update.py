"""One update of an index: what changed on the disk is read, cut, embedded and stored, batch by batch.

    files -> changed ones -> parts -> passages -> (stored before? keep : embed) -> vectors, then rows

Knows the order of these steps. What was committed stays, however the update ends; the next one takes passages
that are stored already as they are, so that nothing is embedded twice.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of
from ggrank.llama import Llama
from ggrank.scoring import l2_normalize
from ggrank.search.chunking import embedded_text, passages
from ggrank.search.files import FoundFiles, Skipped, find_files
from ggrank.search.readers import read_documents
from ggrank.search.sections import SEPARATOR, FileDocument
from ggrank.search.settings import foreign_vector
from ggrank.search.store import NewPassage, Store, StoredFile
from ggrank.text.inputs import check_text

BATCH = 128
"""Passages that are embedded and committed together: a few seconds' work on a slow machine."""

PLACE_CHARACTERS = 200
"""Of a heading that is kept as a passage's place."""


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
class Changes:
    """What an update did.

    Attributes:
        added, changed, removed, unchanged: how many files.
        skipped: files and folders that could not be read, and why; what was known of them stays. One with
            ``n_lines`` is in the index without so many of its lines.
        progress: how many passages and tokens.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    progress: Progress


@dataclass(eq=False)
class _Run:
    """A file on its way into the index; what it was before, and how far it is read."""

    path: str
    facts: os.stat_result
    before: StoredFile | None
    sha256: str = ""
    stored: StoredFile | None = None
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


@dataclass(frozen=True)
class _Waiting:
    """A passage that the next batch stores."""

    run: _Run
    passage: NewPassage
    n_tokens: int
    embedded: str
    vector: NDArray[np.float32] | None = None


class Update:
    """One update; the writer's lock is held, and `run` is called once."""

    def __init__(
        self, store: Store, embedder: Llama, *, on_progress: Callable[[Progress], object] | None = None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._on_progress = on_progress
        self._most = store.settings.chunk_tokens - embedder.count_tokens(embedder.document_prefix)
        self._waiting: list[_Waiting] = []
        self._finished: list[_Run] = []
        self._skipped: list[Skipped] = []
        self._counts: Counter[str] = Counter()
        self._progress = Progress()
        self._n_bytes = 0

    def run(self, roots: Iterable[str]) -> Changes:
        """Brings the index up to date with the files at and below these absolute paths.

        Raises:
            SearchIndexError: the index cannot be written.
        """
        roots = list(roots)
        stored = {file.path: file for file in self._store.files()}
        found = find_files(roots)
        runs = [_Run(path, facts, stored.get(path)) for path, facts in found.files.items()]
        changed = [run for run in runs if not run.looks_unchanged]
        self._counts["unchanged"] = len(runs) - len(changed)
        self._skipped += found.unknown
        self._progress = Progress(n_bytes_total=sum(run.facts.st_size for run in changed))
        with self._store.transaction():
            self._store.add_roots(root for root in roots if root not in found.gone)
        self._report()
        for run in changed:
            self._take(run)
        self._flush()
        self._remove(found, stored.values())
        return Changes(
            added=self._counts["added"],
            changed=self._counts["changed"],
            removed=self._counts["removed"],
            unchanged=self._counts["unchanged"],
            skipped=tuple(self._skipped),
            progress=self._progress,
        )

    def _take(self, run: _Run) -> None:
        """Reads one file; its passages wait for their batch. A file that cannot be read is left out."""
        try:
            run.sha256 = sha256_of(Path(run.path))
            if not run.is_same:
                for part in read_documents(Path(run.path)):
                    self._take_part(run, part)
        except (InputError, OSError) as error:
            self._skipped.append(Skipped(run.path, getattr(error, "strerror", None) or str(error)))
            self._n_bytes += run.facts.st_size
            return
        if run.problems:
            n_lines = len(run.problems)
            left_out = f"{n_lines:,} lines left out, the first:" if n_lines > 1 else "1 line left out:"
            self._skipped.append(Skipped(run.path, f"{left_out} {run.problems[0]}", n_lines))
        self._finished.append(run)

    def _take_part(self, run: _Run, part: FileDocument) -> None:
        run.n_bytes = part.n_bytes
        if part.problem:
            run.problems.append(part.problem)
        for waiting in self._passages(run, part):
            self._waiting.append(waiting)
            if len(self._waiting) >= BATCH:
                self._flush()

    def _passages(self, run: _Run, part: FileDocument) -> Iterator[_Waiting]:
        part = replace(part, text=check_text(part.text, run.path))
        most, overlap = self._most, self._store.settings.overlap
        for passage in passages(part, count_tokens=self._count, most=most, overlap=overlap):
            text = part.text[passage.start : passage.end]
            place = passage.place or passage.headings.rpartition(SEPARATOR)[2]
            embedded = check_text(embedded_text(passage.headings, text), run.path)
            new = NewPassage(
                key=hashlib.sha256(embedded.encode()).digest()[:16],
                text=text,
                start=passage.start,
                stop=passage.end,
                place=check_text(place[:PLACE_CHARACTERS], run.path) or f"line {passage.line}",
                record=_storable(part.id),
            )
            # A vector that came along is that of the whole text.
            known = self._known_vector(part) if text == part.text.strip() else None
            yield _Waiting(run, new, passage.n_tokens, embedded, known)

    def _known_vector(self, part: FileDocument) -> NDArray[np.float32] | None:
        """A part's vector of length 1, where one came along.

        Raises:
            InputError: it was made with another model, or is not what an index keeps.
        """
        if part.vector is None or part.origin is None:
            return None
        problem = foreign_vector(self._store.settings, part.origin)
        if problem:
            raise InputError(problem)
        return l2_normalize(np.array(part.vector, np.float32))

    def _count(self, text: str) -> int:
        return len(self._embedder.tokenize(text))

    def _flush(self) -> None:
        """Stores what waits and finishes what was read to its end, in one transaction."""
        with self._store.transaction():
            for run in [*(one.run for one in self._waiting), *self._finished]:
                if run.stored is None and not run.is_same:
                    run.stored = self._store.start_file(run.path)
            new = [one for one in self._waiting if not self._store.keep(_stored(one.run), one.passage)]
            n_embedded, n_tokens = self._insert(new)
            for run in self._finished:
                self._finish(run)
        self._count_up(n_embedded, n_tokens)

    def _insert(self, new: list[_Waiting]) -> tuple[int, int]:
        """Stores passages with their vectors; how many had to be embedded, and their tokens."""
        rows = self._store.next_rows(len(new))
        packed = self._store.vectors.empty(len(new))
        same = [self._store.row_with(one.passage.key) for one in new]
        known = [i for i, row in enumerate(same) if row is not None]
        brought = {i: one.vector for i, one in enumerate(new) if one.vector is not None and same[i] is None}
        other = [i for i, row in enumerate(same) if row is None and i not in brought]
        packed[known] = self._store.vectors.read(np.array([same[i] for i in known], np.int64))
        if brought:
            packed[list(brought)] = self._store.vectors.pack(np.stack(list(brought.values())))
        vectors = self._embedder.embed_many(
            [new[i].embedded for i in other], prefix=self._embedder.document_prefix
        )
        packed[other] = self._store.vectors.pack(vectors)
        self._store.vectors.write(rows, packed)
        for row, one in zip(rows.tolist(), new, strict=True):
            self._store.insert(_stored(one.run), row, one.passage)
        return len(other), sum(new[i].n_tokens for i in other)

    def _finish(self, run: _Run) -> None:
        size, mtime_ns = run.facts.st_size, run.facts.st_mtime_ns
        if run.is_same and run.before is not None:
            self._store.touch(run.before, size=size, mtime_ns=mtime_ns)
        else:
            self._store.finish_file(_stored(run), size=size, mtime_ns=mtime_ns, sha256=run.sha256)

    def _count_up(self, n_embedded: int, n_tokens: int) -> None:
        """After the commit: what is done is counted, told, and no longer waits."""
        for run in self._finished:
            is_new = run.before is None or not run.before.sha256
            self._counts["unchanged" if run.is_same else "added" if is_new else "changed"] += 1
        self._n_bytes += sum(run.facts.st_size for run in self._finished)
        reading = self._waiting[-1].run if self._waiting else None
        n_bytes = reading.n_bytes if reading is not None and reading not in self._finished else 0
        self._progress = replace(
            self._progress,
            n_bytes=self._n_bytes + n_bytes,
            n_passages=self._progress.n_passages + len(self._waiting),
            n_embedded=self._progress.n_embedded + n_embedded,
            n_tokens=self._progress.n_tokens + n_tokens,
        )
        self._waiting, self._finished = [], []
        self._report()

    def _report(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._progress)

    def _remove(self, found: FoundFiles, stored: Iterable[StoredFile]) -> None:
        gone = [file for file in stored if found.is_gone(file.path)]
        with self._store.transaction():
            for file in gone:
                self._store.remove_file(file)
        self._counts["removed"] = len(gone)


def _stored(run: _Run) -> StoredFile:
    if run.stored is None:
        raise RuntimeError(f"{run.path} was not begun")
    return run.stored


def _storable(id: str | float | None) -> str | float | None:
    """An id as SQLite can keep it: no lone surrogates, and whole numbers of 64 bits."""
    if isinstance(id, int) and not -(2**63) <= id < 2**63:
        return str(id)
    return check_text(id, "the id") if isinstance(id, str) else id
