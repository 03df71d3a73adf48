"""Which dialect a server speaks and which model it has: from what it says of itself, or from its address.

Knows the marks that tell servers apart; not how they are asked for scores (`ggrank.remote.dialects`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from ggrank.errors import InputError, ModelModeError, RemoteError
from ggrank.remote.connection import Connection
from ggrank.remote.dialects import (
    BGE_RERANKERS,
    EMBED,
    RERANK,
    EmbedDialect,
    RerankDialect,
    model_path,
)
from ggrank.remote.refusals import endpoint_hint
from ggrank.types import Mode, Scale

_HUGGING_FACE_HOST = "router.huggingface.co"
_RERANK_HOSTS = {
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.jina.ai": "jina",
    _HUGGING_FACE_HOST: "huggingface",
}
_EMBED_HOSTS = {
    "api.openai.com": "openai",
    "api.cohere.com": "openai",
    "api.cohere.ai": "openai",
    "api.jina.ai": "openai",
    _HUGGING_FACE_HOST: "huggingface",
}
_OWNERS = {"ggrank": "ggrank", "llamacpp": "llama-server"}
"""What servers write into ``owned_by`` of ``/v1/models``."""


@dataclass(frozen=True)
class RerankTarget:
    """Whom to ask for scores, and what they will be."""

    dialect: RerankDialect
    path: str
    model: str
    scale: Scale
    batch_size: int


@dataclass(frozen=True)
class EmbedTarget:
    """Whom to ask for vectors."""

    dialect: EmbedDialect
    path: str
    model: str
    batch_size: int


@dataclass(frozen=True)
class _Facts:
    """What a server says of itself; ``kind`` "" where nothing tells it, and ``text`` what it said instead."""

    kind: str = ""
    models: tuple[dict[str, object], ...] = ()
    info: dict[str, object] | None = None
    text: str = ""


def find_reranker(
    connection: Connection, dialect: str, *, model: str | None, batch_size: int | None
) -> RerankTarget:
    """Where and how to ask for scores.

    Raises:
        RemoteError: the server does not say what it is, or cannot be asked.
        ModelModeError: its model makes vectors.
        InputError: it serves no model of that name.
    """
    name, facts = _find(connection, dialect, hosts=_RERANK_HOSTS, known=tuple(RERANK))
    found = RERANK[name]
    _check_mode(facts, Mode.RERANK)
    hosted = name in ("huggingface", "jina", "jina-logits")
    asked = BGE_RERANKERS.get(model, model) if model and hosted else model
    target = RerankTarget(
        dialect=found,
        path=found.path,
        model=asked or found.default_model,
        scale=found.scale,
        batch_size=batch_size or _most_texts(facts) or found.batch_size,
    )
    if name == "ggrank":
        served = _served(facts, model, Mode.RERANK)
        scale = cast(Scale, _meta(served).get("score_scale", found.scale))
        target = replace(target, model=str(served["id"]), scale=scale)
    return replace(target, path=_path(connection, name, target.path, target.model))


def find_embedder(
    connection: Connection, dialect: str, *, model: str | None, batch_size: int | None
) -> EmbedTarget:
    """Where and how to ask for vectors. Raises what `find_reranker` raises."""
    name, facts = _find(connection, dialect, hosts=_EMBED_HOSTS, known=tuple(EMBED))
    found = EMBED[name]
    _check_mode(facts, Mode.EMBEDDING)
    if found.needs_model and not model:
        raise InputError(
            f"dialect {name!r} must be told which model: pass model=, the name that the service has for it"
        )
    asked = str(_served(facts, model, Mode.EMBEDDING)["id"]) if name == "ggrank" else model or ""
    return EmbedTarget(
        dialect=found,
        path=_path(connection, name, found.path, asked),
        model=asked,
        batch_size=batch_size or _most_texts(facts) or found.batch_size,
    )


def _find(
    connection: Connection, dialect: str, *, hosts: dict[str, str], known: tuple[str, ...]
) -> tuple[str, _Facts]:
    """The dialect's name, and what the server said; it is asked only where that is needed."""
    if dialect == "auto":
        dialect = hosts.get(connection.host, "auto")
    if dialect not in ("auto", "ggrank"):
        return dialect, _Facts()
    facts = _ask(connection)
    if dialect == "ggrank" or facts.kind in known:
        return ("ggrank" if dialect == "ggrank" else facts.kind), facts
    names = ", ".join(map(repr, known))
    like = (
        "it has OpenAI's /v1/models, but does not say how it reranks (most such servers: dialect='jina')"
        if facts.kind == "openai"
        else "neither /v1/models nor /info tells it"
    )
    like += f", the answer is only a text: {facts.text.rstrip('.')}" if facts.text else ""
    what_to_do = endpoint_hint(connection.base_url) or f"Check base_url, or name the dialect: one of {names}"
    raise RemoteError(f"{connection.base_url} does not say which dialect it speaks: {like}. {what_to_do}")


def _ask(connection: Connection) -> _Facts:
    """Two questions at most: OpenAI's list of models, then TEI's description of itself.

    Raises:
        RemoteError: as `Connection.look`, whose words say more than that nothing was found.
    """
    listed = connection.look("/v1/models")
    data = listed.get("data") if isinstance(listed, dict) else None
    models = tuple(one for one in data if isinstance(one, dict)) if isinstance(data, list) else ()
    for one in models:
        kind = _OWNERS.get(str(one.get("owned_by")))
        if kind is not None:
            return _Facts(kind, models)
    info = connection.look("/info")
    if isinstance(info, dict) and "model_id" in info and "max_client_batch_size" in info:
        return _Facts("tei", info=info)
    text = next((answer for answer in (listed, info) if isinstance(answer, str)), "")
    return _Facts("openai" if models else "", models, text=text)


def _path(connection: Connection, name: str, path: str, model: str) -> str:
    is_bare = connection.host == _HUGGING_FACE_HOST and "/hf-inference" not in connection.base_url
    return model_path(f"/hf-inference{path}" if name == "huggingface" and is_bare else path, model)


def _most_texts(facts: _Facts) -> int | None:
    """How many texts TEI takes at once."""
    most = (facts.info or {}).get("max_client_batch_size")
    return most if isinstance(most, int) and most > 0 else None


def _check_mode(facts: _Facts, wanted: Mode) -> None:
    """TEI serves one model, and says of which kind. Raises ModelModeError where it is the other kind."""
    kinds = (facts.info or {}).get("model_type")
    kind = next(iter(kinds), "") if isinstance(kinds, dict) else ""
    other = "embedding" if wanted is Mode.RERANK else "reranker"
    if kind == other:
        raise ModelModeError(
            f"{(facts.info or {}).get('model_id')} is served as {kind}, so it cannot "
            f"{'rerank' if wanted is Mode.RERANK else 'embed'}: use "
            f"{'RemoteEmbedder' if wanted is Mode.RERANK else 'RemoteReranker'}, or start a server with a "
            f"{'reranker' if wanted is Mode.RERANK else 'model that embeds'}"
        )


def _served(facts: _Facts, model: str | None, mode: Mode) -> dict[str, object]:
    """The model of that name on a ggrank server, or its first one of that mode."""
    fitting = [one for one in facts.models if _meta(one).get("mode") == mode.value and "id" in one]
    if model is None:
        if fitting:
            return fitting[0]
        option = "--reranker" if mode is Mode.RERANK else "--embedder"
        raise ModelModeError(f"the server has no model for this: start it with {option}")
    short = model.rpartition("/")[2]
    for one in fitting:
        if one["id"] in (model, short):
            return one
    names = ", ".join(repr(one["id"]) for one in fitting) or "none"
    raise InputError(f"the server has no model {model!r} for this; it has {names}. Name one of them, or none")


def _meta(served: dict[str, object]) -> dict[str, object]:
    meta = served.get("meta")
    return meta if isinstance(meta, dict) else {}
