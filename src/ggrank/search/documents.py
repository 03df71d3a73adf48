"""Documents as callers and files give them, checked, so that the store can keep them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ggrank.errors import InputError, InputTypeError
from ggrank.rows.documents import Document
from ggrank.search.sections import FileDocument
from ggrank.text.inputs import check_text

T = TypeVar("T")


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
    seen = set()
    for i, one in enumerate(found):
        if one.id is not None and one.id in seen:
            raise InputError(f"the id of document {i}, {one.id!r}, stands twice: ids must differ")
        seen.add(one.id)
    return [
        storable(FileDocument(one.text, title=one.title or "", metadata=one.metadata or {}, id=one.id))
        for one in found
    ]


def check_document(value: object, name: str) -> Document:
    """A document, or a text as one. Raises InputTypeError where it is neither."""
    if isinstance(value, Document):
        return replace(value, text=check_text(value.text, f"the text of {name}"))
    if isinstance(value, str):
        return Document(check_text(value, name))
    raise InputTypeError(
        f"{name} must be a string or ggrank.Document(text, id=..., metadata=...), found "
        f"{type(value).__name__}"
    )


def _aligned(documents: list[Document], values: Iterable[T], name: str) -> list[tuple[Document, T]]:
    found = list(values)
    if len(found) != len(documents):
        raise InputError(f"{name} must be as many as documents: {len(documents):,}, found {len(found):,}")
    return list(zip(documents, found, strict=True))


def storable(document: FileDocument) -> FileDocument:
    """The document as SQLite and JSON can keep it; its characters keep their places.

    Raises:
        InputTypeError: an id or metadata that an index cannot keep.
    """
    # SQLite ends a text at a zero character, in the functions that cut it.
    text = check_text(document.text, "the text").replace("\0", " ")
    title = check_text(document.title, "the title")
    try:
        metadata = json.loads(json.dumps(dict(document.metadata), default=str))
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"metadata must be a mapping that JSON can hold: {error}") from error
    return replace(document, text=text, title=title, metadata=metadata, id=_storable_id(document.id))


def _storable_id(id: object) -> str | float | None:
    """No lone surrogates, and whole numbers of 64 bits."""
    if isinstance(id, bool) or not (id is None or isinstance(id, (str, int, float))):
        raise InputTypeError(f"an id must be a string or a number, found {id!r}")
    if isinstance(id, int) and not -(2**63) <= id < 2**63:
        return str(id)
    return check_text(id, "the id") if isinstance(id, str) else id


def content_key(document: FileDocument) -> bytes:
    """Equal for documents of which all that is stored is equal, whatever their place in the file."""
    sections = [(one.start, one.end, one.body, one.headings, one.place) for one in document.sections]
    return digest(json.dumps([document.id, document.title, document.metadata, sections, document.text]))


def digest(text: str) -> bytes:
    """16 bytes, equal for equal texts."""
    return hashlib.sha256(text.encode()).digest()[:16]
