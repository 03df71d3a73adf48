"""Cohere: ``/v2/rerank``, and the parts of an answer that ``/v1/rerank`` has from Cohere.

Knows Cohere's fields, as its Python client (7.x) reads and writes them; nothing is billed here.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ggrank.server.dialects.documents import Documents, read_documents
from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.options import RankOptions, Served, Text, rerank
from ggrank.types import Ranking

SEARCH_UNIT = 100
"""Documents that Cohere counts as one search."""


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """``{"id": ..., "message": ...}``.

    Example:
        >>> error_body(400, "must be a string", "query")["message"]
        'invalid request: query: must be a string'
    """
    begin = "invalid request: " if status in (400, 422) else ""
    return {"id": str(uuid4()), "message": begin + named(message, field)}


ERRORS = ErrorShape(bad_input=400, body=error_body)
router = APIRouter(tags=["cohere"], responses=ERRORS.documented())

CAPITALS = [
    "Carson City is the capital city of the American state of Nevada.",
    "Washington, D.C. is the capital of the United States. It is a federal district.",
    "Capital punishment has existed in the United States since before the United States was a country.",
]


class V2RerankRequest(RankOptions):
    """A query and documents. ``max_tokens_per_doc``, ``priority`` and ``relevant_spans`` do nothing here."""

    query: Text = Field(examples=["What is the capital of the United States?"])
    documents: Documents = Field(
        min_length=1,
        description="Strings; an object is ranked by its `text`, or by all its fields, a line each.",
        examples=[CAPITALS],
    )


class V2Result(BaseModel):
    """One document's score."""

    index: int = Field(description="Position in `documents`, from 0.", examples=[1])
    relevance_score: float = Field(
        description="0..1 (sigmoid of the logit), unless the request asks for `raw_scores`.",
        examples=[0.999],
    )
    truncated: bool = Field(description="Whether the document was cut to fit the model.", examples=[False])


class ApiVersion(BaseModel):
    """Which of Cohere's APIs this answers for."""

    version: str = Field(examples=["2"])
    is_experimental: bool = False


class BilledUnits(BaseModel):
    """What Cohere would count."""

    search_units: int = Field(examples=[1])


class Tokens(BaseModel):
    """Tokens that were computed."""

    input_tokens: int = Field(examples=[86])


class Meta(BaseModel):
    """What was computed, and what the caller should know about it."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    warnings: list[str] | None = Field(
        default=None, description="Says which documents were cut, if any were."
    )


class V2RerankResponse(BaseModel):
    """Documents in order, best first."""

    id: str = Field(examples=["07734bd2-2473-4f07-94e1-0d9f0e6843cf"])
    model: str = Field(description="The model that computed.", examples=["ggrank-reranker-mini"])
    results: list[V2Result]
    meta: Meta


def meta(ranking: Ranking, *, version: str, n_documents: int) -> Meta:
    """Cohere's ``meta`` for a ranking, with a warning where documents were cut."""
    cut = sorted(ranked.index for ranked in ranking if ranked.truncated)
    shown = ", ".join(map(str, cut[:10])) + (", ..." if len(cut) > 10 else "")
    return Meta(
        api_version=ApiVersion(version=version),
        billed_units=BilledUnits(search_units=-(-n_documents // SEARCH_UNIT)),
        tokens=Tokens(input_tokens=ranking.n_tokens),
        warnings=[f"documents cut to fit the model: {len(cut)} (at index {shown})"] if cut else None,
    )


@router.post("/v2/rerank", response_model_exclude_none=True)
async def rerank_v2(request: V2RerankRequest, service: Served) -> V2RerankResponse:
    """Documents in order of relevance, as Cohere's second API gives them: scores 0..1."""
    texts = [document.text for document in await read_documents(service, request.documents)]
    reranked = await rerank(service, request, request.query, texts, scale="sigmoid")
    return V2RerankResponse(
        id=str(uuid4()),
        model=reranked.model.name,
        results=[
            V2Result(index=r.index, relevance_score=r.score, truncated=r.truncated) for r in reranked.ranking
        ],
        meta=meta(reranked.ranking, version="2", n_documents=len(texts)),
    )
