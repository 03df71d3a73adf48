"""`ServerSettings`: where the server listens, who may ask, and how much.

Knows numbers and words; no models, no HTTP. Every default is described here and in docs/server.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from ggrank.errors import InputError

MEBIBYTE = 2**20


@dataclass(frozen=True)
class ServerSettings:
    """What `ggrank serve` is started with.

    Attributes:
        host: the address to listen on; by default only this machine can reach it.
        port: 0 lets the system choose one.
        api_key: what a caller must send as ``Authorization: Bearer``; None: nobody is asked.
        max_bytes: of a request's body; more is answered with 413.
        max_documents: documents or texts of one request; more is answered with 413. OpenAI's limit.
        max_tokens: tokens computed for one request; more is answered with 413. As many as
            ``max_documents`` of 512 tokens have.
        max_queue: requests at work or waiting; one more is answered with 429.
        max_queue_tokens: tokens waiting for one model; while there are more, a new request is answered
            with 429.
        timeout: seconds that one request may take, reading its body included; then it is answered with
            503, or 408 where the body was not there.
        health_timeout: seconds after which a micro-batch that is still running counts as hanging.
        cors_origins: web origins whose pages may ask; ``*`` is all of them. None by default.

    Example:
        >>> ServerSettings().port, "secret" in repr(ServerSettings(api_key="secret"))
        (8080, False)
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = field(default=None, repr=False)
    max_bytes: int = 16 * MEBIBYTE
    max_documents: int = 2048
    max_tokens: int = MEBIBYTE
    max_queue: int = 128
    max_queue_tokens: int = MEBIBYTE
    timeout: float = 300.0
    health_timeout: float = 120.0
    cors_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.cors_origins:
            parts = urlsplit(origin)
            has_more = parts.path or parts.query or parts.fragment
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or has_more):
                raise InputError(
                    "a CORS origin must be *, or a scheme and a host such as https://example.com, found "
                    f"{origin!r}"
                )
