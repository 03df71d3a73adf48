"""What a document is, and how a JSON line holds one: ``{"id": "a1", "title": "...", "text": "..."}``.

Knows texts and records; not where they come from, nor what is done with them. Loads nothing heavy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ggrank.errors import InputError

EXPECTED = 'expected an object like {"id": "a1", "text": "..."}'


@dataclass(frozen=True)
class Document:
    """A text to be found, with what its owner knows it by.

    Attributes:
        text: what is embedded, reranked and shown.
        id: the owner's name for it.
        metadata: anything that should come back with it, such as ``{"page": 3}``; never looked at.

    Example:
        >>> from ggrank import Document
        >>> Document("Llamas live in the Andes.", id="andes", metadata={"page": 3}).id
        'andes'
    """

    text: str
    id: str | int | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)


def read_record(line: str, *, place: str) -> Document:
    """One record; ``_id`` (as in BEIR's files) does for ``id``, a title goes before the text.

    Args:
        place: of the line, for messages, such as "corpus.jsonl:7".

    Raises:
        InputError: it is no such record.

    Example:
        >>> read_record('{"_id": 7, "title": "Cats", "text": "They purr."}', place="stdin:1")
        Document(text='Cats They purr.', id=7, metadata=None)
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); {EXPECTED}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise InputError(f'{place}: no "text" string; {EXPECTED}')
    title, name = record.get("title", ""), record.get("id", record.get("_id"))
    if not isinstance(title, str):
        raise InputError(f'{place}: "title" is not a string; {EXPECTED}')
    if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
        raise InputError(f'{place}: "id" is neither a string nor a whole number; {EXPECTED}')
    return Document(f"{title} {record['text']}" if title else record["text"], id=name)
