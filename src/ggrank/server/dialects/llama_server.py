"""llama.cpp's llama-server: ``/reranking``, ``/v1/reranking``, ``/embedding``, and its way of wording errors.

Knows llama-server's fields, as in its tools/server/README.md; ``/rerank`` it shares with others.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, Tag

from ggrank.server.dialects.documents import Documents, read_documents
from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.lists import Inputs, read_input, read_one_or_many
from ggrank.server.dialects.options import (
    AS_OTHERS,
    AS_TEI,
    Body,
    RankOptions,
    Served,
    Text,
    rerank,
    tei_if,
)
from ggrank.server.dialects.tei import TeiRank, TeiRerankRequest, rerank_texts
from ggrank.server.service import Reranked, Service

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """``{"error": {"code", "message", "type"}}``.

    Example:
        >>> error_body(400, "must be a string", "query")
        {'error': {'code': 400, 'message': 'query: must be a string', 'type': 'invalid_request_error'}}
    """
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"code": status, "message": named(message, field), "type": kind}}


ERRORS = ErrorShape(bad_input=400, body=error_body)
router = APIRouter(tags=["llama-server"], responses=ERRORS.documented())


class RerankRequest(RankOptions):
    """A query and documents: what llama-server's clients send."""

    query: Text = Field(examples=["What is panda?"])
    documents: Documents = Field(
        min_length=1,
        description="Strings, or objects with a `text`.",
        examples=[
            [
                "hi",
                "it is a bear",
                "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is "
                "a bear species endemic to China.",
            ]
        ],
    )
    return_documents: bool | None = Field(
        default=None, description="Send each document's text back with its score."
    )


class RerankResult(BaseModel):
    """One document's score."""

    index: int = Field(description="Position in `documents`, from 0.", examples=[2])
    relevance_score: float = Field(
        description="The raw logit, any real number; 0..1 with `normalize`.", examples=[4.125]
    )
    score: float = Field(description="The same number.", examples=[4.125])
    document: str | None = Field(default=None, description="The text that was ranked.")
    truncated: bool = Field(description="Whether the document was cut to fit the model.", examples=[False])


class Usage(BaseModel):
    """Tokens that were computed."""

    prompt_tokens: int = Field(examples=[57])
    total_tokens: int = Field(examples=[57])


class RerankResponse(BaseModel):
    """Documents in order, best first."""

    model: str = Field(description="The model that computed.", examples=["ggrank-reranker-mini"])
    object: str = Field(default="list", examples=["list"])
    usage: Usage
    results: list[RerankResult]


TextsOrDocuments = Annotated[
    Annotated[RerankRequest, Tag(AS_OTHERS)] | Annotated[TeiRerankRequest, Tag(AS_TEI)], tei_if("texts")
]


async def rerank_documents(
    service: Service, request: RerankRequest, *, return_documents: bool
) -> RerankResponse:
    """Answers a request with ``documents``; ``return_documents`` is what is done where it does not say."""
    texts = [document.text for document in await read_documents(service, request.documents)]
    reranked = await rerank(service, request, request.query, texts, scale="logit")
    wanted = return_documents if request.return_documents is None else request.return_documents
    return RerankResponse(
        model=reranked.model.name,
        object="list",
        usage=usage(reranked.ranking.n_tokens),
        results=_results(reranked, with_documents=wanted),
    )


def usage(n_tokens: int) -> Usage:
    """A prompt is all there is: nothing is generated."""
    return Usage(prompt_tokens=n_tokens, total_tokens=n_tokens)


def _results(reranked: Reranked, *, with_documents: bool) -> list[RerankResult]:
    return [
        RerankResult(
            index=ranked.index,
            relevance_score=ranked.score,
            score=ranked.score,
            document=ranked.document if with_documents else None,
            truncated=ranked.truncated,
        )
        for ranked in reranked.ranking
    ]


@router.post("/reranking", response_model_exclude_none=True)
@router.post("/v1/reranking", response_model_exclude_none=True)
async def reranking(request: TextsOrDocuments, service: Served) -> RerankResponse | list[TeiRank]:
    """Documents in order of relevance, as llama-server gives them: raw logits.

    A request with `texts` in place of `documents` is answered as TEI does, as llama-server itself does.
    """
    if isinstance(request, TeiRerankRequest):
        return await rerank_texts(service, request)
    return await rerank_documents(service, request, return_documents=False)


class EmbeddingRequest(Body):
    """Texts to embed: what llama-server's own path takes."""

    content: Inputs = Field(examples=["Llamas live in the Andes."])


class EmbeddingResult(BaseModel):
    """One text's vector, in a list of its own as llama-server has it."""

    index: int
    embedding: list[list[float]]


@router.post("/embedding")
async def embedding(request: EmbeddingRequest, service: Served) -> list[EmbeddingResult]:
    """Vectors of texts, as llama-server's own path gives them; `/v1/embeddings` is OpenAI's."""
    texts = await read_one_or_many(service, request.content, read_input, "content")
    embedded = await service.embed(texts, name="content")
    rows = enumerate(embedded.vectors.tolist())
    return [EmbeddingResult(index=i, embedding=[vector]) for i, vector in rows]
