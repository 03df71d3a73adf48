"""Cohere: ``/v2/rerank``, ``/v2/embed``, ``/v1/embed``, and what ``/v1/rerank`` has from Cohere.

Knows Cohere's fields, as its Python client (7.x) reads and writes them; nothing is billed here.
"""

from __future__ import annotations

from typing import Any, Literal
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ggrank.server.dialects.documents import Documents, read_documents
from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.lists import Inputs, as_base64, read_input, read_one_or_many
from ggrank.server.dialects.options import (
    Body,
    Dimensions,
    EmbedRole,
    RankOptions,
    Served,
    Text,
    rerank,
)
from ggrank.server.service import Embedded, Service
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


class EmbedRequest(Body):
    """Texts to embed. ``max_tokens`` and ``priority`` do nothing here."""

    texts: Inputs = Field(examples=[CAPITALS])
    model: str | None = Field(
        default=None, description="The name of a served embedder; any other name means the first one."
    )
    input_type: EmbedRole = "neither"
    embedding_types: list[Literal["float", "base64"]] | None = Field(
        default=None, description="`float` (the default) and `base64` of little-endian float32."
    )
    truncate: Literal["END", "NONE"] = Field(
        default="END", description="`NONE` refuses a text that is too long; Cohere's `START` is refused."
    )
    output_dimension: Dimensions | None = None


class Embeddings(BaseModel):
    """The vectors of all texts, by type."""

    floats: list[list[float]] | None = Field(default=None, serialization_alias="float")
    base64: list[str] | None = None


class EmbedMeta(BaseModel):
    """What was computed."""

    api_version: ApiVersion
    billed_units: Tokens
    tokens: Tokens
    warnings: list[str] | None = None


class EmbedResponse(BaseModel):
    """A vector for each text, in input order: by type, or in Cohere's first API as plain lists."""

    id: str
    response_type: Literal["embeddings_by_type", "embeddings_floats"]
    embeddings: Embeddings | list[list[float]]
    texts: list[str]
    meta: EmbedMeta


@router.post("/v2/embed", response_model_exclude_none=True)
async def embed_v2(request: EmbedRequest, service: Served) -> EmbedResponse:
    """Vectors of texts, as Cohere's second API gives them."""
    texts, embedded = await _embed(request, service)
    types = request.embedding_types or ["float"]
    return EmbedResponse(
        id=str(uuid4()),
        response_type="embeddings_by_type",
        embeddings=_by_type(embedded, types),
        texts=texts,
        meta=_embed_meta(embedded, version="2"),
    )


@router.post("/v1/embed", response_model_exclude_none=True)
async def embed_v1(request: EmbedRequest, service: Served) -> EmbedResponse:
    """Vectors of texts, as Cohere's first API gives them: lists, or by type where `embedding_types` asks."""
    texts, embedded = await _embed(request, service)
    types = request.embedding_types
    return EmbedResponse(
        id=str(uuid4()),
        response_type="embeddings_by_type" if types else "embeddings_floats",
        embeddings=_by_type(embedded, types) if types else embedded.vectors.tolist(),
        texts=texts,
        meta=_embed_meta(embedded, version="1"),
    )


async def _embed(request: EmbedRequest, service: Service) -> tuple[list[str], Embedded]:
    texts = await read_one_or_many(service, request.texts, read_input, "texts")
    embedded = await service.embed(
        texts,
        name="texts",
        model=request.model,
        truncate="error" if request.truncate == "NONE" else "end",
        role=request.input_type,
        dimensions=request.output_dimension,
    )
    return [text if isinstance(text, str) else "" for text in texts], embedded


def _by_type(embedded: Embedded, types: list[Literal["float", "base64"]]) -> Embeddings:
    return Embeddings(
        floats=embedded.vectors.tolist() if "float" in types else None,
        base64=list(map(as_base64, embedded.vectors)) if "base64" in types else None,
    )


def _embed_meta(embedded: Embedded, *, version: str) -> EmbedMeta:
    n_cut = sum(embedded.truncated)
    tokens = Tokens(input_tokens=embedded.n_tokens)
    warnings = [f"texts cut to fit the model: {n_cut}"] if n_cut else None
    return EmbedMeta(
        api_version=ApiVersion(version=version), billed_units=tokens, tokens=tokens, warnings=warnings
    )
