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
    """The document in a row: its text and title as in `text_of`, and all other fields as metadata.

    The id is ``id``, or ``_id`` as in BEIR's files: any JSON scalar, or missing. Raises as `text_of`.
    """
    title, text = text_of(row, text_columns)
    values = row.values
    name = values["id"] if values.get("id") is not None else values.get("_id")
    if name is not None and not isinstance(name, (str, int, float)):
        raise InputError(f"the id is no string or number, but {_kind(name)}")
    used = {"id", "_id", *(text_columns or ("text", "title"))}
    metadata = {name: value for name, value in values.items() if name not in used} or None
    return Document(text, name, metadata, title or None)


def text_of(row: Row, text_columns: Sequence[str] = ()) -> tuple[str, str]:
    """A row's title and text; raises InputError, with the reason alone, where it has no text.

    ``text`` must be a string; ``title`` is one, null or missing. A table (CSV, TSV, a JSON array) without a
    column ``text`` has all of a row's fields as its text, a line ``name: value`` each. Where there are
    ``text_columns``, their strings, joined by a space, are the text.
    """
    if row.problem:
        raise InputError(row.problem)
    values = row.values
    if text_columns:
        return "", " ".join(string_in(values, column) for column in text_columns)
    if is_plain_table(row):
        return "", "\n".join(f"{name}: {value}" for name, value in values.items() if value or value == 0)
    title = string_in(values, "title") if values.get("title") is not None else ""
    return title, string_in(values, "text")


def is_plain_table(row: Row) -> bool:
    """Whether a row's text is all of its fields, because its table has no column ``text``."""
    return row.file_format in ("csv", "tsv", "json") and "text" not in row.values and not row.problem


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


def check_columns(row: Row, named: Sequence[str] = (), there: Sequence[str] = ()) -> None:
    """Raises InputError where the first row of a file lacks a column, with those that are ``there``.

    ``named`` are the columns that were asked for; none for the usual text.
    """
    there = there or list(row.values)
    missing = next((name for name in named or ("text",) if name not in there), None)
    if missing is not None and (named or not is_plain_table(row)):
        raise InputError(f"no column {missing!r}; the columns are: {', '.join(there) or 'none'}")


def _kind(value: Any) -> str:
    return "null" if value is None else f"a value of type {type(value).__name__}"
