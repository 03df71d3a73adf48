"""One document of an index: by its id or path, its lines, and the vector that stands for all of it."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.rows.documents import Document
from ggrank.scoring import l2_normalize
from ggrank.search.chunking import embedded_text, passages
from ggrank.search.models import Embedder, token_counter
from ggrank.search.sections import FileDocument
from ggrank.search.settings import IndexSettings, passage_tokens
from ggrank.search.store import Snapshot

MOST_PASSAGES = 256
"""Of a text that is not indexed: they take seconds on a slow machine."""

_SEPARATOR = re.compile(":|, ")
MOST_SEPARATORS = 16
"""A place has fewer after the path; a long text may have thousands, and each is looked up."""


def find_document(snapshot: Snapshot, id: str | float) -> int | None:
    """The number of a document by its id, the path of its file, or a place; see `find_place`."""
    found = find_place(snapshot, id)
    return None if found is None else found[0]


def find_place(snapshot: Snapshot, id: str | float) -> tuple[int, int | None] | None:
    """The number of a document, and the line of its text that a place names, if it names one.

    A place is what `printed_place` gives, or the file and number of a row, such as "costs.xlsx:7". A number
    may be given as a text, and a path as any name of the file, also through symbolic links.

    Raises:
        InputError: it is a table.
    """
    if (number := _whole_document(snapshot, id)) is not None:
        return number, None
    name = str(id)
    if (file := _file_at(snapshot, name)) is not None:
        counted = "SELECT count(*), coalesce(min(place), 'line 1') FROM document WHERE file = ?"
        n_rows, first = snapshot.row(counted, file)
        example = f"{name}:{first[5:]}" if first.startswith("line ") else f"{name}, {first}"
        raise InputError(
            f"{name} is a table, and each of its {n_rows:,} rows is a document: give its id or place, "
            f"such as {example}"
        )
    for separator in list(_SEPARATOR.finditer(name))[: -MOST_SEPARATORS - 1 : -1]:
        found = _find_inside(snapshot, name[: separator.start()], name[separator.end() :])
        if found is not None:
            return found
    return None


def _whole_document(snapshot: Snapshot, id: str | float) -> int | None:
    """A document by its id, or by the path of a file that is one document."""
    for name in (id, *_numbers(id)):
        row = snapshot.row("SELECT id FROM document WHERE name = ? ORDER BY file LIMIT 1", name)
        if row is not None:
            return int(row[0])
    file = _file_at(snapshot, str(id))
    return None if file is None else _row_of(snapshot, file, "place = ''")


def _row_of(snapshot: Snapshot, file: int, condition: str, *values: str) -> int | None:
    statement = f"SELECT id FROM document WHERE file = ? AND {condition} ORDER BY version DESC, id LIMIT 1"
    found: int | None = snapshot.value(statement, file, *values)
    return found


def _find_inside(snapshot: Snapshot, name: str, place: str) -> tuple[int, int | None] | None:
    """A row of a file, or a line or page of a document; the row's id may follow its place."""
    if (file := _file_at(snapshot, name)) is not None:
        for end in (len(place), *(one.start() for one in re.finditer(", ", place))):
            row = place[:end]
            known = "place IN (?, 'line ' || ?, 'row ' || ?)"
            number = _row_of(snapshot, file, known, row, row, row)
            if number is None and row.isdecimal():  # of the first sheet that has such a row
                number = _row_of(snapshot, file, "place LIKE '%, row ' || ?", row)
            if number is not None:
                return number, None
    number = _whole_document(snapshot, name)
    if number is None:
        return None
    if place.isdecimal():
        return number, int(place)
    first = "SELECT min(line) FROM place WHERE document = ? AND page = ?"
    line = snapshot.value(first, number, place)
    return None if line is None else (number, line)


def _numbers(id: str | float) -> list[float]:
    """The number that a text is."""
    found: list[float] = []
    if isinstance(id, str):
        with suppress(ValueError):
            found = [float(id)]
            found = [int(id)]
    return [number for number in found if number == number and abs(number) < 2**63]


def _file_at(snapshot: Snapshot, path: str) -> int | None:
    for name in (path, os.path.abspath(path)):  # noqa: PTH100  (links stay as they are named)
        if (row := snapshot.row("SELECT id FROM file WHERE path = ?", name)) is not None:
            return int(row[0])
    try:
        facts = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    for id, stored in snapshot.rows("SELECT id, path FROM file"):
        with suppress(OSError):
            if os.path.samestat(os.stat(stored), facts):  # noqa: PTH116
                return int(id)
    return None


def read_document(snapshot: Snapshot, number: int) -> Document:
    """A document as it was added; a whole file's id is its path."""
    path, place, name, title, metadata = snapshot.row(
        "SELECT path, place, name, title, metadata "
        "FROM document LEFT JOIN file ON file.id = document.file WHERE document.id = ?",
        number,
    )
    id = path if name is None and not place else name
    return Document(snapshot.text_of(number), id, json.loads(metadata), title or None)


def lines_of(text: str) -> list[str]:
    """A text's lines as hits count them, each with its end: only a line feed ends one.

    Example:
        >>> lines_of("one\\x0c\\ntwo")
        ['one\\x0c\\n', 'two']
    """
    return [f"{line}\n" for line in text.split("\n")[:-1]] + list(filter(None, text.split("\n")[-1:]))


def vector_of(snapshot: Snapshot, document: int) -> NDArray[np.float32]:
    """The mean of a document's passages, of length 1: shape (n_embd,). Raises InputError if it has none."""
    rows = [row for (row,) in snapshot.rows("SELECT passage FROM place WHERE document = ?", document)]
    if not rows:
        raise InputError("the document has no text, so nothing is similar to it")
    vectors = snapshot.vectors.unpack(snapshot.vectors.read(np.array(rows, np.int64)))
    return l2_normalize(vectors.sum(axis=0))


def check_no_path(text: str) -> None:
    """Raises InputError for a text that looks like the path of a file: it is a mistake."""
    path = Path(text)
    if len(text.split()) == 1 and (path.suffix or len(path.parts) > 1):
        raise InputError(f"there is no file {path}, and none of that name in the index")


def vector_of_text(text: str, embedder: Embedder, settings: IndexSettings) -> NDArray[np.float32]:
    """What `vector_of` gives for a document with this text. Raises InputError where there is no text."""
    found = passages(
        FileDocument(text),
        count_tokens=token_counter(embedder),
        most=passage_tokens(embedder, settings.chunk_tokens),
        overlap=settings.overlap,
    )
    texts = [embedded_text("", text[one.start : one.end]) for one in islice(found, MOST_PASSAGES)]
    if not texts:
        raise InputError("the text is empty, so nothing is similar to it")
    return l2_normalize(embedder.embed_many(texts, prefix=embedder.document_prefix).sum(axis=0))
