"""Hugging Face's text-embeddings-inference: ``/embed``, ``/info``, and what ``/rerank`` is for TEI's clients.

Knows TEI's fields, as in its router/src/http/types.rs; not which other dialect shares a path.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field, SkipValidation, Tag, model_validator

from ggrank import __version__
from ggrank.server.dialects.errors import ErrorShape, named
from ggrank.server.dialects.lists import Inputs, read, read_input, read_one_or_many, read_text
from ggrank.server.dialects.options import (
    AS_OTHERS,
    AS_TEI,
    Body,
    Dimensions,
    EmbedRole,
    RankOptions,
    Served,
    Text,
    Truncation,
    rerank,
    tei_if,
    truncate_word,
    wrong,
)
from ggrank.server.service import ServedModel, Service
from ggrank.types import Mode

_ERROR_TYPES = {
    400: "Empty",
    413: "Validation",
    422: "Validation",
    424: "Backend",
    429: "Overloaded",
    503: "Unhealthy",
}
MARKED = 100
"""Positions that a header names at most; a proxy refuses headers of some kilobytes."""


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """``{"error": ..., "error_type": ...}``.

    Example:
        >>> error_body(422, "must be a string", "query")
        {'error': 'query: must be a string', 'error_type': 'Validation'}
    """
    return {"error": named(message, field), "error_type": _ERROR_TYPES.get(status, "Backend")}


ERRORS = ErrorShape(bad_input=422, body=error_body)
router = APIRouter(tags=["text-embeddings-inference"])


TruncationDirection = Annotated[
    Literal["right", "Right"], Field(description="Texts are cut at their end; TEI's `left` is refused.")
]


class TeiRerankRequest(RankOptions):
    """A query and texts: what TEI's clients send."""

    query: Text = Field(examples=["What is Deep Learning?"])
    texts: list[SkipValidation[Text]] = Field(
        min_length=1, examples=[["Deep Learning is not...", "Deep learning is..."]]
    )
    return_text: bool | None = Field(default=None, description="Send each text back with its score.")
    truncation_direction: TruncationDirection = "right"

    @model_validator(mode="before")
    @classmethod
    def _one_list(cls, body: Any) -> Any:
        if isinstance(body, dict) and body.get("documents") is not None:
            raise wrong("has documents and texts; send one of them")
        return body


class TeiRank(BaseModel):
    """One text's score."""

    index: int = Field(description="Position in `texts`, from 0.", examples=[1])
    text: str | None = Field(default=None, description="The text, with `return_text`.")
    score: float = Field(
        description="0..1 (sigmoid of the logit); with `raw_scores` the logit.", examples=[0.9976]
    )
    truncated: bool = Field(description="Whether the text was cut to fit the model.", examples=[False])


async def rerank_texts(service: Service, request: TeiRerankRequest) -> list[TeiRank]:
    """Answers a request with ``texts``, on whichever path it came."""
    texts = await read(service, request.texts, read_text, "texts")
    reranked = await rerank(service, request, request.query, texts, scale="sigmoid", name="texts")
    return [
        TeiRank(
            index=ranked.index,
            text=ranked.document if request.return_text else None,
            score=ranked.score,
            truncated=ranked.truncated,
        )
        for ranked in reranked.ranking
    ]


class TeiEmbedRequest(Body):
    """Texts to embed: what TEI's clients send."""

    inputs: Inputs = Field(examples=["What is Deep Learning?"])
    model: str | None = Field(
        default=None, description="The name of a served embedder; the first one by default."
    )
    truncate: Truncation | None = None
    truncation_direction: TruncationDirection = "right"
    normalize: bool = Field(default=True, description="Give each vector length 1.")
    prompt_name: EmbedRole = "neither"
    prefix: Text = Field(default="", description="Set before each text, as models with instructions want it.")
    dimensions: Dimensions | None = None


@router.post(
    "/embed",
    response_description="A vector for each input, in input order.",
    responses=ERRORS.documented(),
)
async def embed(request: TeiEmbedRequest, service: Served, response: Response) -> list[list[float]]:
    """Vectors of texts, as TEI gives them.

    The header `x-truncated` holds the positions of the inputs that were cut (the first hundred of them),
    `x-compute-tokens` how many tokens were computed.
    """
    embedded = await service.embed(
        await read_one_or_many(service, request.inputs, read_input, "inputs"),
        name="inputs",
        model=request.model,
        normalize=request.normalize,
        truncate=truncate_word(request.truncate),
        prefix=request.prefix,
        role=request.prompt_name,
        dimensions=request.dimensions,
    )
    cut = [str(i) for i, truncated in enumerate(embedded.truncated) if truncated]
    response.headers["x-compute-tokens"] = str(embedded.n_tokens)
    if cut:
        response.headers["x-truncated"] = ",".join(cut[:MARKED])
    vectors: list[list[float]] = embedded.vectors.tolist()
    return vectors


EmbedOrRerank = Annotated[
    Annotated[TeiRerankRequest, Tag(AS_TEI)] | Annotated[TeiEmbedRequest, Tag(AS_OTHERS)], tei_if("texts")
]


@router.post("/", response_model_exclude_none=True, responses=ERRORS.documented())
async def any_task(
    request: EmbedOrRerank, service: Served, response: Response
) -> list[list[float]] | list[TeiRank]:
    """What Hugging Face's clients send to a server's address alone: `texts` are ranked, `inputs` embedded."""
    if isinstance(request, TeiRerankRequest):
        return await rerank_texts(service, request)
    return await embed(request, service, response)


class TeiInfo(BaseModel):
    """What one served model is, in TEI's words."""

    model_id: str = Field(examples=["ggrank-reranker-mini"])
    model_sha: str | None = None
    model_dtype: str = Field(description="How the weights are stored.", examples=["q8_0"])
    served_model_name: str = Field(examples=["ggrank-reranker-mini"])
    model_type: dict[str, dict[str, Any]] = Field(
        examples=[{"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}]
    )
    max_concurrent_requests: int
    max_input_length: int = Field(description="Tokens of a text, or of a query and a text.", examples=[512])
    max_batch_tokens: int
    max_client_batch_size: int = Field(description="Texts of one request.")
    auto_truncate: bool = Field(
        default=True, description="Texts that are too long are cut unless a request says no."
    )
    version: str = Field(description="ggrank's.")


@router.get("/info")
async def info(
    service: Served,
    model: Annotated[str | None, Query(description="A served model; the first reranker by default.")] = None,
) -> TeiInfo:
    """What a served model is: TEI serves one, so this is the first reranker unless `model` names another."""
    served = _chosen(service, model)
    return TeiInfo(
        model_id=served.name,
        model_dtype=served.quantization,
        served_model_name=served.name,
        model_type=_model_type(service, served),
        max_concurrent_requests=service.settings.max_queue,
        max_input_length=served.n_ctx,
        max_batch_tokens=service.settings.max_tokens,
        max_client_batch_size=service.settings.max_documents,
        auto_truncate=True,
        version=__version__,
    )


def _chosen(service: Service, name: str | None) -> ServedModel:
    """The model of that name, else the first reranker, else the first."""
    models = service.models()
    preferred = [served for served in models if served.mode is Mode.RERANK] or models
    return next((served for served in models if served.name == name), preferred[0])


def _model_type(service: Service, served: ServedModel) -> dict[str, dict[str, Any]]:
    if served.mode is Mode.RERANK:
        return {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    return {"embedding": {"pooling": service.llamas()[served.name].pooling_type.name.lower()}}
