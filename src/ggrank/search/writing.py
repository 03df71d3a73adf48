"""Documents are checked, and become passages, vectors and words in the store, batch by batch.

document -> passages -> (known text? its vector : embed) -> vectors on the disk -> one transaction
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, count
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, InputTypeError
from ggrank.rows.documents import Document
from ggrank.search.chunking import Passage, embedded_text, passages
from ggrank.search.models import Embedder, token_counter, unrelated_cosine
from ggrank.search.sections import FileDocument
from ggrank.search.settings import passage_tokens
from ggrank.search.store import BLOCK, DOCUMENT_BLOCKS, Store, StoredFile, translate_errors
from ggrank.text.inputs import check_text

T = TypeVar("T")

BATCH = 128
"""Passages that are embedded and committed together: a few seconds' work on a slow machine."""

MOST_DEPTH = 500
"""Of nested metadata: SQLite reads 1,000 levels of JSON."""

_LONE = re.compile("[\ud800-\udfff]")

MOST_STEPS = 2_000
"""Of a batch in which little is embedded."""

Step = Callable[[sqlite3.Connection], object]


# -- documents as callers and files give them, checked, so that the store can keep them


def check_documents(
    documents: Iterable[str | Document],
    ids: Iterable[str | float | None] | None,
    metadata: Iterable[Mapping[str, Any] | None] | None,
) -> list[FileDocument]:
    """One document for each text, with its id and metadata. Raises what `ggrank.Index.add` raises."""
    if isinstance(documents, (str, bytes, Document)):
        raise InputTypeError("documents must be a list, found one document: put it in a list")
    found = [check_document(one, f"document {i}") for i, one in enumerate(documents)]
    if ids is not None:
        found = [replace(one, id=id) for one, id in _aligned(found, ids, "ids")]
    if metadata is not None:
        found = [replace(one, metadata=facts) for one, facts in _aligned(found, metadata, "metadata")]
    checked = [
        storable(FileDocument(one.text, title=one.title or "", metadata=one.metadata or {}, id=one.id))
        for one in found
    ]
    seen = set()
    for i, document in enumerate(checked):
        if document.id is not None and document.id in seen:
            raise InputError(f"the id of document {i}, {document.id!r}, stands twice: ids must differ")
        seen.add(document.id)
    return checked


def check_document(value: object, name: str) -> Document:
    """A document, or a text as one. Raises InputTypeError where it is neither."""
    if isinstance(value, Document):
        title = value.title and check_text(value.title, f"the title of {name}")
        return replace(value, text=check_text(value.text, f"the text of {name}"), title=title)
    if isinstance(value, str):
        return Document(check_text(value, name))
    raise InputTypeError(f"{name} must be a string or a ggrank.Document, found {type(value).__name__}")


def _aligned(documents: list[Document], values: Iterable[T], name: str) -> list[tuple[Document, T]]:
    found = list(values)
    if len(found) != len(documents):
        raise InputError(f"{name} must be as many as documents: {len(documents):,}, found {len(found):,}")
    return list(zip(documents, found, strict=True))


def storable(document: FileDocument) -> FileDocument:
    """The document as SQLite and JSON can keep it; its characters keep their places."""
    if not isinstance(document.metadata, Mapping):
        raise InputTypeError(f"metadata must be a mapping, found {type(document.metadata).__name__}")
    try:
        text = json.dumps(dict(document.metadata), default=str, ensure_ascii=False)
        metadata = json.loads(cleaned(text), parse_constant=lambda _: None)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputTypeError(f"metadata must be a mapping that JSON can hold: {error}") from error
    if text.count("[") + text.count("{") > MOST_DEPTH and _depth(text) > MOST_DEPTH:
        raise InputTypeError(f"metadata must not be nested deeper than {MOST_DEPTH} levels")
    sections = tuple(
        replace(one, headings=tuple(map(cleaned, one.headings)), place=cleaned(one.place))
        for one in document.sections
    )
    return replace(
        document,
        text=cleaned(document.text),
        sections=sections,
        title=cleaned(document.title),
        metadata=metadata,
        place=cleaned(document.place),
        id=None if document.id is None else check_id(document.id),
    )


def cleaned(text: str) -> str:
    """A text as long as before, without lone surrogates and zeros: SQLite holds no such text whole."""
    text = text.replace("\0", " ")
    return text if text.isascii() else _LONE.sub("\ufffd", text)


def _depth(text: str) -> int:
    """How deep JSON is nested."""
    brackets = re.sub(r'"(?:[^"\\]|\\.)*"|[^\[\]{}"]', "", text)
    return max(accumulate(1 if bracket in "[{" else -1 for bracket in brackets))


def check_id(id: object) -> str | float:
    """An id as the store keeps it: a text, a number of 64 bits, or a larger number as a text."""
    if isinstance(id, str):
        return cleaned(id)
    if isinstance(id, bool) or not isinstance(id, (int, float)):
        raise InputTypeError(f"an id must be a string or a number, found {id!r}")
    if isinstance(id, int) and not -(2**63) <= id < 2**63:
        return str(id)
    return str(id) if id != id else id


def content_key(document: FileDocument) -> bytes:
    """Equal for documents of which all that is stored is equal, whatever their place in the file."""
    sections = [(one.start, one.end, one.body, one.headings, one.place) for one in document.sections]
    return digest(json.dumps([document.id, document.title, document.metadata, sections, document.text]))


def digest(text: str) -> bytes:
    """16 bytes, equal for equal texts."""
    return hashlib.sha256(text.encode()).digest()[:16]


# -- writing


@dataclass(frozen=True)
class _Text:
    """What is embedded for a passage, and its tokens without prefix and special ones."""

    text: str
    n_tokens: int
    vector: NDArray[np.float32] | None = None


class Writer:
    """Takes documents, and stores them when a batch is full and at `flush`. The writer's lock is held."""

    def __init__(
        self, store: Store, embedder: Embedder, *, on_commit: Callable[[], object] = lambda: None
    ) -> None:
        self._store = store
        self._embedder = embedder
        self._on_commit = on_commit
        self._count = token_counter(embedder)
        self._most = passage_tokens(embedder, store.settings.chunk_tokens)
        self._steps: list[Step] = []
        self._texts: dict[bytes, _Text] = {}
        self._rows: dict[bytes, int] = {}
        self._kept: Counter[bytes] = Counter()
        self.share = 0.0  # of the document that is being added
        self.n_passages = 0
        self.n_embedded = 0
        self.n_tokens = 0
        store.refill_words()
        with store.snapshot() as snapshot:  # no one else gives ids away meanwhile
            last = snapshot.row("SELECT (SELECT max(id) FROM file), (SELECT max(id) FROM document)")
        self._new_file, self._new_document = (count((id or 0) + 1) for id in last)

    def then(self, step: Step) -> None:
        """Does something more in the batch's transaction, after what was given before."""
        self._steps.append(step)
        if len(self._steps) >= MOST_STEPS:
            self.flush()

    def start(self, path: str, before: StoredFile | None) -> StoredFile:
        """A file's next version, not complete."""
        id, version = (before.id, before.version + 1) if before else (next(self._new_file), 0)
        self.then(
            lambda db: db.execute(
                "INSERT INTO file (id, path, size, mtime_ns, sha256, version, is_complete) "
                "VALUES (?, ?, 0, 0, '', 0, 0) ON CONFLICT (id) DO UPDATE SET version = ?, is_complete = 0",
                (id, path, version),
            )
        )
        return StoredFile(id, path, 0, 0, "", version, is_complete=False)

    def keep(self, file: StoredFile, document: FileDocument) -> bool:
        """Keeps a document that an earlier version of the file has as well; False where none has it."""
        earlier = (file.id, key := content_key(document), file.version)
        with self._store.snapshot() as snapshot:
            n_there = snapshot.value(
                "SELECT count(*) FROM document WHERE file = ? AND key = ? AND version < ?", *earlier
            )
        if n_there <= self._kept[key]:
            return False
        self._kept[key] += 1
        self.then(
            lambda db: db.execute(
                "UPDATE document SET version = ?, place = ? WHERE id = "
                "(SELECT id FROM document WHERE file = ? AND key = ? AND version < ? LIMIT 1)",
                (file.version, document.place, *earlier),
            )
        )
        return True

    def add(
        self,
        document: FileDocument,
        *,
        file: StoredFile | None = None,
        vector: NDArray[np.float32] | None = None,
    ) -> None:
        """Stores a document; ``vector`` is that of the whole text, L2-normalised, where one came along."""
        id, key = next(self._new_document), content_key(document)
        self.then(partial(_insert_document, id, file, document))
        overlap = self._store.settings.overlap
        found = passages(document, count_tokens=self._count, most=self._most, overlap=overlap)
        for number, passage in enumerate(found):
            if len(self._texts) >= BATCH:
                self.flush()
            span = document.text[passage.start : passage.end]
            text = embedded_text(passage.headings, span)
            is_whole = span == document.text.strip()
            self._texts[digest(text)] = _Text(text, passage.n_tokens, vector if is_whole else None)
            self.share = passage.end / len(document.text)
            self.then(partial(self._insert_place, id, number, passage, text))
        # A document without its key passes for unfinished.
        self.then(lambda db: db.execute("UPDATE document SET key = ? WHERE id = ?", (key, id)))
        if len(self._texts) >= BATCH:
            self.flush()

    def _insert_place(
        self, document: int, number: int, passage: Passage, text: str, db: sqlite3.Connection
    ) -> None:
        """A place of a passage, and the passage where it is not there yet."""
        row = self._rows[key := digest(text)]
        span = (passage.start, passage.end, passage.line, passage.headings, passage.place)
        db.execute("INSERT INTO place VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (document, number, row, *span))
        if db.execute("INSERT OR IGNORE INTO passage VALUES (?, ?)", (row, key)).rowcount:
            db.execute("INSERT INTO words (rowid, terms) VALUES (?, terms(?))", (row, text))
            db.execute("DELETE FROM free WHERE row = ?", (row,))  # forgotten in this same transaction
        self.n_passages += 1

    def flush(self) -> None:
        """Embeds what is new in this batch, and commits it."""
        if not self._steps:
            return
        self._rows = self._stored(self._texts)
        new = [key for key in self._texts if key not in self._rows]
        with self._store.snapshot() as snapshot:
            n_rows, vectors, unrelated = snapshot.n_rows, snapshot.vectors, snapshot.unrelated
        if self._texts and unrelated is None:  # once in an index's life
            unrelated = unrelated_cosine(self._embedder)
        if new:
            packed = vectors.pack(self._embed([self._texts[key] for key in new]))
            with translate_errors(self._store.folder):
                vectors.write(n_rows, packed)
        self._rows.update(zip(new, range(n_rows, n_rows + len(new)), strict=True))
        with self._store.transaction() as db:
            for step in self._steps:
                step(db)
            db.execute("UPDATE meta SET n_rows = ?, unrelated = ?", (n_rows + len(new), unrelated))
        self._steps, self._texts = [], {}
        self._kept.clear()
        self._on_commit()

    def _stored(self, keys: Iterable[bytes]) -> dict[bytes, int]:
        """The rows of passages that are there already."""
        with self._store.snapshot() as snapshot:
            found = ((key, snapshot.value("SELECT id FROM passage WHERE key = ?", key)) for key in keys)
            return {key: row for key, row in found if row is not None}

    def _embed(self, texts: list[_Text]) -> NDArray[np.float32]:
        """Vectors of a batch's new texts, shape (n, n_embd)."""
        unknown = [i for i, one in enumerate(texts) if one.vector is None]
        found = np.empty((len(texts), self._embedder.n_embd), np.float32)
        for i, one in enumerate(texts):
            if one.vector is not None:
                found[i] = one.vector
        if unknown:
            asked = [texts[i].text for i in unknown]
            found[unknown] = self._embedder.embed_many(asked, prefix=self._embedder.document_prefix)
        self.n_embedded += len(unknown)
        self.n_tokens += sum(texts[i].n_tokens for i in unknown)
        return found


def add_document(writer: Writer, document: FileDocument) -> None:
    """Adds a document that is no file's, in place of the one with its id."""
    if document.id is not None:
        writer.then(lambda db: remove_documents(db, "file = 0 AND name = ?", document.id))
    writer.add(document)


def copy_added(old: Store, writer: Writer) -> None:
    """Adds the documents of another store that are no file's, in place of all that are there."""
    writer.then(lambda db: remove_documents(db, "file = 0"))
    with old.snapshot() as snapshot:
        for id, name, title, metadata in snapshot.db.execute(
            "SELECT id, name, title, metadata FROM document WHERE file = 0 AND key IS NOT NULL"
        ):
            text = snapshot.text_of(id)
            writer.add(FileDocument(text, title=title, metadata=json.loads(metadata), id=name))
    writer.flush()


# -- what follows runs inside a transaction of `Store.transaction`


def _insert_document(
    id: int, file: StoredFile | None, document: FileDocument, db: sqlite3.Connection
) -> None:
    """A document without its places; file 0 is no file."""
    where = (0, 0) if file is None else (file.id, file.version)
    facts = (document.id, document.title, json.dumps(document.metadata), document.place)
    db.execute(
        "INSERT INTO document (id, file, version, name, title, metadata, place) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (id, *where, *facts),
    )
    starts = range(0, len(document.text), BLOCK)
    blocks = ((id * DOCUMENT_BLOCKS + i, document.text[at : at + BLOCK]) for i, at in enumerate(starts))
    db.executemany("INSERT INTO block VALUES (?, ?)", blocks)


def remove_file(db: sqlite3.Connection, file: StoredFile) -> None:
    """A file goes, with its documents, and as a root."""
    remove_documents(db, "file = ?", file.id)
    db.execute("DELETE FROM root WHERE path = ?", (file.path,))
    db.execute("DELETE FROM file WHERE id = ?", (file.id,))


def remove_documents(db: sqlite3.Connection, condition: str, *values: object) -> int:
    """Documents go, with their texts and places, and the passages that have no other place."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY)")
    db.execute("CREATE TEMP TABLE IF NOT EXISTS orphan (id INTEGER PRIMARY KEY)")
    n = db.execute(f"INSERT INTO gone SELECT id FROM document WHERE {condition}", values).rowcount
    db.execute(
        "INSERT OR IGNORE INTO orphan SELECT passage FROM place AS mine WHERE document IN gone AND NOT EXISTS"
        " (SELECT 1 FROM place WHERE passage = mine.passage AND document NOT IN gone)"
    )
    db.execute(
        "INSERT INTO words (words, rowid, terms) "
        "SELECT 'delete', id, terms(text) FROM passage_text WHERE id IN orphan"
    )
    db.execute("INSERT INTO free SELECT id FROM orphan")
    db.execute("DELETE FROM passage WHERE id IN orphan")
    for (id,) in db.execute("SELECT id FROM gone").fetchall():
        first = id * DOCUMENT_BLOCKS
        db.execute("DELETE FROM block WHERE id BETWEEN ? AND ?", (first, first + DOCUMENT_BLOCKS - 1))
    db.execute("DELETE FROM place WHERE document IN gone")
    db.execute("DELETE FROM document WHERE id IN gone")
    db.execute("DELETE FROM gone")
    db.execute("DELETE FROM orphan")
    return n
