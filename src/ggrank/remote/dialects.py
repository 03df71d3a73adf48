"""How each server wants to be asked for scores and vectors, and which dialect a server speaks.

A dialect is one entry of `RERANK` or `EMBED`; its source stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ggrank.errors import InputError, ModelModeError, RemoteError
from ggrank.remote.errors import endpoint_hint
from ggrank.types import Mode, Scale, Truncate

if TYPE_CHECKING:
    from ggrank.remote.connection import Connection

_HUGGING_FACE_HOST = "router.huggingface.co"
HUGGING_FACE = f"https://{_HUGGING_FACE_HOST}/hf-inference"
"""Hugging Face's hosted inference API."""

_HOSTS = {
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.jina.ai": "jina",
    "api.openai.com": "openai",
    _HUGGING_FACE_HOST: "huggingface",
}


@dataclass(frozen=True)
class Call:
    """One request: documents to score against the query, or texts to embed."""

    model: dict[str, object]
    texts: list[str]
    query: str
    normalize: bool
    truncate: Truncate


@dataclass(frozen=True)
class Dialect:
    """How to ask for scores or vectors, and what the answer holds.

    Attributes:
        path: of the request; may hold ``{model}``.
        body: the request's JSON.
        scale: "logit" where raw scores can be had, "probability" for 0..1; "cosine" for vectors.
        batch_size: texts of one request, unless the caller or the server says another number.
        truncate: what can be asked for.
        is_list: whether the answer is the list of results itself, not an object that holds it.
        needs_model: whether every request must name the model.
        model: asked for where the caller names none.
        url: where requests go, once the server is known.
    """

    name: str
    path: str
    body: Callable[[Call], dict[str, object]]
    scale: Scale
    batch_size: int = 32
    truncate: tuple[Truncate, ...] = ("end",)
    is_list: bool = False
    needs_model: bool = False
    model: str = ""
    url: str = ""


def _documents(call: Call) -> dict[str, object]:
    return {**call.model, "query": call.query, "documents": call.texts}


def _without_documents(call: Call) -> dict[str, object]:
    return {**_documents(call), "return_documents": False}


def _ggrank(call: Call) -> dict[str, object]:
    return {**_without_documents(call), "raw_scores": True, "truncate": call.truncate}


def _tei(call: Call) -> dict[str, object]:
    return {"query": call.query, "texts": call.texts, "raw_scores": True, "truncate": call.truncate == "end"}


def _text_ranking(call: Call) -> dict[str, object]:
    return {"inputs": {"query": call.query, "texts": call.texts}}


def _openai(call: Call) -> dict[str, object]:
    # base64 of float32, as openai-python asks for it: exact, and a third of the size of decimal digits.
    return {**call.model, "input": call.texts, "encoding_format": "base64"}


def _ggrank_vectors(call: Call) -> dict[str, object]:
    return {**_openai(call), "normalize": call.normalize, "truncate": call.truncate}


def _llama_server_vectors(call: Call) -> dict[str, object]:
    return {**call.model, "input": call.texts, "embd_normalize": 2 if call.normalize else -1}


def _tei_vectors(call: Call) -> dict[str, object]:
    return {"inputs": call.texts, "normalize": call.normalize, "truncate": call.truncate == "end"}


def _by_name(*dialects: Dialect) -> dict[str, Dialect]:
    return {dialect.name: dialect for dialect in dialects}


CUT_OR_REFUSE: tuple[Truncate, ...] = ("end", "error")
RERANK = _by_name(
    # This project's own server.
    Dialect("ggrank", "/v1/reranking", _ggrank, "logit", 256, ("end", "error", "chunk")),
    # https://huggingface.github.io/text-embeddings-inference/
    Dialect("tei", "/rerank", _tei, "logit", 32, CUT_OR_REFUSE, is_list=True),
    # https://docs.cohere.com/reference/rerank and /v1/reference/rerank; above 1,000 documents it refuses.
    Dialect("cohere", "/v2/rerank", _documents, "probability", 1000, needs_model=True),
    Dialect("cohere-v1", "/v1/rerank", _without_documents, "probability", 1000, needs_model=True),
    # https://api.jina.ai/redoc, and the same JSON with a model whose scores are logits: vLLM, LocalAI.
    Dialect("jina", "/v1/rerank", _without_documents, "probability", 256, needs_model=True),
    Dialect("jina-logits", "/v1/rerank", _without_documents, "logit", 256, needs_model=True),
    # llama.cpp, tools/server/README.md. /v1/reranking is the same there as /v1/rerank, which elsewhere is
    # Cohere's and Jina's. What is too long is always refused.
    Dialect("llama-server", "/v1/reranking", _documents, "logit", 32, CUT_OR_REFUSE),
    # https://github.com/huggingface/huggingface.js/pull/2496
    Dialect(
        "huggingface",
        "/models/{model}/pipeline/text-ranking",
        _text_ranking,
        "probability",
        is_list=True,
        model="BAAI/bge-reranker-v2-m3",
    ),
)
EMBED = _by_name(
    Dialect("ggrank", "/v1/embeddings", _ggrank_vectors, "cosine", 256, CUT_OR_REFUSE),
    Dialect("tei", "/embed", _tei_vectors, "cosine", 32, CUT_OR_REFUSE, is_list=True),
    # https://platform.openai.com/docs/api-reference/embeddings; Jina's and Cohere's are alike.
    Dialect("openai", "/v1/embeddings", _openai, "cosine", 256, needs_model=True),
    Dialect("llama-server", "/v1/embeddings", _llama_server_vectors, "cosine", 32, CUT_OR_REFUSE),
    # huggingface_hub's InferenceClient.feature_extraction
    Dialect(
        "huggingface",
        "/models/{model}/pipeline/feature-extraction",
        _tei_vectors,
        "cosine",
        truncate=CUT_OR_REFUSE,
        is_list=True,
        needs_model=True,
    ),
)
DIALECTS = {Mode.RERANK: RERANK, Mode.EMBEDDING: EMBED}


def find_dialect(connection: Connection, name: str, mode: Mode, model: str | None) -> Dialect:
    """The dialect of a server, with the model, scale and batch size that hold for this one.

    "auto" is answered from the host's name, else by the server, which is also asked where it is ggrank's own.

    Raises:
        RemoteError: the server does not say what it is, or cannot be asked.
        ModelModeError: its model does the other job.
        InputError: it serves no model of that name, or the dialect needs a name and none was given.
    """
    known = DIALECTS[mode]
    if name == "auto":
        name = _HOSTS.get(connection.host, "auto")
        if name not in ("auto", *known):
            name = "openai" if "openai" in known else "auto"
    found = known[name] if name not in ("auto", "ggrank") else _ask(connection, name, mode, model)
    if found.needs_model and not model:
        raise InputError(f"dialect {found.name!r} needs the model's name at the service: pass model=")
    return replace(found, model=model or found.model)


def url_of(connection: Connection, dialect: Dialect, path: str | None) -> str:
    """Where requests go. A path that the caller gives is put after the address as it stands."""
    named = (path or dialect.path).replace("{model}", quote(dialect.model, safe="/"))
    if path:
        return f"{connection.base_url}/{named.lstrip('/')}"
    is_bare = connection.host == _HUGGING_FACE_HOST and "/hf-inference" not in connection.base_url
    return connection.url(f"/hf-inference{named}" if is_bare else named)


def _ask(connection: Connection, name: str, mode: Mode, model: str | None) -> Dialect:
    """Two questions at most: OpenAI's list of models, then TEI's description of itself."""
    known = DIALECTS[mode]
    listed = connection.ask(connection.url("/v1/models"))
    data = listed.get("data") if isinstance(listed, dict) else None
    models = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    owners = [str(one.get("owned_by")) for one in models]
    if name == "ggrank" or "ggrank" in owners:
        return _of_models(known["ggrank"], models, mode, model)
    if "llamacpp" in owners:
        return known["llama-server"]
    info = connection.ask(connection.url("/info"))
    if isinstance(info, dict) and "model_id" in info and "max_client_batch_size" in info:
        return _of_info(known["tei"], info, mode)
    if models and "openai" in known:
        return known["openai"]
    why = "it has OpenAI's /v1/models, but does not say how it reranks (most such servers: dialect='jina')"
    why = why if models else "neither /v1/models nor /info says it"
    names = ", ".join(map(repr, known))
    hint = endpoint_hint(connection.base_url) or f"Check base_url, or name the dialect: one of {names}"
    raise RemoteError(f"{connection.base_url} does not say which dialect it speaks: {why}. {hint}")


def _of_models(dialect: Dialect, models: list[dict[str, Any]], mode: Mode, model: str | None) -> Dialect:
    """ggrank's dialect with the model of that name, or the first one of that mode."""
    described = {str(one.get("id")): one.get("meta") for one in models}
    fitting = {
        name: meta
        for name, meta in described.items()
        if isinstance(meta, dict) and meta.get("mode") == mode.value
    }
    if model is None and not fitting:
        option = "--reranker" if mode is Mode.RERANK else "--embedder"
        raise ModelModeError(f"the server has no model for this: start it with {option}")
    name = model or next(iter(fitting))
    if name not in fitting:
        names = ", ".join(map(repr, fitting)) or "none"
        raise InputError(f"the server has no model {name!r} for this; it has {names}. Name one of them")
    scale: Scale = fitting[name].get("score_scale", "logit") if mode is Mode.RERANK else "cosine"
    return replace(dialect, model=name, scale=scale)


def _of_info(dialect: Dialect, info: dict[str, Any], mode: Mode) -> Dialect:
    """TEI's dialect with the number of texts that it takes. Raises ModelModeError for the wrong model."""
    types = info.get("model_type")
    job = next(iter(types), "") if isinstance(types, dict) else ""
    if job == ("embedding" if mode is Mode.RERANK else "reranker"):
        other = "RemoteEmbedder" if mode is Mode.RERANK else "RemoteReranker"
        raise ModelModeError(
            f"{info['model_id']} is served as {job}: use {other}, or start a server with another model"
        )
    most = info["max_client_batch_size"]
    return replace(dialect, batch_size=most) if isinstance(most, int) and most > 0 else dialect
