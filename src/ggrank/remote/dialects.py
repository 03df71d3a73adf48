"""What each server is asked, how its answer is read, and which dialect a server speaks."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelModeError, RemoteError
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
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LARGEST_PROBABILITY = 1.001
"""1, with room for rounding in half precision."""


@dataclass(frozen=True)
class Dialect:
    """How to ask for scores or vectors, and what the answer holds.

    Attributes:
        path: of the request; may hold ``{model}``.
        scale: "logit" where raw scores can be had, "probability" for 0..1; "cosine" for vectors.
        batch_size: texts of one request, unless the caller or the server says another number.
        truncate: what can be asked for.
        is_list: whether the answer is the list of results itself, not an object that holds it.
        needs_model: whether every request must name the model.
        model: sent with each request; "" for none.
        url: where requests go, once the server is known.
    """

    name: str
    path: str
    scale: Scale
    batch_size: int = 32
    truncate: tuple[Truncate, ...] = ("end",)
    is_list: bool = False
    needs_model: bool = False
    model: str = ""
    url: str = ""


@dataclass(frozen=True)
class Results:
    """Scores, shape (n,), or vectors, shape (n, n_embd), in input order; which texts were cut; tokens."""

    values: NDArray[np.float32]
    truncated: list[bool]
    n_tokens: int


CUT_OR_REFUSE: tuple[Truncate, ...] = ("end", "error")
RERANK = {
    dialect.name: dialect
    for dialect in (
        # This project's own server.
        Dialect("ggrank", "/v1/reranking", "logit", 256, ("end", "error", "chunk")),
        # https://huggingface.github.io/text-embeddings-inference/
        Dialect("tei", "/rerank", "logit", 32, CUT_OR_REFUSE, is_list=True),
        # https://docs.cohere.com/reference/rerank; above 1,000 documents it refuses.
        Dialect("cohere", "/v2/rerank", "probability", 1000, needs_model=True),
        # https://api.jina.ai/redoc, and the same JSON with a model whose scores are logits: vLLM, LocalAI.
        Dialect("jina", "/v1/rerank", "probability", 256, needs_model=True),
        Dialect("jina-logits", "/v1/rerank", "logit", 256, needs_model=True),
        # llama.cpp, tools/server/README.md. /v1/reranking is the same there as /v1/rerank, which elsewhere is
        # Cohere's and Jina's. It always refuses what is too long.
        Dialect("llama-server", "/v1/reranking", "logit", 32, CUT_OR_REFUSE),
        # https://github.com/huggingface/huggingface.js/pull/2496
        Dialect(
            "huggingface",
            "/models/{model}/pipeline/text-ranking",
            "probability",
            is_list=True,
            model="BAAI/bge-reranker-v2-m3",
        ),
    )
}
EMBED = {
    dialect.name: dialect
    for dialect in (
        Dialect("ggrank", "/v1/embeddings", "cosine", 256, CUT_OR_REFUSE),
        Dialect("tei", "/embed", "cosine", 32, CUT_OR_REFUSE, is_list=True),
        # https://platform.openai.com/docs/api-reference/embeddings; Jina's and Cohere's are alike.
        Dialect("openai", "/v1/embeddings", "cosine", 256, needs_model=True),
        Dialect("llama-server", "/v1/embeddings", "cosine", 32, CUT_OR_REFUSE),
        # huggingface_hub's InferenceClient.feature_extraction
        Dialect(
            "huggingface",
            "/models/{model}/pipeline/feature-extraction",
            "cosine",
            truncate=CUT_OR_REFUSE,
            is_list=True,
            needs_model=True,
        ),
    )
}
DIALECTS = {Mode.RERANK: RERANK, Mode.EMBEDDING: EMBED}


def rerank_body(dialect: Dialect, query: str, texts: list[str], truncate: Truncate) -> dict[str, object]:
    """The JSON that asks for scores."""
    if dialect.name == "tei":
        return {"query": query, "texts": texts, "raw_scores": True, "truncate": truncate == "end"}
    if dialect.name == "huggingface":
        return {"inputs": {"query": query, "texts": texts}}
    body = {**_model(dialect), "query": query, "documents": texts}
    if dialect.name == "ggrank":
        body |= {"raw_scores": True, "truncate": truncate}
    return body if dialect.name in ("cohere", "llama-server") else {**body, "return_documents": False}


def embed_body(
    dialect: Dialect, texts: list[str], *, normalize: bool, truncate: Truncate
) -> dict[str, object]:
    """The JSON that asks for vectors."""
    if dialect.name in ("tei", "huggingface"):
        return {"inputs": texts, "normalize": normalize, "truncate": truncate == "end"}
    body = {**_model(dialect), "input": texts}
    if dialect.name == "llama-server":
        return {**body, "embd_normalize": 2 if normalize else -1}
    # base64 of float32, as openai-python asks for it: exact, and a third of the size of decimal digits.
    body["encoding_format"] = "base64"
    return body if dialect.name == "openai" else {**body, "normalize": normalize, "truncate": truncate}


def _model(dialect: Dialect) -> dict[str, object]:
    return {"model": dialect.model} if dialect.model else {}


def read_answer(answer: object, n: int, dialect: Dialect) -> Results:
    """The scores or vectors of ``n`` texts; checked, since a wrong one would go unnoticed later.

    Raises:
        RemoteError: one is missing, there twice, of no text that was sent, no finite number, or not on the
            dialect's scale.

    Example:
        >>> answer = [{"index": 1, "score": 2.5}, {"index": 0, "score": -1}]
        >>> read_answer(answer, 2, RERANK["tei"]).values.tolist()
        [-1.0, 2.5]
    """
    if dialect.scale == "cosine":
        results = _results(answer, n, "" if dialect.is_list else "data", "vector", "text")
        rows: list[Any] = [_vector(one.get("embedding"), i) for i, one in enumerate(results)]
        check_widths([len(row) for row in rows])
    else:
        results = _results(answer, n, "" if dialect.is_list else "results", "score", "document")
        field = "score" if dialect.is_list else "relevance_score"
        rows = [_number(one.get(field), i) for i, one in enumerate(results)]
    values = np.array(rows, np.float32)
    if dialect.scale == "probability":
        _check_probabilities(values, dialect.name)
    return Results(values, [one.get("truncated") is True for one in results], _n_tokens(answer))


def _results(answer: object, n: int, field: str, what: str, subject: str) -> list[dict[str, object]]:
    """One object for each position from 0 to ``n``, in order."""
    found = answer.get(field) if field and isinstance(answer, dict) else answer
    if not isinstance(found, list):
        where = f" under {field!r}" if field else ""
        raise RemoteError(
            f"the server's answer should hold a list{where}: check dialect. The server sent {answer!r}"
        )
    if not field and what == "vector":
        found = [{"index": i, "embedding": vector} for i, vector in enumerate(found)]
    positions: list[Any] = [item.get("index") if isinstance(item, dict) else None for item in found]
    if any(type(position) is not int for position in positions) or sorted(positions) != list(range(n)):
        raise RemoteError(
            f"the server should give one {what} for each of {n} {subject}s, but gave them for positions "
            f"{positions}"
        )
    return sorted(found, key=lambda item: int(item["index"]))


def _number(value: object, i: int) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _FLOAT32_MAX:
        raise RemoteError(
            f"the score of document {i} should be a finite number, but the server sent {value!r}"
        )
    return float(value)


def _vector(value: object, i: int) -> NDArray[np.float32]:
    """Shape (n_embd,), from a list of numbers or the base64 of little-endian float32."""
    expected = f"the vector of text {i} should be a list of finite numbers or base64 of float32"
    try:
        packed = base64.b64decode(value, validate=True) if isinstance(value, str) else None
        vector = np.array(value) if packed is None else np.frombuffer(packed, "<f4")
    except ValueError:
        raise RemoteError(f"{expected}, but the server sent something else") from None
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "iuf":
        raise RemoteError(f"{expected}, but the server sent {value!r}")
    if not np.all(np.abs(vector) <= _FLOAT32_MAX):
        raise RemoteError(f"{expected}, but the server sent numbers that are not finite")
    return vector.astype(np.float32)


def check_widths(widths: Sequence[int]) -> None:
    """Raises RemoteError for vectors of different widths."""
    if len(set(widths)) > 1:
        found = " and ".join(map(str, sorted(set(widths))))
        raise RemoteError(f"the server gave vectors of {found} numbers: does more than one model answer?")


def _check_probabilities(values: NDArray[np.float32], dialect: str) -> None:
    """Scores from -1 to 0 are let through: listwise models give cosines."""
    wrong = np.flatnonzero(np.abs(values) > _LARGEST_PROBABILITY)
    if wrong.size:
        raise RemoteError(
            f"dialect {dialect!r} is for scores of 0 to 1, but the server gave document {wrong[0]} the score "
            f"{values[wrong[0]]:g}. If its scores are logits, name the dialect for them: 'llama-server' for "
            "llama.cpp's own server, 'jina-logits' for others that have /v1/rerank"
        )


def _n_tokens(answer: object) -> int:
    """Tokens that the server counted: in ``usage`` (OpenAI, Jina) or ``meta.tokens`` (Cohere); else 0."""
    for names in (("usage", "total_tokens"), ("meta", "tokens", "input_tokens")):
        found = answer
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, (int, float)) and not isinstance(found, bool) and isfinite(found) and found > 0:
            return int(found)
    return 0


def find_dialect(
    connection: Connection, name: str, mode: Mode, *, model: str | None, path: str | None
) -> Dialect:
    """The dialect of a server, with the URL, model, scale and batch size that hold for this one.

    "auto" is decided by the host's name, else by two questions to the server.

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
        raise InputError(f"dialect {found.name!r} needs the model's name at the service: give model")
    found = replace(found, model=model or found.model)
    filled = (path or found.path).replace("{model}", quote(found.model, safe="/"))
    if path:
        return replace(found, url=f"{connection.base_url}/{filled.lstrip('/')}")
    is_bare = connection.host == _HUGGING_FACE_HOST and "/hf-inference" not in connection.base_url
    return replace(found, url=connection.url(f"/hf-inference{filled}" if is_bare else filled))


def _ask(connection: Connection, name: str, mode: Mode, model: str | None) -> Dialect:
    """Asks for OpenAI's list of models, then for TEI's description of itself."""
    from ggrank.remote.connection import endpoint_hint

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
    why = "neither /v1/models nor /info says it"
    if models:
        why = "it has OpenAI's /v1/models, but does not say how it reranks (most such servers speak 'jina')"
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
    """TEI's dialect with the number of texts that this server takes at once."""
    types = info.get("model_type")
    job = next(iter(types), "") if isinstance(types, dict) else ""
    if job == ("embedding" if mode is Mode.RERANK else "reranker"):
        other = "RemoteEmbedder" if mode is Mode.RERANK else "RemoteReranker"
        raise ModelModeError(
            f"{info['model_id']} is served as {job}: use {other}, or start a server with another model"
        )
    most = info["max_client_batch_size"]
    return replace(dialect, batch_size=most) if isinstance(most, int) and most > 0 else dialect
