"""What a request passes before a route: a proxy's prefix, the Host header, the API key."""

from __future__ import annotations

import hmac
import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

from starlette._utils import get_route_path  # the router's own: a gate must see the path that is routed
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ggrank.server.errors import answer
from ggrank.server.settings import ServerSettings

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""What needs no key: the pages hold nothing of this server's, a browser that opens one sends no key, and
what watches over the process has none."""

OPEN_FOLDERS = ("/docs-assets/", "/page/")
"""The scripts and styles of the pages."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class Gate:
    """Answers 401 without the API key; where there is none, 403 to a Host header that names another machine.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its browser then takes this server for
    the page's own, and gives the page every answer. Addresses and localhost cannot be pointed elsewhere, so a
    server on loopback without a key takes no other names. Starlette's `TrustedHostMiddleware` knows neither
    all addresses nor our error.

    ``X-Forwarded-Prefix`` is the path below which a proxy shows this server; ``/docs`` must know it.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app = app
        self._key = settings.api_key and settings.api_key.encode()
        self._checks_host = settings.api_key is None and settings.is_on_loopback
        self._hosts = {"localhost", *(name.lower() for name in settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
            if _PREFIX.fullmatch(prefix):
                path = scope["path"] if scope["path"].startswith(f"{prefix}/") else prefix + scope["path"]
                scope.update(root_path=prefix, path=path)
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if self._checks_host and not self._is_ours(host):
            message = (
                f"the Host header names {host[:100]!r}, and this server is there for localhost; start it "
                "with --allowed-host NAME where a proxy passes that name on, or with an API key"
            )
            return answer(scope, 403, message)
        if self._key and not _is_open(scope) and not self._has_key(headers):
            message = "the key is missing or wrong; send it as 'Authorization: Bearer KEY'"
            return answer(scope, 401, message, headers={"WWW-Authenticate": "Bearer"})
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts or name.endswith(".localhost"):
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return False

    def _has_key(self, headers: Headers) -> bool:
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1")  # the bytes that were sent
        return kind.lower() == "bearer" and hmac.compare_digest(given, self._key or b"")


def _is_open(scope: Scope) -> bool:
    path = get_route_path(scope)
    is_page = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
    return is_page and scope["method"] in ("GET", "HEAD")  # POST / computes
