"""The fields that every dialect understands beside its own, and the one call that they become.

Knows the names and meanings of request fields; not paths, not the shape of any answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import Depends, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from ggrank.server.dialects.errors import found_word
from ggrank.server.service import Reranked, Role, Service
from ggrank.text.inputs import check_text
from ggrank.types import Mode, ScoreScale, Truncate

PARSED = "ggrank.parsed"
"""Where a request's scope holds what its body says, for the words of an error: parsing it again is dear."""


async def served_models(request: Request) -> Service:
    """The models of the running application, for a route's parameter; keeps what FastAPI has parsed."""
    if request.method == "POST":
        with suppress(ValueError, RecursionError):  # the body is no JSON, or nested beyond any use
            request.scope[PARSED] = await request.json()
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(served_models)]


def wrong(message: str) -> PydanticCustomError:
    """An error of one field, worded for whoever sent it; FastAPI adds the field's name."""
    return PydanticCustomError("ggrank", message.replace("{", "{{"))


def _encodable(value: str) -> str:
    return check_text(value, "text")


Text = Annotated[str, AfterValidator(_encodable)]
"""A string; lone surrogates, which JSON can hold and UTF-8 cannot, become U+FFFD, so it can be sent back."""


_ROLES: dict[str, Role] = {
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
    raise wrong(f"must be one of {', '.join(_ROLES)}, found {found_word(value)}")


EmbedRole = Annotated[
    Role,
    BeforeValidator(_role),
    Field(
        description="What the texts are: `query` or `document` sets the model's own prefix before each. "
        "Without it there is none. Cohere's and Jina's words for both are known."
    ),
]


def _truncation(value: object) -> object:
    if isinstance(value, bool) or value in ("end", "error", "chunk"):
        return value
    raise wrong(f"must be true, false, 'end', 'error' or 'chunk', found {found_word(value)}")


Dimensions = Annotated[
    int,
    Field(
        ge=1,
        le=100_000,
        description="Cut the vectors to this many numbers, one of the widths that the model was trained with "
        "(Matryoshka), and normalise them again. Others are refused.",
    ),
]

Truncation = Annotated[
    bool | Literal["end", "error", "chunk"],
    BeforeValidator(_truncation),
    Field(
        description="What to do with a text that is longer than the model reads: `true` or `end` cuts it and "
        "marks it (the default), `false` or `error` refuses the request, `chunk` (reranking only) scores "
        "overlapping parts of the document and keeps the best."
    ),
]


def truncate_word(value: bool | Truncate | None) -> Truncate:
    """ggrank's word for the field.

    Example:
        >>> truncate_word(None), truncate_word(True), truncate_word(False), truncate_word("chunk")
        ('end', 'end', 'error', 'chunk')
    """
    if value is None or isinstance(value, bool):
        return "error" if value is False else "end"
    return value


class Body(BaseModel):
    """A request: types are taken as they are ("3" is no number), fields that are not known do nothing."""

    model_config = ConfigDict(strict=True, extra="ignore")


class RankOptions(Body):
    """What every reranking request may say."""

    model: str | None = Field(
        default=None,
        description="The name of a served model. A name that is not served means the default reranker, since "
        "clients must send a name of their own service; the name of a served embedder ranks by cosine.",
    )
    top_n: int | None = Field(
        default=None, ge=1, description="Return this many at most, best first; all by default."
    )
    threshold: float | None = Field(
        default=None,
        allow_inf_nan=False,
        description="Return scores of at least this, on the scale of the answer.",
    )
    raw_scores: bool | None = Field(default=None, description="`true`: raw logits; `false`: 0..1 (sigmoid).")
    normalize: bool | None = Field(
        default=None, description="The same the other way round: `true` is 0..1 (sigmoid)."
    )
    truncate: Truncation | None = None

    @field_validator("normalize")
    @classmethod
    def _one_scale(cls, normalize: bool | None, seen: ValidationInfo) -> bool | None:
        if normalize is not None and seen.data.get("raw_scores") == normalize:
            raise wrong("contradicts raw_scores; send one of them")
        return normalize

    def score(self, default: ScoreScale) -> ScoreScale:
        """The scale that was asked for, or the dialect's own."""
        if self.raw_scores is None and self.normalize is None:
            return default
        return "logit" if self.raw_scores or self.normalize is False else "sigmoid"


async def rerank(
    service: Service,
    options: RankOptions,
    query: str,
    documents: Sequence[str],
    *,
    scale: ScoreScale,
    name: str = "documents",
) -> Reranked:
    """Asks the service what the request asks.

    Args:
        scale: the dialect's own, "sigmoid" or "logit".
        name: the field that holds the documents.
    """
    return await service.rerank(
        query,
        documents,
        model=options.model,
        top_n=options.top_n,
        threshold=options.threshold,
        score="auto" if _ranks_by_cosine(service, options.model) else options.score(scale),
        truncate=truncate_word(options.truncate),
        name=name,
    )


def _ranks_by_cosine(service: Service, model: str | None) -> bool:
    """Whether the service answers with an embedder: it is named, or there is nothing else."""
    modes = {served.name: served.mode for served in service.models()}
    default = Mode.RERANK if Mode.RERANK in modes.values() else Mode.EMBEDDING
    return modes.get(model or "", default) is Mode.EMBEDDING


AS_TEI = "as TEI"
AS_OTHERS = "as others"


def tei_if(field: str) -> Discriminator:
    """Tells TEI's requests from all others on a path that they share, by a field that only TEI's have."""
    return Discriminator(lambda body: AS_TEI if isinstance(body, dict) and field in body else AS_OTHERS)
