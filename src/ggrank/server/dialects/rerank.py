"""Every reranking path: plain and vLLM, llama-server, Cohere's two APIs, Jina, text-embeddings-inference.

One answer holds the fields of all of them, since clients read those that they know; only TEI's is another.
The paths differ in their scale, and in whether documents are sent back.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import uuid4

from fastapi import APIRouter
from pydantic import Field, Tag
from typing_extensions import NotRequired, TypedDict  # pydantic needs this one before Python 3.12

from ggrank.server.dialects import fields
from ggrank.server.errors import documented, naming
from ggrank.server.intake import ThreadRoute
from ggrank.server.service import Service
from ggrank.types import Mode, Ranking, ScoreScale

SEARCH_UNIT = 100
"""Documents that Cohere counts as one search."""

router = APIRouter(route_class=ThreadRoute, responses=documented())


class RerankRequest(fields.RankOptions):
    """A query and documents. Cohere's ``max_tokens_per_doc`` and ``max_chunks_per_doc`` do nothing."""

    documents: fields.Documents = Field(examples=[["hi", "The giant panda is a bear species."]])
    rank_fields: list[str] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Of documents that are objects: rank by these fields, in this order.",
    )
    return_documents: bool | None = Field(
        default=None,
        strict=False,
        description="Send each document back with its score. By default `/rerank` does, and `/v1/rerank` "
        "for a `model` whose name begins with `jina`.",
    )


class TeiRerankRequest(fields.RankOptions):
    """A query and texts: what TEI's clients send."""

    texts: fields.Texts = Field(examples=[["Deep Learning is not...", "Deep learning is..."]])
    return_text: bool | None = Field(default=None, description="Send each text back with its score.")
    truncation_direction: fields.Direction = "right"


AnyRequest = Annotated[
    Annotated[RerankRequest, Tag(fields.AS_OTHERS)] | Annotated[TeiRerankRequest, Tag(fields.AS_TEI)],
    fields.BY_TEXTS,
]


class Usage(TypedDict):
    """Tokens that were computed; nothing is generated, so the prompt is all there is."""

    prompt_tokens: int
    total_tokens: int


class RerankResult(TypedDict):
    """One document's score, 0..1 (sigmoid of the logit) or the logit; ``score`` is the same number."""

    index: Annotated[int, Field(description="Position in `documents`, from 0.")]
    relevance_score: float
    score: float
    truncated: Annotated[bool, Field(description="Whether the document was cut to fit the model.")]
    document: NotRequired[
        Annotated[dict[str, fields.Scalar], Field(description="As it was sent, a string as `text`.")]
    ]


class RerankResponse(TypedDict):
    """Documents in order, best first; ``model`` is the one that computed, ``meta`` is Cohere's."""

    id: str
    object: Literal["list"]
    model: str
    usage: Usage
    results: list[RerankResult]
    meta: dict[str, Any]


class TeiRank(TypedDict):
    """One text's score, 0..1 unless ``raw_scores``; its text with ``return_text``."""

    index: Annotated[int, Field(description="Position in `texts`, from 0.")]
    score: float
    truncated: Annotated[bool, Field(description="Whether the text was cut to fit the model.")]
    text: NotRequired[str]


Answer = RerankResponse | list[TeiRank]


@router.post("/rerank", tags=["plain", "vLLM"])
def rerank(request: AnyRequest, service: fields.Served) -> Answer:
    """Documents in order of relevance, with scores of 0..1.

    With `texts` in place of `documents` it is text-embeddings-inference's. llama-server gives logits on a
    path of this name; here its other paths do, or `raw_scores`.
    """
    return _answer(request, service, scale="sigmoid", with_documents=True)


@router.post("/reranking", tags=["llama-server"])
@router.post("/v1/reranking", tags=["llama-server"])
def reranking(request: AnyRequest, service: fields.Served) -> Answer:
    """Documents in order of relevance, as llama-server gives them: raw logits."""
    return _answer(request, service, scale="logit", with_documents=False)


@router.post("/v1/rerank", tags=["cohere", "jina"])
def rerank_v1(request: AnyRequest, service: fields.Served) -> Answer:
    """Documents in order of relevance, as Cohere's first API and Jina's give them: scores 0..1."""
    is_jina = (request.model or "").startswith("jina")
    return _answer(request, service, scale="sigmoid", with_documents=is_jina)


@router.post("/v2/rerank", tags=["cohere"])
def rerank_v2(request: RerankRequest, service: fields.Served) -> Answer:
    """Documents in order of relevance, as Cohere's second API gives them: scores 0..1."""
    return _answer(request, service, scale="sigmoid", with_documents=False, version="2")


def _answer(
    request: RerankRequest | TeiRerankRequest,
    service: Service,
    *,
    scale: ScoreScale,
    with_documents: bool,
    version: str = "1",
) -> Answer:
    """``with_documents`` is what is done where the request does not say."""
    if isinstance(request, TeiRerankRequest):
        return rank_texts(request, service)
    documents: list[fields.Document] = request.documents
    texts = [fields.text_of(document, request.rank_fields or ("text",)) for document in documents]
    model, ranking = _ranked(request, service, texts, scale=scale, name="documents")
    wanted = with_documents if request.return_documents is None else request.return_documents
    results: list[RerankResult] = []
    for one in ranking:
        result = RerankResult(
            index=one.index, relevance_score=one.score, score=one.score, truncated=one.truncated
        )
        if wanted:
            document = documents[one.index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    n_cut = sum(one.truncated for one in ranking)
    return RerankResponse(
        id=str(uuid4()),
        object="list",
        model=model,
        usage=usage(ranking.n_tokens),
        results=results,
        meta={
            "api_version": {"version": version, "is_experimental": False},
            "billed_units": {"search_units": -(-len(texts) // SEARCH_UNIT)},
            "tokens": {"input_tokens": ranking.n_tokens},
            "warnings": [f"documents cut to fit the model: {n_cut}"] if n_cut else None,
        },
    )


def rank_texts(request: TeiRerankRequest, service: Service) -> list[TeiRank]:
    """TEI's answer, whose scores are 0..1 on every path."""
    ranks: list[TeiRank] = []
    for one in _ranked(request, service, request.texts, scale="sigmoid", name="texts")[1]:
        rank = TeiRank(index=one.index, score=one.score, truncated=one.truncated)
        if request.return_text:
            rank["text"] = one.document
        ranks.append(rank)
    return ranks


def _ranked(
    request: fields.RankOptions, service: Service, texts: list[str], *, scale: ScoreScale, name: str
) -> tuple[str, Ranking]:
    """The ranking, and the name of the model that computed it: by cosine where that is an embedder."""
    with service.model(request.model, Mode.RERANK, Mode.EMBEDDING) as (model, llama), naming(name):
        ranking = llama.rank(
            request.query,
            texts,
            top_n=request.top_n and min(request.top_n, len(texts)),  # it may have any number of digits
            threshold=request.threshold,
            score="auto" if llama.mode is Mode.EMBEDDING else request.scale(scale),
            truncate=request.truncate,
        )
    return model, ranking


def usage(n_tokens: int) -> Usage:
    """The tokens of a request."""
    return Usage(prompt_tokens=n_tokens, total_tokens=n_tokens)
