"""What only a server can say to a caller: too much at once, too large, not ready.

Knows messages; no HTTP. `ggrank.server.answers` says which status each has.
"""

from __future__ import annotations

from ggrank.errors import EngineError, GgrankError, InputError


class OverloadedError(GgrankError):
    """As many requests or tokens as may wait are waiting; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooLargeError(InputError):
    """A request has more bytes, documents or tokens than a request may have."""


class NotReadyError(EngineError):
    """The models are still being loaded, or the server is stopping."""


class TooLongError(EngineError):
    """A request was not done in the time that a request may take; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after
