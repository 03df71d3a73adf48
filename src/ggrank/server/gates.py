"""What a request passes before a route: a proxy's prefix, the Host header, the API key."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from starlette._utils import get_route_path  # the router's own: a gate must see the path that is routed
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ggrank.server.errors import answer

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""What needs no key: the pages hold nothing of this server's, a browser that opens one sends no key, and
what watches over the process has none."""

OPEN_FOLDERS = ("/docs-assets/", "/page/")
"""The scripts and styles of the pages."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def is_open(scope: Scope) -> bool:
    """Whether a request needs no key."""
    path = get_route_path(scope)
    is_page = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
    return is_page and scope["method"] in ("GET", "HEAD")  # POST / computes


class PrefixGate:
    """``X-Forwarded-Prefix`` is the path below which a proxy shows this server; ``/docs`` must know it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            prefix = Headers(scope=scope).get("x-forwarded-prefix", "").rstrip("/")
            if _PREFIX.fullmatch(prefix):
                path = scope["path"] if scope["path"].startswith(f"{prefix}/") else prefix + scope["path"]
                scope = {**scope, "root_path": prefix, "path": path}
        await self._app(scope, receive, send)


class HostGate:
    """Answers 403 where the Host header names another machine than this one.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its browser then takes this server for
    the page's own, and gives the page every answer. Addresses and localhost cannot be pointed elsewhere.
    Starlette's `TrustedHostMiddleware` knows neither all addresses nor our error.
    """

    def __init__(self, app: ASGIApp, *, allowed: Sequence[str]) -> None:
        self._app = app
        self._allowed = {"localhost", *(name.lower() for name in allowed)}

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
        if name in self._allowed or name.endswith(".localhost"):
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
        if scope["type"] != "http" or is_open(scope) or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        message = "the key is missing or wrong; send it as 'Authorization: Bearer KEY'"
        refusal = answer(scope, 401, message, headers={"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    def _is_let_in(self, scope: Scope) -> bool:
        found = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = found.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._expected)
