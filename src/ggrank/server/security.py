"""Who may ask, and how much at once: the API key, the size of a body, callers that have gone.

Knows headers and bytes; neither what a body means nor models. Plain ASGI, outside of FastAPI, so that nothing
is read or parsed for a caller that may not ask.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ggrank.server.answers import BODY, answer

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""What needs no key: the pages hold nothing of this server's, a browser that opens one sends no key, and
whoever watches over the process has none."""

OPEN_FOLDER = "/docs-assets/"
"""The scripts and styles of ``/docs``."""

DRAIN_SECONDS = 5.0
"""How long the rest of a body that is too large is still read, so that its sender sees the answer."""


class HostGate:
    """Answers 403 where the Host header names another machine than this one.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its browser then takes this server for
    the page's own, and tells the page every answer. Addresses and localhost cannot be pointed elsewhere.
    """

    def __init__(self, app: ASGIApp, *, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = {name.lower() for name in allowed}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else "localhost"
        if self._is_ours(host):
            await self._app(scope, receive, send)
            return
        message = (
            f"the Host header names {host[:100]!r}, and this server is there for localhost; start it with "
            "--allowed-host NAME where a proxy passes that name on, or with an API key"
        )
        await answer(scope, 403, message)(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name.endswith(".localhost") or name in self._allowed:
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False


class ApiKeyGate:
    """Answers 401 unless the request brings the key as ``Authorization: Bearer``."""

    def __init__(self, app: ASGIApp, *, api_key: str) -> None:
        self._app = app
        self._expected = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or _is_open(scope["path"]) or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        message = "the key is missing or wrong; send it as 'Authorization: Bearer KEY'"
        refusal = answer(scope, 401, message, headers={"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        found = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = found.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._expected)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


class BodyGate:
    """Reads a request's body, refuses one that is too large (413) or does not come (408), and ends the work
    for a caller that has gone.

    The body is read before the route runs, so that from then on the connection can tell of its end.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout: float) -> None:
        self._app = app
        self._max_bytes, self._timeout = max_bytes, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        is_too_large, has_more = _is_number(length) and int(length[:20]) > self._max_bytes, True
        try:
            if not is_too_large:
                has_more = await asyncio.wait_for(self._read(receive, body), self._timeout)
        except (TimeoutError, asyncio.TimeoutError):
            message = f"the body was not there after {self._timeout:g} s"
            await answer(scope, 408, message)(scope, receive, send)
            return
        except ConnectionResetError:
            return
        if not is_too_large and len(body) <= self._max_bytes:
            scope[BODY] = bytes(body)
            await self._run(scope, receive, send)
            return
        body.clear()
        if has_more and "expect" not in headers:  # Who expects leave to send gets the answer instead.
            await _drain(receive)
        await self._refuse(scope, receive, send)

    async def _read(self, receive: Receive, body: bytearray) -> bool:
        """Reads until the end, or until it is too large; whether there is more."""
        has_more = True
        while has_more and len(body) <= self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        return has_more

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = (
            f"the body has more than {self._max_bytes:,} bytes; send less at once, or start the server with "
            "a larger --max-bytes"
        )
        await answer(scope, 413, message)(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.Event()
        unread = [scope[BODY]]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            work.cancel()

        work = asyncio.ensure_future(self._app(scope, replay, send))
        watcher = asyncio.ensure_future(watch())
        try:
            await work
        except asyncio.CancelledError:
            work.cancel()
            if not gone.is_set():
                raise
        finally:
            watcher.cancel()


def _is_number(length: str) -> bool:
    return length.isascii() and length.isdigit()


async def _drain(receive: Receive) -> None:
    async def read() -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return

    with suppress(TimeoutError, asyncio.TimeoutError):
        await asyncio.wait_for(read(), DRAIN_SECONDS)
