"""HTTP to one server: JSON is sent, busy servers are asked again. The only importer of httpx."""

from __future__ import annotations

import ipaddress
import logging
import math
import random
import re
import time
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ggrank.errors import ClosedError, InputError
from ggrank.remote.errors import no_answer, refusal

try:  # huggingface_hub brings one of the two: httpx2 since its version 2
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef]

FIRST_WAIT = 0.5
"""Seconds before the second attempt; they double for each further one."""
LONGEST_WAIT = 60.0
"""A server that asks for a longer pause is not waited for."""

_BUSY = (429, 502, 503, 504)
_LOST = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
"""Not the read timeout: a server that said nothing for all of it would say nothing again."""
_VERSION = re.compile(r"/v\d+$")
_VERSION_INSIDE = re.compile(r"/v\d+[a-z]*\d*/")

_log = logging.getLogger(__name__)


class Connection:
    """A server's address and the key for it. Safe to use from several threads.

    Redirects are never followed, so the key reaches no other host. ``timeouts`` are seconds: until a
    connection stands, and of silence while the server computes.

    Raises:
        InputError: an address or key that cannot be used, or a proxy that must not see the key.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        timeouts: tuple[float, float] = (10.0, 120.0),
        retries: int = 3,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.host = urlsplit(self.base_url).hostname or ""
        self.key = _checked_key(api_key)
        self._retries = retries
        is_local = _is_loopback(self.host)
        if self.key and self.base_url.startswith("http://") and not is_local:
            _check_no_proxy(self.host)
        try:
            self._client = httpx.Client(
                headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                timeout=httpx.Timeout(timeouts[1], connect=timeouts[0]),
                follow_redirects=False,
                trust_env=not is_local,  # no proxy reaches this machine's own loopback
            )
        except ImportError as error:
            raise InputError("the proxy that is set speaks SOCKS: pip install socksio") from error
        except ValueError as error:
            raise InputError("the address of the proxy that is set begins with no known scheme") from error

    def ask(self, url: str, body: dict[str, object] | None = None) -> object:
        """The JSON that the server has at a URL, or answers to a body; None where it has nothing there.

        Raises:
            RemoteInputError: it cannot use what was sent (status 400, 413 or 422).
            RemoteError: it could not be reached, refused, or did not answer with JSON.
            ClosedError: the connection was closed.
        """
        response = self._send("GET" if body is None else "POST", url, body)
        if response.is_success:
            with suppress(ValueError, RecursionError):  # raised below: its own error holds the whole body
                return response.json()
        elif body is None and response.is_client_error and response.status_code not in (401, 403, 429):
            return None
        raise refusal(response, self.base_url, pause=_asked_pause(response))

    def url(self, path: str) -> str:
        """A path at the server; a version at the end of the address takes the place of the path's ``/v1``.

        Example:
            >>> Connection("http://localhost:8080/v1/").url("/v1/rerank")
            'http://localhost:8080/v1/rerank'
            >>> Connection("http://localhost:8080/v1").url("/rerank")
            'http://localhost:8080/rerank'
            >>> Connection("https://v1.example.com/v1beta/openai").url("/v1/embeddings")
            'https://v1.example.com/v1beta/openai/embeddings'
        """
        # A path that goes on after its version is the API's own, and is joined as OpenAI's client does it.
        if _VERSION_INSIDE.search(urlsplit(self.base_url).path):
            return self.base_url + path.removeprefix("/v1")
        version = _VERSION.search(self.base_url)
        if version is None:
            return self.base_url + path
        if path.startswith("/v1/"):
            path = version[0] + path.removeprefix("/v1")
        return self.base_url[: version.start()] + path

    def close(self) -> None:
        """Closes the connections; twice is fine."""
        self._client.close()

    def _send(self, method: str, url: str, body: dict[str, object] | None) -> httpx.Response:
        """The first answer that is not "busy", or the last one."""
        for attempt in range(self._retries + 1):
            found = self._try(method, url, body)
            pause = None if attempt == self._retries else _pause(found, attempt)
            if pause is None:
                break
            _log.info("%s %s: trying again in %.1f s", method, url, pause)
            time.sleep(pause)
        if isinstance(found, Exception):
            # Raised out here, not where it was caught: httpx's own error carries the request and so the key.
            silence = self._client.timeout.read if isinstance(found, httpx.ReadTimeout) else None
            raise no_answer(found, url, silence=silence)
        return found

    def _try(self, method: str, url: str, body: dict[str, object] | None) -> httpx.Response | Exception:
        """One attempt: the answer, or why there is none."""
        try:
            return self._client.request(method, url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = error
        except RuntimeError:  # httpx's word for a client that was closed
            raise ClosedError("the connection was closed; make a new object") from None
        return failure


def _checked_url(base_url: object) -> str:
    """An address without the slash at its end. Raises InputError for one that cannot be used."""
    if not isinstance(base_url, str):
        raise InputError(f"base_url must be a string, found {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url.strip())
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:  # The text is not shown: it may be a key in the wrong place.
        raise InputError("base_url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError(
            "base_url must be an address without user, password or '?': what is secret goes to api_key"
        )
    return base_url.strip().rstrip("/")


def _checked_key(api_key: object) -> str | None:
    """The key without the line end that a file has. Raises InputError, which never shows it."""
    if api_key is None:
        return None
    key = api_key.strip() if isinstance(api_key, str) else ""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError("api_key must be a string without spaces or special characters: copy it again")
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_no_proxy(host: str) -> None:
    """Raises InputError where the environment sets a proxy that would read the key for this host."""
    proxies = getproxies()
    proxy = None if proxy_bypass(host) else proxies.get("http") or proxies.get("all")
    if proxy:  # shown without the user and password that it may have
        raise InputError(
            f"the key for {host} would pass the proxy {proxy.rpartition('@')[2]} in plain text: "
            "use https://, or name the host in NO_PROXY"
        )


def _pause(found: httpx.Response | Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None where one would not help."""
    backoff = FIRST_WAIT * (1 << attempt) * random.uniform(0.5, 1.0)
    if isinstance(found, Exception):
        return backoff if isinstance(found, _LOST) else None
    if found.status_code not in _BUSY:
        return None
    asked = _asked_pause(found)
    if asked is None:
        return backoff
    return asked * random.uniform(1.0, 1.1) if asked <= LONGEST_WAIT else None


def _asked_pause(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3); None where it has neither."""
    value = response.headers.get("retry-after", "")
    with suppress(ValueError, OverflowError):
        seconds = float(value)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=timezone.utc)
    return max(0.0, (until - datetime.now(timezone.utc)).total_seconds())
