"""The fields of requests: what each may hold, and what is made of it.

A body may hold millions of items: a list that is too long is refused before any of them is looked at, and the
first item that is wrong ends the check (pydantic's `FailFast`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    FailFast,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from ggrank.server.errors import found, found_word
from ggrank.server.service import Service
from ggrank.text.inputs import check_text
from ggrank.types import ScoreScale, Truncate

LAST_TOKEN_ID = 2**31 - 1

MOST_SCORE = 3e38
"""No float32 is larger, and a threshold beyond it could not be compared with one."""

Served = Annotated[Service, Depends(lambda: None)]
"""A route's parameter for the service, which `ggrank.server.intake` passes; FastAPI takes it for no field."""

AS_TEI, AS_OTHERS = "as TEI", "as others"


BY_TEXTS = Discriminator(lambda body: AS_TEI if isinstance(body, dict) and "texts" in body else AS_OTHERS)
"""Tells TEI's requests from all others on a path that they share: only they have ``texts``."""


def wrong(message: str) -> PydanticCustomError:
    """An error of one field; pydantic adds which."""
    return PydanticCustomError("ggrank", message)


Text = Annotated[str, AfterValidator(lambda value: check_text(value, "text"))]
"""A string; lone surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD, so it can be sent back."""


def _counted(value: object, info: ValidationInfo) -> object:
    """Refuses a list with more items than a request may have."""
    settings: Any = info.context
    if isinstance(value, list) and len(value) > settings.max_documents:
        raise PydanticCustomError(
            "too_many",
            f"{len(value):,} in one request, {settings.max_documents:,} at most; send fewer at a time, or "
            "start the server with a larger --max-documents",
        )
    return value


Texts = Annotated[list[Text], FailFast(), Field(min_length=1), BeforeValidator(_counted)]

Scalar = str | int | float | bool | None
Document = str | dict[str, Scalar]


def _document(item: object) -> Document:
    if isinstance(item, str):
        return check_text(item, "document")
    if not isinstance(item, dict) or not item:
        raise wrong(f"must be a string or an object with fields, found {found(item)}")
    if any(isinstance(field, (dict, list)) for field in item.values()):
        raise wrong("the fields of a document must be strings or numbers, not lists or objects")
    return {
        check_text(name, "name"): check_text(field, "field") if isinstance(field, str) else field
        for name, field in item.items()
    }


_Object = Annotated[dict[str, Scalar], Field(min_length=1)]
Documents = Annotated[
    list[Annotated[Any, PlainValidator(_document, json_schema_input_type=str | _Object)]],
    FailFast(),
    Field(min_length=1, description="Strings, or objects with a `text`."),
    BeforeValidator(_counted),
]


def text_of(document: Document, rank_fields: Sequence[str] = ("text",)) -> str:
    """Those of ``rank_fields`` that there are, else all fields; several as YAML, a line each."""
    if isinstance(document, str):
        return document
    known = {name: value for name, value in document.items() if value is not None}
    names = [name for name in rank_fields if name in known] or list(known)
    if len(names) == 1:
        return str(known[names[0]])
    return "\n".join(f"{name}: {known[name]}" for name in names)


def _ids(item: object) -> list[int]:
    if not isinstance(item, list) or not item:
        raise wrong(f"must be a list of at least one token id, found {found(item)}")
    # Without a step of Python's for each: there may be millions.
    if set(map(type, item)) == {int} and min(item) >= 0 and max(item) <= LAST_TOKEN_ID:
        return item
    raise wrong(f"token ids must be whole numbers from 0 to {LAST_TOKEN_ID}")


def _input(item: object) -> str | list[int]:
    if isinstance(item, dict) and isinstance(item.get("text"), str):  # as Jina's clients write it
        item = item["text"]
    if isinstance(item, str):
        return check_text(item, "text")
    if isinstance(item, list):
        return _ids(item)
    raise wrong(f"must be a string or a list of token ids, found {found(item)}")


def _listed(value: object, info: ValidationInfo) -> object:
    """One text, or the token ids of one, as a list of one."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        expected = "a string, a list of token ids, or a list of at least one of those"
        raise wrong(f"must be {expected}, found {found(value)}")
    return [_ids(value)] if type(value[0]) is int else _counted(value, info)


# For OpenAPI alone:
_TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=LAST_TOKEN_ID)]], Field(min_length=1)]
_IdLists = Annotated[list[_TokenIds], Field(min_length=1)]
_Strings = Annotated[list[str], Field(min_length=1)]

Inputs = Annotated[
    list[Annotated[Any, PlainValidator(_input)]],
    FailFast(),
    BeforeValidator(
        _listed,
        json_schema_input_type=str | _Strings | _TokenIds | _IdLists | list[dict[Literal["text"], str]],
    ),
]
"""What to embed: one text or several, strings or the token ids of this model. Always read as a list."""

Ids = Annotated[Any, PlainValidator(_ids, json_schema_input_type=_TokenIds)]

Vector = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "number"}})]
"""A row of an array, which orjson writes as float32: the fewest digits that are the same number."""

Role = Literal["query", "document", "neither"]
"""What texts are to a model that sets another prefix before a query than before a document."""

_ROLES: dict[object, Role] = {
    **dict.fromkeys(("query", "search_query", "retrieval.query"), "query"),
    **dict.fromkeys(("document", "passage", "search_document", "retrieval.passage"), "document"),
    **dict.fromkeys(("classification", "clustering", "text-matching", "separation"), "neither"),
}
"""Words of Cohere, Jina and sentence-transformers, and which of a model's own prefixes they mean."""


def _role(value: object) -> Role:
    if value is None:
        return "neither"
    if isinstance(value, str) and value in _ROLES:
        return _ROLES[value]
    raise wrong(f"must be one of {', '.join(map(str, _ROLES))}, found {found_word(value)}")


EmbedRole = Annotated[
    Role,
    BeforeValidator(_role),
    Field(
        description="What the texts are: `query` or `document` sets the model's own prefix before each. "
        "Without it there is none. The words of Cohere, Jina and TEI for both are known."
    ),
]

_TRUNCATE: dict[object, Truncate] = {None: "end", True: "end", False: "error", "END": "end", "NONE": "error"}
_TRUNCATE |= {"end": "end", "error": "error", "chunk": "chunk"}


def _truncation(value: object) -> Truncate:
    if isinstance(value, (bool, str, type(None))) and value in _TRUNCATE:
        return _TRUNCATE[value]
    raise wrong(f"must be true, false, 'end', 'error' or 'chunk', found {found_word(value)}")


Truncation = Annotated[
    Truncate,
    BeforeValidator(_truncation, json_schema_input_type=bool | Truncate | None),
    Field(
        description="What to do with a text that is longer than the model reads: `true` or `end` cuts it and "
        "marks it (the default), `false` or `error` refuses the request, `chunk` (reranking only) scores "
        "overlapping parts of the document and keeps the best. Cohere's `END` and `NONE` are known."
    ),
]

Direction = Annotated[
    Literal["right", "Right"], Field(description="Texts are cut at their end; TEI's `left` is refused.")
]


class Body(BaseModel):
    """A request: types are taken as they are, fields that are not known do nothing."""

    model_config = ConfigDict(strict=True, extra="ignore")


def _as_float32(threshold: float | None) -> float | None:
    return threshold and max(-MOST_SCORE, min(threshold, MOST_SCORE))


class RankOptions(Body):
    """What every reranking request may say."""

    query: Text = Field(examples=["What is panda?"])
    model: str | None = Field(
        default=None,
        description="The name of a served model. A name that is not served means the default reranker, since "
        "clients must send a name of their own service; the name of a served embedder ranks by cosine.",
    )
    top_n: Annotated[int | None, AfterValidator(lambda n: n if n and n > 0 else None)] = Field(
        default=None,
        strict=False,
        description="Return this many at most, best first. By default, and with 0 or less, all (as in vLLM).",
    )
    threshold: Annotated[float | None, AfterValidator(_as_float32)] = Field(
        default=None, description="Return scores of at least this, on the scale of the answer."
    )
    raw_scores: bool | None = Field(default=None, description="`true`: raw logits; `false`: 0..1 (sigmoid).")
    normalize: bool | None = Field(
        default=None, description="Where `raw_scores` is not there: `true` is 0..1 (sigmoid)."
    )
    truncate: Truncation = "end"

    def scale(self, default: ScoreScale) -> ScoreScale:
        """The scale that was asked for, or the path's own."""
        if self.raw_scores is not None:
            return "logit" if self.raw_scores else "sigmoid"
        if self.normalize is not None:
            return "sigmoid" if self.normalize else "logit"
        return default
