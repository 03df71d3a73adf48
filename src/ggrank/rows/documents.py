"""What a document is, and the one rule for finding its id, title and text in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggrank.errors import InputError
from ggrank.rows.reading import Row


@dataclass(frozen=True)
class Document:
    """A text to be found, with what its owner knows it by.

    Attributes:
        text: what is embedded, reranked and shown.
        id: the owner's name for it.
        metadata: anything that should come back with it, such as ``{"page": 3}``; never looked at.
        title: is embedded and reranked before the text; see `full_text`.

    Example:
        >>> from ggrank import Document
        >>> Document("Llamas live in the Andes.", id="andes", metadata={"page": 3}).id
        'andes'
    """

    text: str
    id: str | float | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)
    title: str | None = None

    @property
    def full_text(self) -> str:
        """The title, where there is one, a space, and the text.

        Example:
            >>> Document("They purr.", title="Cats").full_text
            'Cats They purr.'
        """
        return f"{self.title} {self.text}" if self.title else self.text


def document_of(row: Row, text_columns: Sequence[str] = ()) -> Document:
    """The document in a row.

    ``text`` must be a string; ``title`` is one, null or missing. The id is ``id``, or ``_id`` as in BEIR's
    files: any JSON scalar, or missing. All other fields become metadata.

    Args:
        text_columns: whose strings, joined by a space, are the text instead of ``text`` and ``title``.

    Raises:
        InputError: the row could not be read, or has no text; the message is the reason alone.

    Example:
        >>> document_of(Row({"_id": 7, "title": None, "text": "Cats purr.", "year": 1999}, line=1))
        Document(text='Cats purr.', id=7, metadata={'year': 1999}, title=None)
    """
    if row.problem:
        raise InputError(row.problem)
    name = row.values.get("id")
    if name is None:
        name = row.values.get("_id")
    if name is not None and not isinstance(name, (str, int, float)):
        raise InputError(f"the id is no string or number, but {_kind(name)}")
    used = {"id", "_id", *(text_columns or ("text", "title"))}
    metadata = {name: value for name, value in row.values.items() if name not in used} or None
    if text_columns:
        return Document(text_of(row.values, text_columns), name, metadata)
    title = string_in(row.values, "title") if row.values.get("title") is not None else None
    return Document(string_in(row.values, "text"), name, metadata, title or None)


def text_of(values: Mapping[str, Any], text_columns: Sequence[str] = ()) -> str:
    """A row's text as it is embedded; see `document_of`.

    Example:
        >>> text_of({"title": "Cats", "text": "They purr."}), text_of({"a": "x", "b": "y"}, ["b"])
        ('Cats They purr.', 'y')
    """
    if text_columns:
        return " ".join(string_in(values, column) for column in text_columns)
    title = string_in(values, "title") if values.get("title") else ""
    text = string_in(values, "text")
    return f"{title} {text}" if title else text


def string_in(values: Mapping[str, Any], column: str) -> str:
    """The string in a column; bytes that are UTF-8 count. Raises InputError where there is none."""
    if column not in values:
        raise InputError(f"no column {column!r}")
    value = values[column]
    if isinstance(value, bytes):  # older writers of Parquet store strings as binary
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"column {column!r} is not UTF-8") from None
    if not isinstance(value, str):
        raise InputError(f"column {column!r} has no string, but {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"
