"""Documents as requests carry them: strings, or objects whose fields become one text.

Knows Cohere's and Jina's objects, not what is done with the text.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator

from ggrank.inputs import check_text
from ggrank.server.dialects.errors import found
from ggrank.server.dialects.options import wrong

Scalar = str | int | float | bool | None


def _document(value: object) -> str | dict[str, Scalar]:
    if isinstance(value, str):
        return check_text(value, "document")
    if not isinstance(value, dict) or not value:
        raise wrong(f"must be a string or an object with fields, found {found(value)}")
    for field in value.values():
        if isinstance(field, (dict, list)):
            raise wrong("the fields of a document must be strings or numbers, not lists or objects")
    return {check_text(name, "name"): _clean(field) for name, field in value.items()}


def _clean(field: Any) -> Scalar:
    return check_text(field, "field") if isinstance(field, str) else field


Document = Annotated[
    str | dict[str, Scalar],
    PlainValidator(_document, json_schema_input_type=str | Annotated[dict[str, Scalar], Field(min_length=1)]),
]


def document_text(document: str | dict[str, Scalar], rank_fields: list[str] | None = None) -> str:
    """The text that is ranked.

    An object gives ``rank_fields`` in that order where they are asked for, else its ``text``, else
    all its fields; several fields become a line each, ``name: value``, which reads as YAML.

    Example:
        >>> document_text({"title": "Llamas", "text": "They graze."})
        'They graze.'
        >>> document_text({"title": "Llamas", "text": "They graze."}, ["title", "text"])
        'title: Llamas\\ntext: They graze.'
    """
    if isinstance(document, str):
        return document
    known = {name: value for name, value in document.items() if value is not None}
    names = [name for name in rank_fields or ["text"] if name in known] or list(known)
    if len(names) == 1:
        return str(known[names[0]])
    return "\n".join(f"{name}: {known[name]}" for name in names)
