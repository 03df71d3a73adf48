"""How a dialect words an error: the status of a request that cannot be used, and the body.

Knows statuses and words; not what went wrong, and never the texts of a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

MOST_DIGITS = 20
"""A longer number is not repeated."""

_WORD = re.compile(r"[A-Za-z0-9_.-]{1,20}")

_KINDS: dict[type, str] = {str: "a string", list: "a list", dict: "an object"}

ErrorBody = Callable[[int, str, "str | None"], dict[str, Any]]
"""``(status, message, field) -> body``; ``field`` is the part of the request that is wrong, if one is."""

_DOCUMENTED = (
    (413, "More bytes, documents or tokens than the server takes; the message says the limit."),
    (429, "The queue is full; `Retry-After` says when to ask again."),
    (
        503,
        "The models are not ready, or the request was not done in time: `Retry-After` says when to ask "
        "again. Or the engine failed.",
    ),
)


@dataclass(frozen=True)
class ErrorShape:
    """How one dialect answers what it cannot do.

    Attributes:
        bad_input: the status of a request that cannot be used: 400 or 422.
        body: makes the answer's body.
    """

    bad_input: int
    body: ErrorBody

    def documented(self) -> dict[int | str, dict[str, Any]]:
        """The errors as OpenAPI shows them, for a route's ``responses``.

        Example:
            >>> shape = ErrorShape(400, lambda status, message, field: {"message": named(message, field)})
            >>> sorted(shape.documented())
            [400, 413, 429, 503]
        """
        bad_input = (self.bad_input, "A request that cannot be used; the message names the field.")
        return {
            status: {
                "description": meaning,
                "content": {"application/json": {"example": self.body(status, "what is wrong", None)}},
            }
            for status, meaning in (bad_input, *_DOCUMENTED)
        }


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
    """As `found`, for a field that takes one of a few words: a short word, which is no text, is shown.

    Example:
        >>> found_word("int8"), found_word("What is Deep Learning?"), found_word(5)
        ("'int8'", 'a string', '5')
    """
    return repr(value) if isinstance(value, str) and _WORD.fullmatch(value) else found(value)


def named(message: str, field: str | None) -> str:
    """The message with the field before it, unless it begins with it.

    Example:
        >>> named("must be a string", "query"), named("query must be a string", "query")
        ('query: must be a string', 'query must be a string')
    """
    return message if field is None or message.startswith(field) else f"{field}: {message}"
