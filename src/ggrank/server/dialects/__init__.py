"""The dialects: one file each with its paths, its requests and answers, and how it words an error.

Knows which file answers which path; the files know the fields, and the service knows the models.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from ggrank.server.dialects import cohere, jina, llama_server, openai, plain, tei, tokens
from ggrank.server.dialects.errors import ErrorShape
from ggrank.server.dialects.options import AS_OTHERS, AS_TEI

ROUTERS: tuple[APIRouter, ...] = (
    plain.router,
    jina.router,
    cohere.router,
    llama_server.router,
    tei.router,
    openai.router,
    tokens.router,
)

_SHAPES = {
    "/rerank": llama_server.ERRORS,
    "/reranking": llama_server.ERRORS,
    "/v1/reranking": llama_server.ERRORS,
    "/tokenize": llama_server.ERRORS,
    "/detokenize": llama_server.ERRORS,
    "/v1/rerank": jina.ERRORS,
    "/v2/rerank": cohere.ERRORS,
    "/v2/embed": cohere.ERRORS,
    "/v1/embed": cohere.ERRORS,
    "/embed": tei.ERRORS,
    "/": tei.ERRORS,
    "/embedding": llama_server.ERRORS,
    "/info": tei.ERRORS,
    "/decode": tei.ERRORS,
}
_TEI_FIELDS = {"/rerank": "texts", "/reranking": "texts", "/v1/reranking": "texts", "/v1/rerank": "texts"}
_TEI_FIELDS |= {"/tokenize": "inputs", "/detokenize": "ids"}


def error_shape(path: str, body: object = None) -> ErrorShape:
    """How an error on ``path`` is answered: as OpenAI does, unless the path is another dialect's.

    Args:
        body: the request's, where it could be read: on shared paths its fields tell the dialect.

    Example:
        >>> error_shape("/rerank", {"texts": []}).body(422, "must not be empty", "texts")
        {'error': 'texts: must not be empty', 'error_type': 'Validation'}
        >>> error_shape("/v2/rerank").bad_input
        400
    """
    if isinstance(body, dict) and _TEI_FIELDS.get(path) in body:
        return tei.ERRORS
    return _SHAPES.get(path, openai.ERRORS)


def field_of(location: Sequence[str | int]) -> str | None:
    """The request's field that a validation error is about, as a caller wrote it.

    Shared paths put the dialect's tag between ``body`` and the field; nobody sent that.

    Example:
        >>> field_of(("body", AS_TEI, "texts", 3)), field_of(("body", "query")), field_of(("body", 7))
        ('texts.3', 'query', None)
    """
    parts = [part for part in location[1:] if part not in (AS_TEI, AS_OTHERS)]
    if not parts or isinstance(parts[0], int):  # a position in bytes where the JSON breaks off
        return None
    return ".".join(map(str, parts))
