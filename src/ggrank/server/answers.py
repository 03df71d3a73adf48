"""Errors as HTTP answers: which status each has, and the body in the words of the dialect that was spoken.

Knows statuses; never the texts of a request, which no answer to an error repeats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import Scope

from ggrank.errors import GgrankError, InputError, ModelModeError
from ggrank.inputs import check_text
from ggrank.server.dialects import error_shape, field_of
from ggrank.server.dialects.errors import ErrorShape
from ggrank.server.errors import NotReadyError, OverloadedError, TooLargeError

LOADING_SECONDS = 2
"""When to ask again while models are loaded."""

BODY = "ggrank.body"
"""Where a request's scope holds the bytes of its body, once they are read."""


def answer(
    scope: Scope,
    status: int,
    message: str,
    *,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error of that status, worded as the request's dialect words it."""
    # What a client sent as a field's name may hold what UTF-8 cannot.
    field = field and check_text(field, "field")
    return JSONResponse(_shape(scope).body(status, check_text(message, "message"), field), status, headers)


def bad_input(scope: Scope, message: str, *, field: str | None = None) -> JSONResponse:
    """A request that cannot be used: 400 or 422, as the dialect has it."""
    return answer(scope, _shape(scope).bad_input, message, field=field)


def answer_to(scope: Scope, error: GgrankError) -> JSONResponse:
    """The answer to one of ggrank's own errors."""
    if isinstance(error, TooLargeError):
        return answer(scope, 413, str(error))
    if isinstance(error, (InputError, ModelModeError)):
        return bad_input(scope, str(error))
    if isinstance(error, OverloadedError):
        return answer(scope, 429, str(error), headers={"Retry-After": str(error.retry_after)})
    again = {"Retry-After": str(LOADING_SECONDS)} if isinstance(error, NotReadyError) else None
    return answer(scope, 503, str(error), headers=again)


def answer_to_validation(scope: Scope, errors: Sequence[Any]) -> JSONResponse:
    """The answer to a body that pydantic refused: its first complaint, without the value."""
    first = errors[0]
    if first["type"] == "json_invalid":
        where, why = first["loc"][-1], first.get("ctx", {}).get("error", "")
        return bad_input(scope, f"the body is not JSON: {why} at character {where}", field="body")
    if scope.get(BODY) and not _is_json(scope):
        return bad_input(scope, "send the body with the header Content-Type: application/json", field="body")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    field = (field_of(first["loc"]) or "body")[:100]
    return bad_input(scope, f"{first['msg']}{more}", field=field)


def _is_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _shape(scope: Scope) -> ErrorShape:
    try:
        body = json.loads(scope.get(BODY) or b"null")
    except (ValueError, RecursionError):
        body = None
    return error_shape(scope["path"], body)
