"""What every request passes before a route: it is counted and logged, its host, origin and key are checked.

Numbers and log hold routes, statuses and counts; never a query string, a header, a body or an error's words,
because any of them may hold a text that somebody asked about.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time
import traceback
from contextlib import suppress
from urllib.parse import urlsplit

from starlette._utils import get_route_path  # the router's own: a gate must see the path that is routed
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ggrank.server.errors import GONE, answer
from ggrank.server.health import Metrics
from ggrank.server.settings import ServerSettings

OPEN_PATHS = frozenset({"/", "/health", "/docs", "/openapi.json"})
"""What needs no key: the pages hold nothing of this server's, a browser that opens one sends no key, and
what watches over the process has none."""

OPEN_FOLDERS = ("/docs-assets/", "/page/")
"""The scripts and styles of the pages."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted together: a caller must not be able to make up labels without end."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")

log = logging.getLogger("ggrank.server")


class Observed:
    """Counts and logs every request; an error that was not foreseen ends here, as 500 without its words."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app, self._metrics, self._access_log = app, metrics, access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, path = 0, get_route_path(scope)

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, note)
        except Exception as error:
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s, which is a bug of ggrank:\n%s", type(error).__name__, frames)
            if not status:
                await answer(scope, 500, "ggrank failed; its log says where")(scope, receive, note)
        finally:
            self._note(scope, path, status or GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        folder = next((folder for folder in OPEN_FOLDERS if path.startswith(folder)), "unknown")
        route = getattr(scope.get("route"), "path", None) or (path if path in OPEN_PATHS else folder)
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._access_log:
            log.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


class Gate:
    """Answers 401 without the API key; where there is none, 403 to a Host or Origin that is another machine.

    A web page can let its own name point to 127.0.0.1 (DNS rebinding); its browser then takes this server for
    the page's own, and gives the page every answer. Addresses and localhost cannot be pointed elsewhere, so a
    server on loopback without a key takes no other names. Starlette's `TrustedHostMiddleware` knows neither
    all addresses nor our error. Pages of other origins are refused before anything is computed for them.

    ``X-Forwarded-Prefix`` is the path below which a proxy shows this server; ``/docs`` must know it.
    """

    def __init__(self, app: ASGIApp, *, settings: ServerSettings) -> None:
        self._app = app
        self._key = settings.api_key and settings.api_key.encode()
        self._is_local = settings.api_key is None and settings.is_on_loopback
        self._hosts = {"localhost", *(name.lower() for name in settings.allowed_hosts)}
        self._origins = settings.cors_origins

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
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._is_local and not self._is_ours(host):
            message = (
                f"the Host header names {host[:100]!r}, and this server is there for localhost; start it "
                "with --allowed-host NAME where a proxy passes that name on, or with an API key"
            )
            return answer(scope, 403, message)
        if self._is_local and origin and not self._may_ask(origin):
            message = (
                f"pages of {origin[:100]!r} may not ask; start the server with --cors ORIGIN if they may"
            )
            return answer(scope, 403, message)
        if self._key and not _is_open(scope) and not self._has_key(headers):
            message = "the key is missing or wrong; send it as 'Authorization: Bearer KEY'"
            return answer(scope, 401, message, headers={"WWW-Authenticate": "Bearer"})
        return None

    def _may_ask(self, origin: str) -> bool:
        return bool({origin, "*"} & set(self._origins)) or self._is_ours(origin.partition("://")[2])

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
