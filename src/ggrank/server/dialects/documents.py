"""Documents as requests carry them: strings, or objects whose fields become one text.

Knows Cohere's and Jina's objects, not what is done with the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, SkipValidation

from ggrank.server.dialects.errors import found
from ggrank.server.dialects.lists import read, wrong_item
from ggrank.server.service import Service
from ggrank.text.inputs import check_text

Scalar = str | int | float | bool | None

Documents = list[SkipValidation[str | Annotated[dict[str, Scalar], Field(min_length=1)]]]
"""A request's field; `read_documents` is what looks at its items."""


@dataclass(frozen=True)
class Document:
    """A document as it was sent, a string as its ``text``, and the text that is ranked."""

    fields: dict[str, Scalar]
    text: str


async def read_documents(
    service: Service, documents: Sequence[Any], *, rank_fields: Sequence[str] = ("text",)
) -> list[Document]:
    """The documents of a request, checked.

    Raises:
        TooLargeError: more documents than a request may have.
        FieldError: one is neither a string nor an object that has a text.
    """
    return await read(service, documents, lambda item, name: _document(item, name, rank_fields), "documents")


def _document(item: object, name: str, rank_fields: Iterable[str]) -> Document:
    if isinstance(item, str):
        text = check_text(item, name)
        return Document({"text": text}, text)
    if not isinstance(item, dict) or not item:
        raise wrong_item(f"must be a string or an object with fields, found {found(item)}", name)
    if any(isinstance(field, (dict, list)) for field in item.values()):
        told = "the fields of a document must be strings or numbers, not lists or objects"
        raise wrong_item(told, name)
    fields = {check_text(key, "name"): _clean(field) for key, field in item.items()}
    return Document(fields, document_text(fields, rank_fields))


def _clean(field: Any) -> Scalar:
    return check_text(field, "field") if isinstance(field, str) else field


def document_text(fields: dict[str, Scalar], rank_fields: Iterable[str] = ("text",)) -> str:
    """The text that is ranked: those of ``rank_fields`` that there are, in that order, else all fields.

    Several fields become a line each, ``name: value``, which reads as YAML.

    Example:
        >>> document_text({"title": "Llamas", "text": "They graze."})
        'They graze.'
        >>> document_text({"title": "Llamas", "text": "They graze."}, ["title", "text"])
        'title: Llamas\\ntext: They graze.'
    """
    known = {name: value for name, value in fields.items() if value is not None}
    names = [name for name in rank_fields if name in known] or list(known)
    if len(names) == 1:
        return str(known[names[0]])
    return "\n".join(f"{name}: {known[name]}" for name in names)
