"""How each server wants to be asked for scores and vectors, and where in its answer they lie.

Knows JSON bodies and paths; no HTTP, and not how an answer is checked (`ggrank.remote.reading`). A dialect
is one entry of `RERANK` or `EMBED`; its source stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from ggrank.types import Scale, Truncate

RerankDialectName = Literal[
    "ggrank", "tei", "cohere", "cohere-v1", "jina", "jina-logits", "llama-server", "huggingface"
]
EmbedDialectName = Literal["ggrank", "tei", "openai", "llama-server", "huggingface"]

HUGGING_FACE = "https://router.huggingface.co/hf-inference"
"""Hugging Face's hosted inference API."""

BGE_RERANKERS = {
    "bge-reranker-v2-m3": "BAAI/bge-reranker-v2-m3",
    "bge-reranker-large": "BAAI/bge-reranker-large",
    "bge-reranker-base": "BAAI/bge-reranker-base",
}
"""Presets: the short names that `Llama.load` knows too, and what hosted services call these models."""

DEFAULT_RERANKER = BGE_RERANKERS["bge-reranker-v2-m3"]


@dataclass(frozen=True)
class RerankCall:
    """One request for scores; ``model`` "" where the server has only one."""

    model: str
    query: str
    documents: list[str]
    truncate: Truncate


@dataclass(frozen=True)
class EmbedCall:
    """One request for vectors."""

    model: str
    texts: list[str]
    normalize: bool
    truncate: Truncate


@dataclass(frozen=True)
class RerankDialect:
    """How to ask for scores.

    Attributes:
        scale: "logit" where raw scores can be had; "probability" for 0..1.
        path: may hold ``{model}``.
        body: the request's JSON.
        results: where the list of results lies; None where it is the answer itself.
        score: the field of a result that holds its score.
        batch_size: documents of one request, unless the caller or the server says another number.
        truncate: what can be asked for.
        default_model: asked for where the caller names none.
    """

    name: RerankDialectName
    scale: Scale
    path: str
    body: Callable[[RerankCall], dict[str, object]]
    results: str | None = "results"
    score: str = "relevance_score"
    batch_size: int = 32
    truncate: tuple[Truncate, ...] = ("end",)
    default_model: str = DEFAULT_RERANKER


@dataclass(frozen=True)
class EmbedDialect:
    """How to ask for vectors.

    Attributes:
        rows: where the vectors lie: "data" for OpenAI's objects, None where the answer is a list of vectors.
        path, body, batch_size, truncate: as for `RerankDialect`.
        needs_model: whether the server must be told which model.
    """

    name: EmbedDialectName
    path: str
    body: Callable[[EmbedCall], dict[str, object]]
    rows: str | None = "data"
    batch_size: int = 32
    truncate: tuple[Truncate, ...] = ("end",)
    needs_model: bool = False


def model_path(path: str, model: str) -> str:
    """A path with the model's name in it.

    Example:
        >>> model_path("/models/{model}/pipeline/text-ranking", "BAAI/bge-reranker-base")
        '/models/BAAI/bge-reranker-base/pipeline/text-ranking'
    """
    return path.replace("{model}", quote(model, safe="/"))


def _named(model: str) -> dict[str, object]:
    return {"model": model} if model else {}


def _cohere(call: RerankCall) -> dict[str, object]:
    return {**_named(call.model), "query": call.query, "documents": call.documents}


def _without_documents(call: RerankCall) -> dict[str, object]:
    return {**_cohere(call), "return_documents": False}


def _ggrank(call: RerankCall) -> dict[str, object]:
    return {**_without_documents(call), "raw_scores": True, "truncate": call.truncate}


def _tei(call: RerankCall) -> dict[str, object]:
    return {
        "query": call.query,
        "texts": call.documents,
        "raw_scores": True,
        "truncate": call.truncate == "end",
    }


def _text_ranking(call: RerankCall) -> dict[str, object]:
    return {"inputs": {"query": call.query, "texts": call.documents}}


RERANK: dict[str, RerankDialect] = {
    dialect.name: dialect
    for dialect in (
        RerankDialect(
            name="ggrank",  # this project's own server
            scale="logit",
            path="/v1/reranking",
            body=_ggrank,
            batch_size=256,
            truncate=("end", "error", "chunk"),
            default_model="",
        ),
        RerankDialect(
            name="tei",  # https://huggingface.github.io/text-embeddings-inference/
            scale="logit",
            path="/rerank",
            body=_tei,
            results=None,
            score="score",
            truncate=("end", "error"),
            default_model="",
        ),
        RerankDialect(
            name="cohere",  # https://docs.cohere.com/reference/rerank; above 1,000 documents it refuses
            scale="probability",
            path="/v2/rerank",
            body=_cohere,
            batch_size=1000,
        ),
        RerankDialect(
            name="cohere-v1",  # https://docs.cohere.com/v1/reference/rerank
            scale="probability",
            path="/v1/rerank",
            body=_without_documents,
            batch_size=1000,
        ),
        RerankDialect(
            name="jina",  # https://api.jina.ai/redoc
            scale="probability",
            path="/v1/rerank",
            body=_without_documents,
            batch_size=256,
        ),
        RerankDialect(
            name="jina-logits",  # the same form with a model whose scores nothing squashes: vLLM, LocalAI
            scale="logit",
            path="/v1/rerank",
            body=_without_documents,
            batch_size=256,
        ),
        RerankDialect(
            name="llama-server",  # llama.cpp, tools/server/README.md; refuses what is too long
            scale="logit",
            path="/v1/reranking",  # the same there as /v1/rerank, which elsewhere is Cohere's and Jina's
            body=_cohere,
            truncate=("end", "error"),
            default_model="",
        ),
        RerankDialect(
            name="huggingface",  # https://github.com/huggingface/huggingface.js/pull/2496
            scale="probability",
            path="/models/{model}/pipeline/text-ranking",
            body=_text_ranking,
            results=None,
            score="score",
        ),
    )
}


def _openai(call: EmbedCall) -> dict[str, object]:
    return {**_named(call.model), "input": call.texts}


def _ggrank_vectors(call: EmbedCall) -> dict[str, object]:
    # base64 of float32: the same bits as there, and a third of the size.
    return {
        **_openai(call),
        "encoding_format": "base64",
        "normalize": call.normalize,
        "truncate": call.truncate,
    }


def _llama_server_vectors(call: EmbedCall) -> dict[str, object]:
    return {**_openai(call), "embd_normalize": 2 if call.normalize else -1}


def _tei_vectors(call: EmbedCall) -> dict[str, object]:
    return {"inputs": call.texts, "normalize": call.normalize, "truncate": call.truncate == "end"}


EMBED: dict[str, EmbedDialect] = {
    dialect.name: dialect
    for dialect in (
        EmbedDialect(
            name="ggrank",
            path="/v1/embeddings",
            body=_ggrank_vectors,
            batch_size=256,
            truncate=("end", "error"),
        ),
        EmbedDialect(name="tei", path="/embed", body=_tei_vectors, rows=None, truncate=("end", "error")),
        EmbedDialect(
            name="openai",  # https://platform.openai.com/docs/api-reference/embeddings; Jina's reads the same
            path="/v1/embeddings",
            body=_openai,
            batch_size=256,
            needs_model=True,
        ),
        EmbedDialect(
            name="llama-server",
            path="/v1/embeddings",
            body=_llama_server_vectors,
            truncate=("end", "error"),
        ),
        EmbedDialect(
            name="huggingface",  # huggingface_hub's InferenceClient.feature_extraction
            path="/models/{model}/pipeline/feature-extraction",
            body=_tei_vectors,
            rows=None,
            truncate=("end", "error"),
            needs_model=True,
        ),
    )
}
