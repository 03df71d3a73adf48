"""What only a server can say to a caller: too much at once, too large, not ready.

Knows messages; no HTTP. `ggrank.server.answers` says which status each has.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ggrank.errors import EngineError, GgrankError, InputError, InputTooLongError


class OverloadedError(GgrankError):
    """As many requests or tokens as may wait are waiting; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FieldError(InputError):
    """A field of a request that cannot be used; ``field`` is its name as the caller wrote it."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class TooLargeError(InputError):
    """A request has more bytes, documents or tokens than it may; ``field`` has them, where one does."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class NotReadyError(EngineError):
    """The models are still being loaded, or the server is stopping."""


class TooLongError(EngineError):
    """A request was not done in the time that a request may take; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Says in which field of a request is wrong what a model says of its texts or token ids."""
    try:
        yield
    except TooLargeError:
        raise
    except InputError as error:
        told = _advised(error) if isinstance(error, InputTooLongError) else str(error)
        raise FieldError(told, field="query" if told.startswith("the query") else name) from error


def _advised(error: InputTooLongError) -> str:
    """Its facts; what it advises is for whoever loads a model, which no caller of a server does."""
    facts = str(error).partition("Shorten it")[0]
    return (
        f'{facts}Shorten it, send "truncate": true to have it cut, or start the server with a larger --n-ctx'
    )
