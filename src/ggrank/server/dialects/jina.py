"""``/v1/rerank``, where Cohere's first API and Jina's read the same: one answer holds the fields of both.

Knows the fields of both; Cohere's second API is `ggrank.server.dialects.cohere`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter
from pydantic import BaseModel, Field, Tag

from ggrank.server.dialects import cohere, llama_server
from ggrank.server.dialects.documents import Document, Documents, Scalar, read_documents
from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.options import AS_OTHERS, AS_TEI, RankOptions, Served, Text, rerank, tei_if
from ggrank.server.dialects.tei import TeiRank, TeiRerankRequest, rerank_texts
from ggrank.server.service import Reranked


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """Jina's ``detail``, Cohere's ``message`` and llama-server's ``error``: each client finds its own.

    Example:
        >>> body = error_body(400, "must be a string", "query")
        >>> body["detail"], body["error"]["type"]
        ('query: must be a string', 'invalid_request_error')
    """
    return {
        **cohere.error_body(status, message, field),
        "detail": named(message, field),
        **llama_server.error_body(status, message, field),
    }


ERRORS = ErrorShape(bad_input=400, body=error_body)
router = APIRouter(tags=["cohere", "jina"], responses=ERRORS.documented())


class V1RerankRequest(RankOptions):
    """A query and documents. Cohere's ``max_chunks_per_doc`` and ``max_tokens_per_doc`` do nothing here."""

    query: Text = Field(examples=["Organic skincare products for sensitive skin"])
    documents: Documents = Field(
        min_length=1,
        description="Strings, or objects with a `text`.",
        examples=[
            [
                "Organic skincare for sensitive skin with aloe vera and chamomile...",
                "New makeup trends focus on bold colors and innovative techniques...",
            ]
        ],
    )
    rank_fields: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Of documents that are objects: rank by these fields, in this order.",
    )
    return_documents: bool | None = Field(
        default=None,
        description="Send each document back with its score. Cohere's default is no, Jina's is yes: here it "
        "is yes for a `model` whose name begins with `jina`.",
    )


class V1Result(BaseModel):
    """One document's score."""

    document: dict[str, Scalar] | None = Field(
        default=None, description="The document as it was sent, a string as `text`; with `return_documents`."
    )
    index: int = Field(description="Position in `documents`, from 0.", examples=[0])
    relevance_score: float = Field(
        description="0..1 (sigmoid of the logit), unless the request asks for `raw_scores`.", examples=[0.878]
    )
    truncated: bool = Field(description="Whether the document was cut to fit the model.", examples=[False])


class V1RerankResponse(BaseModel):
    """Documents in order, best first: `id` and `meta` are Cohere's, `object` and `usage` Jina's."""

    id: str = Field(examples=["8dc0f4e4-b5ee-4d3b-ab5a-2ad6a1c2f1b5"])
    model: str = Field(description="The model that computed.", examples=["ggrank-reranker-mini"])
    object: str = Field(default="list", examples=["list"])
    usage: llama_server.Usage
    results: list[V1Result]
    meta: cohere.Meta


TextsOrDocuments = Annotated[
    Annotated[V1RerankRequest, Tag(AS_OTHERS)] | Annotated[TeiRerankRequest, Tag(AS_TEI)], tei_if("texts")
]


@router.post("/v1/rerank", response_model_exclude_none=True)
async def rerank_v1(request: TextsOrDocuments, service: Served) -> V1RerankResponse | list[TeiRank]:
    """Documents in order of relevance, as Cohere's first API and Jina's give them: scores 0..1.

    Clients of llama-server find their fields too, but not its scale: `/v1/reranking` gives them raw logits.
    """
    if isinstance(request, TeiRerankRequest):
        return await rerank_texts(service, request)
    documents = await read_documents(service, request.documents, rank_fields=request.rank_fields or ("text",))
    texts = [document.text for document in documents]
    reranked = await rerank(service, request, request.query, texts, scale="sigmoid")
    return V1RerankResponse(
        id=str(uuid4()),
        model=reranked.model.name,
        object="list",
        usage=llama_server.usage(reranked.ranking.n_tokens),
        results=_results(request, reranked, documents),
        meta=cohere.meta(reranked.ranking, version="1", n_documents=len(texts)),
    )


def _results(request: V1RerankRequest, reranked: Reranked, documents: Sequence[Document]) -> list[V1Result]:
    wanted = request.return_documents
    if wanted is None:
        wanted = (request.model or "").startswith("jina")
    return [
        V1Result(
            document=documents[ranked.index].fields if wanted else None,
            index=ranked.index,
            relevance_score=ranked.score,
            truncated=ranked.truncated,
        )
        for ranked in reranked.ranking
    ]
