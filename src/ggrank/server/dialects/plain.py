"""``/rerank``: the plain ``{query, documents, top_n}``, llama-server's requests, which read the same; TEI's.

Knows which of them a request is by its fields; what is answered stands in their files.
"""

from __future__ import annotations

from fastapi import APIRouter

from ggrank.server.dialects.llama_server import (
    ERRORS,
    RerankResponse,
    TextsOrDocuments,
    error_body,
    rerank_documents,
)
from ggrank.server.dialects.options import Served
from ggrank.server.dialects.tei import TeiRank, TeiRerankRequest, rerank_texts

__all__ = ["ERRORS", "error_body", "router"]

router = APIRouter(tags=["plain"], responses=ERRORS.documented())


@router.post("/rerank", response_model_exclude_none=True)
async def rerank(request: TextsOrDocuments, service: Served) -> RerankResponse | list[TeiRank]:
    """Documents in order of relevance.

    With `documents` (plain, llama-server): raw logits, as both `score` and `relevance_score`, and the
    documents unless `return_documents` is false. With `texts` (TEI): a list, scores 0..1 unless `raw_scores`.
    """
    if isinstance(request, TeiRerankRequest):
        return await rerank_texts(service, request)
    return await rerank_documents(service, request, return_documents=True)
