"""`ServerSettings`: where the server listens, who may ask, and how much; docs/server.md has the same."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ggrank.errors import InputError

MEBIBYTE = 2**20

KEY_VARIABLE = "GGRANK_API_KEY"


@dataclass(frozen=True)
class ServerSettings:
    """What `ggrank serve` is started with.

    Attributes:
        host: the address to listen on; by default only this machine can reach it.
        port: 0 lets the system choose one.
        api_key: what a caller must send as ``Authorization: Bearer``; None: callers need none.
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
        keep_alive: seconds for which an idle connection stays open.
        idle_unload: minutes without a request after which a model is unloaded; None: never.
        cors_origins: web origins whose pages may ask; ``*`` is all of them. None by default.
        allowed_hosts: names by which callers may know a server on loopback without a key, beside localhost
            and addresses; that of a proxy which passes the caller's Host header on.
        index: a folder that `ggrank index` made, for ``POST /search``. Its texts are private: an address that
            other machines reach, or origins ``*``, then need an API key.
        strict_models: refuse a model's name that is not served, instead of taking the default model.

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
    keep_alive: int = 75
    idle_unload: float | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    index: Path | None = None
    strict_models: bool = False

    def __post_init__(self) -> None:
        if self.index is not None and self.api_key is None:
            _check_private(self)
        for origin in self.cors_origins:
            _check_origin(origin, has_key=self.api_key is not None)
        if self.api_key is not None:
            object.__setattr__(self, "api_key", checked_key(self.api_key))

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine reaches the address."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def find_key(given: str | None, file: Path | None) -> str | None:
    """The key of a file, else the one that was given, else the environment's; None: there is none.

    Raises:
        InputError: the key cannot be used. An empty one is an error too: it was meant to keep others out.
    """
    if file is None:
        # click takes an empty variable for none
        key = os.environ.get(KEY_VARIABLE) if given is None else given
        return None if key is None else checked_key(key)
    try:
        line = file.read_text("utf-8-sig").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the API key cannot be read ({error})") from error
    return checked_key(line, f"{file}: its first line, the API key,")


def checked_key(key: str, name: str = "the API key") -> str:
    """The key without the spaces around it, which no header keeps.

    Raises:
        InputError: empty; not UTF-8; characters that no header can hold.
    """
    key = key.strip()
    if not key:
        raise InputError(f"{name} is empty, so no caller could send it; leave it out to let everybody in")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not UTF-8; make one of letters and digits") from None
    if not key.isprintable():
        raise InputError(f"{name} holds a line break or another control character; no header can")
    return key


def _check_private(settings: ServerSettings) -> None:
    """Raises InputError where others than the users of this machine could search the index."""
    key = "set --api-key-file FILE or GGRANK_API_KEY"
    if not settings.is_on_loopback:
        raise InputError(
            f"--index lets everybody who reaches {settings.host} read your files: {key}, or leave out --host"
        )
    if "*" in settings.cors_origins:
        raise InputError(f"--index with --cors '*' lets every web page read your files: {key}, or name pages")


def _check_origin(origin: str, *, has_key: bool) -> None:
    """Raises InputError for an origin that no browser sends, or that every page can send.

    Source: https://html.spec.whatwg.org/multipage/browsers.html#origin
    """
    if origin == "null" and not has_key:
        raise InputError("--cors null lets every page in a sandboxed frame ask: it needs an API key")
    if origin in ("*", "null"):
        return
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    is_origin = parts.scheme and parts.hostname and origin == f"{parts.scheme}://{parts.netloc}"
    if not is_origin or "*" in origin:
        raise InputError(
            "a CORS origin must be *, null, or a scheme and a host such as https://example.com, "
            f"tauri://localhost or chrome-extension://ID; found {origin!r}"
        )
    if origin != origin.lower():
        raise InputError(f"browsers send an origin in lower case: {origin.lower()!r}, not {origin!r}")
    if port is not None and port == {"http": 80, "https": 443}.get(parts.scheme):
        usual = origin.removesuffix(f":{port}")
        raise InputError(f"browsers leave the usual port out: {usual!r}, not {origin!r}")
