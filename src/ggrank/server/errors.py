"""Everything that is answered instead of a result: which status it has, and its words in each dialect.

No answer to an error repeats a text of the request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import Scope

from ggrank.errors import GgrankError, InputError, InputTooLongError, ModelModeError

SPEAKS_TEI = "ggrank.speaks_tei"
"""Where a request's scope holds whether its body has the fields of text-embeddings-inference."""

TEI_SHARES = frozenset({"/rerank", "/reranking", "/v1/rerank", "/v1/reranking"})
"""Paths on which a request of text-embeddings-inference is known by its field ``texts``."""

GONE = 499
"""The status in numbers and log of a request whose caller went away; nginx has it so."""

MOST_DIGITS = 20
"""A longer number is not repeated."""

_TEI_PATHS = frozenset({"/", "/embed", "/info"})
_TEI_TYPES = {413: "Validation", 422: "Validation", 429: "Overloaded", 503: "Unhealthy"}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}

_EXPECTED = {
    "string_type": "a string",
    "string_too_long": "at most {max_length} characters",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "finite_number"), "a finite number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    "list_type": "a list",
    **dict.fromkeys(("model_type", "dict_type"), "a JSON object"),
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} at most",
}
"""What a field must be, by the type of pydantic's complaint."""

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,20}")
_KINDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}


class RefusedError(GgrankError):
    """A request that is not answered as it asked.

    Attributes:
        status: HTTP's; None is a request that cannot be used, for which each dialect has its own: 400 or 422.
        field: the part of the request that is wrong, as its caller wrote it, if one is.
        retry_after: when to ask again, in seconds, if that helps.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.field, self.retry_after = status, field, retry_after


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Says which field of the request holds the texts or token ids that a model refuses."""
    try:
        yield
    except InputTooLongError as error:
        # Its advice is for a program that loads a model, which no caller of a server does.
        advice = 'Shorten it, send "truncate": true to have it cut, or start the server with a larger n_ctx'
        field = "query" if error.is_query else field
        raise RefusedError(f"{field}: {error.facts}. {advice}", field=field) from error
    except InputError as error:
        raise RefusedError(f"{field}: {error}", field=field) from error


def answer_to(scope: Scope, error: GgrankError) -> JSONResponse:
    """One of ggrank's errors, as the dialect of the request words it."""
    if isinstance(error, RefusedError):
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return answer(scope, error.status, str(error), field=error.field, headers=headers)
    is_input = isinstance(error, (InputError, ModelModeError))
    return answer(scope, None if is_input else 503, str(error))


def answer(
    scope: Scope,
    status: int | None,
    message: str,
    *,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as the dialect of the request words it; ``status`` None is a request that cannot be used."""
    speaks_tei = scope.get(SPEAKS_TEI, route_of(scope) in _TEI_PATHS)
    status = status or (422 if speaks_tei else 400)
    body = tei_body(status, message) if speaks_tei else error_body(status, message, field)
    return JSONResponse(body, status, headers)


def route_of(scope: Scope) -> str:
    """The path as its route has it; of a path that has none, itself."""
    return str(getattr(scope.get("route"), "path", scope["path"]))


def error_body(status: int, message: str, field: str | None) -> dict[str, Any]:
    """``error`` for clients of OpenAI, vLLM and llama-server, ``message`` for Cohere, ``detail`` for Jina."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    code = "model_not_found" if (status, field) == (404, "model") else _CODES.get(status)
    error = {"message": message, "type": kind, "param": field and field.partition(".")[0], "code": code}
    return {"error": error, "message": message, "detail": message}


def tei_body(status: int, message: str) -> dict[str, Any]:
    """What clients of text-embeddings-inference read."""
    return {"error": message, "error_type": _TEI_TYPES.get(status, "Backend")}


def documented(*, tei: bool = False) -> dict[int | str, dict[str, Any]]:
    """The errors as OpenAPI shows them, for a route's ``responses``."""
    example = tei_body(422, "what is wrong") if tei else error_body(400, "what is wrong", "query")
    content = {"application/json": {"example": example}}
    meanings = {
        422 if tei else 400: "A request that cannot be used; the message names the field.",
        413: "More bytes, documents or tokens than the server takes; the message says the limit.",
        429: "The queue is full; `Retry-After` says when to ask again.",
        503: "The models are not ready, the request was not done in time, or the engine failed.",
    }
    return {status: {"description": meaning, "content": content} for status, meaning in meanings.items()}


def refused_fields(errors: Sequence[Any]) -> RefusedError:
    """What pydantic complained about: all fields that are missing, else its first complaint."""
    missing = [_field_of(error) for error in errors if error["type"] == "missing"]
    field = missing[0] if missing else _field_of(errors[0])
    n_more = len(errors) - max(1, len(missing))
    more = f" (and {n_more} more)" if n_more else ""
    if errors[0]["type"] == "too_many":
        return RefusedError(f"{field}: {errors[0]['msg']}", status=413, field=field)
    if len(missing) > 1:
        names = f"{', '.join(missing[:-1])} and {missing[-1]}"
        return RefusedError(f"{names} are missing; send them as /docs describes{more}", field=field)
    if missing:
        return RefusedError(f"{field}: missing; send it as /docs describes{more}", field=field)
    return RefusedError(f"{field}: {_wrong(errors[0])}{more}; /docs describes every field", field=field)


def _field_of(error: Mapping[str, Any]) -> str:
    """The field as a caller wrote it; what has a space is the tag of a dialect."""
    return ".".join(str(part) for part in error["loc"] if " " not in str(part)) or "body"


def _wrong(error: Mapping[str, Any]) -> str:
    """One complaint in our words; those of the fields' own checks are ours already."""
    expected = _EXPECTED.get(error["type"])
    if expected is None:
        return str(error["msg"])
    shown = found_word if error["type"] == "literal_error" else found
    return f"must be {expected.format(**error.get('ctx', {}))}, found {shown(error['input'])}"


def found(value: object) -> str:
    """What a caller sent, in JSON's words; of texts, and of what is long, only the kind.

    Example:
        >>> found("a text"), found([]), found(None), found(0)
        ('a string', 'an empty list', 'null', '0')
    """
    if value is None or isinstance(value, (bool, int, float)):
        written = json.dumps(value)
        return written if len(written) <= MOST_DIGITS else "a number"
    kind = _KINDS.get(type(value), "another value")
    return kind if value else f"an empty {kind.split()[-1]}"


def found_word(value: object) -> str:
    """As `found`, for a field that takes one of a few words: a short word, which is no text, is shown."""
    return repr(value) if isinstance(value, str) and _WORD.fullmatch(value) else found(value)
