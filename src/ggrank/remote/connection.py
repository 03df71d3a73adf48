"""HTTP to one server: sending JSON, trying again, and every failure as one error of ours.

Knows addresses, statuses and httpx, which is imported when a connection is made; no dialects, no scores.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ggrank.errors import ClosedError, GgrankError, InputError, RemoteError, RemoteInputError
from ggrank.remote.arguments import checked_key, checked_retries, checked_seconds, checked_url
from ggrank.remote.refusals import HINTS, endpoint_hint, in_one_line, server_message, without_key

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT = 10.0
"""Seconds for a connection to stand."""
READ_TIMEOUT = 120.0
"""Seconds of silence from a server that computes: 32 long documents take a small machine a minute."""
RETRIES = 3
"""Further attempts after the first."""
FIRST_WAIT = 0.5
"""Seconds before the second attempt; they double for each further one."""
LONGEST_WAIT = 60.0
"""A server that asks for a longer pause is not waited for."""

_BUSY = (429, 502, 503, 504)
_VERSION = re.compile(r"/v\d+$")
_VERSION_INSIDE = re.compile(r"/v\d+[a-z]*\d*/")

_log = logging.getLogger(__name__)


class Connection:
    """A server's address and the key for it. Safe to use from several threads; a context manager.

    Redirects are never followed, so the key goes to no other host.

    Raises:
        InputError: an address, key or number that cannot be used, or httpx is not installed.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        self.base_url = checked_url(base_url)
        self._key = checked_key(api_key)
        self._retries = checked_retries(retries)
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise InputError("remote models need httpx: pip install 'ggrank[remote]'") from error
        timeout = httpx.Timeout(
            checked_seconds(read_timeout, "read_timeout"),
            connect=checked_seconds(connect_timeout, "connect_timeout"),
        )
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        is_local = _is_loopback(self.host)
        proxy = None if is_local else _proxy_for(self.base_url)
        if self._key and proxy and self.base_url.startswith("http://"):
            raise InputError(
                f"the key for {self.host} would pass the proxy {proxy.rpartition('@')[2]} in plain text: "
                "use https://, or name the host in NO_PROXY"
            )
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=timeout,
                follow_redirects=False,
                trust_env=not is_local,  # no proxy reaches this machine's own loopback
            )
        except ImportError as error:
            raise InputError("the proxy that is set speaks SOCKS: pip install 'httpx[socks]'") from error

    @property
    def host(self) -> str:
        """The server's name, without port."""
        return urlsplit(self.base_url).hostname or ""

    def post(self, path: str, body: dict[str, object]) -> object:
        """What the server answers to a JSON body, read as JSON.

        Raises:
            RemoteInputError: it cannot use what was sent (status 400, 413 or 422).
            RemoteError: it could not be reached, refused, or did not answer with JSON.
            ClosedError: the connection was closed.
        """
        response = self._send("POST", path, body)
        if not response.is_success:
            raise self._refusal(response)
        try:
            return response.json()
        except (ValueError, RecursionError):
            found = self._clean(response.text) or "nothing"
        raise RemoteError(
            f"{response.request.url} answered {response.status_code} with something else than JSON: {found}. "
            "Check base_url and dialect.",
            status=response.status_code,
        )

    def look(self, path: str) -> object:
        """What the server has at a path: its JSON, or a text in one line; None where nothing is there.

        Raises:
            RemoteError: it could not be reached, has moved, wants another key, or is busy or down.
        """
        response = self._send("GET", path, None)
        status = response.status_code
        if response.is_redirect or status in (401, 403, 429) or status >= 500:
            raise self._refusal(response)
        try:
            found = response.json() if response.is_success else None
        except (ValueError, RecursionError):
            found = response.text
        return self._clean(server_message(found)) if isinstance(found, str) else found

    @contextmanager
    def key_hidden(self) -> Iterator[None]:
        """Every error from within says ``***`` for the key: a server may send it back in any place."""
        try:
            yield
        except GgrankError as error:
            error.args = tuple(without_key(str(one), self._key) for one in error.args)
            raise

    def close(self) -> None:
        """Closes the connections; twice is fine."""
        self._client.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, path: str) -> str:
        """A path at the server; a version at the end of the address takes the place of the path's ``/v1``.

        Example:
            >>> Connection("http://localhost:8080/v1/").url("/v1/rerank")
            'http://localhost:8080/v1/rerank'
            >>> Connection("http://localhost:8080/v1").url("/rerank")
            'http://localhost:8080/rerank'
            >>> Connection("https://example.com/v1beta/openai").url("/v1/embeddings")
            'https://example.com/v1beta/openai/embeddings'
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

    def _send(self, method: str, path: str, body: dict[str, object] | None) -> httpx.Response:
        """The first answer that is not "busy", or the last one."""
        for attempt in range(self._retries + 1):
            found = self._try(method, self.url(path), body)
            pause = None if attempt == self._retries else _pause(found, attempt)
            if pause is None:
                break
            _log.info("%s %s: trying again in %.1f s", method, self.url(path), pause)
            time.sleep(pause)
        if isinstance(found, Exception):
            # Raised out here, not where it was caught: httpx's own error carries the request and so the key.
            raise self._silence(found, self.url(path))
        return found

    def _try(self, method: str, url: str, body: dict[str, object] | None) -> httpx.Response | Exception:
        """One attempt: the answer, or why there is none."""
        import httpx

        if self._client.is_closed:
            raise ClosedError("the connection was closed; make a new object")
        try:
            return self._client.request(method, url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = error
        except RuntimeError:  # httpx's word for a client that another thread closed meanwhile
            raise ClosedError("the connection was closed; make a new object") from None
        return failure

    def _silence(self, failure: Exception, url: str) -> RemoteError:
        """The error for no answer, or half of one."""
        import httpx

        reason = self._clean(str(failure)) or type(failure).__name__
        if isinstance(failure, httpx.ReadTimeout):
            seconds = self._client.timeout.read
            return RemoteError(
                f"{url} said nothing for {seconds:g} s. Allow it longer with read_timeout, or send less "
                "at once: a smaller batch_size."
            )
        return RemoteError(f"{url} gave no answer: {reason}. Check base_url, and whether the server runs.")

    def _refusal(self, response: httpx.Response) -> RemoteError:
        """The error for an answer that is no success, in the server's own words."""
        status, url = response.status_code, response.request.url
        if response.next_request is not None:
            target = urlsplit(str(response.next_request.url))
            return RemoteError(
                f"{url} answered {status}: it has moved to {target.scheme}://{target.netloc.rpartition('@')[2]}"
                f"{target.path}. Give that server's address as base_url; redirects are not followed.",
                status=status,
            )
        kind = RemoteInputError if status in (400, 413, 422) else RemoteError
        message = self._clean(server_message(response.text)) or "no reason given"
        pause = _retry_after(response.headers.get("retry-after", ""))
        asked = f"It asks for a pause of {pause:.0f} s. " if pause else ""
        hint = (endpoint_hint(self.base_url) if status in (404, 405) else "") or HINTS.get(status, "")
        return kind(f"{url} answered {status}: {message.rstrip('.')}. {asked}{hint}".rstrip(), status=status)

    def _clean(self, text: str) -> str:
        """A server's text in one line, without the key, which is hidden before a cut leaves half of it."""
        return in_one_line(without_key(text, self._key))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment sets for an address, as httpx reads it."""
    parts = urlsplit(url)
    proxies = getproxies()
    if proxy_bypass(parts.hostname or ""):
        return None
    return proxies.get(parts.scheme) or proxies.get("all")


def _pause(found: httpx.Response | Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt; None where one would not help."""
    import httpx

    backoff = FIRST_WAIT * (1 << attempt) * random.uniform(0.5, 1.0)
    if isinstance(found, Exception):
        # A server that said nothing for the whole timeout would say nothing again.
        lost = (httpx.ConnectError, httpx.ConnectTimeout, httpx.RemoteProtocolError, httpx.ReadError)
        return backoff if isinstance(found, (*lost, httpx.WriteError, httpx.CloseError)) else None
    if found.status_code not in _BUSY:
        return None
    asked = _retry_after(found.headers.get("retry-after", ""))
    if asked is None:
        return backoff
    return asked * random.uniform(1.0, 1.1) if asked <= LONGEST_WAIT else None


def _retry_after(value: str) -> float | None:
    """Seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
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
