"""Errors as HTTP answers: which status each has, and the body in the words of the dialect that was spoken.

Knows statuses; never the texts of a request, which no answer to an error repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import Scope

from ggrank.errors import GgrankError, InputError, ModelModeError
from ggrank.server.dialects import error_shape, field_of
from ggrank.server.dialects.errors import ErrorShape, found, found_word
from ggrank.server.dialects.options import PARSED
from ggrank.server.errors import FieldError, NotReadyError, OverloadedError, TooLargeError, TooLongError
from ggrank.text.inputs import check_text

LOADING_SECONDS = 2
"""When to ask again while models are loaded."""

_EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_attributes_type": "a JSON object",
    "literal_error": "{expected}",
    "greater_than_equal": "at least {ge}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of {max_length} at most",
}
"""What a field must be, by the type of pydantic's complaint."""

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
        return answer(scope, 413, str(error), field=error.field)
    if isinstance(error, FieldError):
        return bad_input(scope, str(error), field=error.field)
    if isinstance(error, (InputError, ModelModeError)):
        return bad_input(scope, str(error))
    if isinstance(error, OverloadedError):
        return answer(scope, 429, str(error), headers={"Retry-After": str(error.retry_after)})
    again: dict[str, str] = {}
    if isinstance(error, NotReadyError):
        again = {"Retry-After": str(LOADING_SECONDS)}
    if isinstance(error, TooLongError):
        again = {"Retry-After": str(error.retry_after)}
    return answer(scope, 503, str(error), headers=again)


def answer_to_validation(scope: Scope, errors: Sequence[Any]) -> JSONResponse:
    """The answer to a body that pydantic refused: all fields that are missing, else its first complaint."""
    first = errors[0]
    if first["type"] == "json_invalid":
        where, why = first["loc"][-1], first.get("ctx", {}).get("error", "")
        return bad_input(scope, f"not JSON: {why} at character {where}", field="body")
    if scope.get(BODY) and not _is_json(scope):
        return bad_input(scope, "send the body with the header Content-Type: application/json", field="body")
    missing = [field_of(error["loc"]) or "body" for error in errors if error["type"] == "missing"]
    n_more = len(errors) - max(1, len(missing))
    more = f" (and {n_more} more)" if n_more else ""
    if missing:
        return bad_input(scope, f"{_missing(missing)}{more}", field=missing[0])
    told = f"{_wrong(first)}{more}; /docs describes every field"
    return bad_input(scope, told, field=(field_of(first["loc"]) or "body")[:100])


def _missing(fields: Sequence[str]) -> str:
    """What to do about fields that are not there; one alone is named before the message, as always.

    Example:
        >>> _missing(["query", "documents"])
        'query and documents are missing; send them as /docs describes'
    """
    if len(fields) > 1:
        return f"{', '.join(fields[:-1])} and {fields[-1]} are missing; send them as /docs describes"
    if fields[0] == "body":
        return "empty; send a JSON object with the fields that /docs describes"
    return "missing; send it as /docs describes"


def _wrong(error: Mapping[str, Any]) -> str:
    """One complaint in our words; those of a dialect's own checks are ours already."""
    expected = _EXPECTED.get(error["type"])
    if expected is None:
        return str(error["msg"])
    must = expected.format(**error.get("ctx", {}))
    told = found_word if error["type"] == "literal_error" else found
    return f"must be {must}, found {told(error['input'])}"


def _is_json(scope: Scope) -> bool:
    kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def _shape(scope: Scope) -> ErrorShape:
    return error_shape(scope["path"], scope.get(PARSED))
