"""HTTP to one server: sends JSON, asks busy servers again, and says what went wrong."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from ggrank.errors import ClosedError, GgrankError, InputError, RemoteError, RemoteInputError

try:  # huggingface_hub brings one of the two: httpx2 since its version 2
    import httpx2 as httpx
except ModuleNotFoundError:
    import httpx  # type: ignore[no-redef]

CONNECT_SECONDS = 10.0
FIRST_PAUSE = 0.5
"""Seconds before the second attempt; they double for each further one."""
LONGEST_PAUSE = 60.0
"""No further attempt where a server asks for a longer pause."""

_BUSY = (429, 502, 503, 504)
_LOST = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
"""Not the read timeout: a second attempt would wait as long for nothing."""
_HINTS = {
    200: "Check base_url, and name the dialect.",
    401: "Give an api_key that the server accepts.",
    403: "Give an api_key that is allowed to do this.",
    404: "Check base_url, model and dialect.",
    413: "Send less at once: a smaller batch_size, or shorter texts.",
    429: "Ask less often, or try again later.",
    503: "Try again later.",
}
_VERSION = re.compile(r"/v\d+$")
_VERSION_INSIDE = re.compile(r"/v\d+[a-z]*\d*/")
_ENDPOINT = re.compile(r"(/v\d+)?/(rerank|reranking|embed|embeddings|models|info)$")
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_HEAD, _TAIL = 450, 200

_log = logging.getLogger(__name__)


class Connection:
    """A server's address and the key for it. Safe to use from several threads.

    Redirects are never followed, so the key reaches no other host.
    """

    def __init__(self, base_url: str, api_key: str | None, *, timeout: float, retries: int) -> None:
        self.base_url = _checked_url(base_url)
        self.host = urlsplit(self.base_url).hostname or ""
        self._key, self._retries, self._timeout = _checked_key(api_key), retries, timeout
        is_local = _is_loopback(self.host)
        if self._key and self.base_url.startswith("http://") and not is_local:
            _check_no_proxy(self.host)
        try:
            self._client = httpx.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=not is_local,  # no proxy reaches this machine's own loopback
            )
        except ImportError as error:
            raise InputError("the proxy that is set speaks SOCKS: pip install socksio") from error
        except ValueError as error:
            raise InputError("the address of the proxy that is set begins with no known scheme") from error

    def ask(self, url: str, body: dict[str, object] | None = None) -> object:
        """The JSON at a URL, or the JSON that answers a body; None where a URL has nothing.

        Raises:
            RemoteInputError: the server cannot use what was sent (status 400, 413 or 422).
            RemoteError: it could not be reached, refused, or did not answer with JSON.
            ClosedError: the connection was closed.
        """
        response = self._send("GET" if body is None else "POST", url, body)
        if response.is_success:
            with suppress(ValueError, RecursionError):  # raised below: its own error holds the whole body
                return response.json()
        elif body is None and response.is_client_error and response.status_code not in (401, 403, 429):
            return None
        raise _refusal(response, self.base_url)

    def url(self, path: str) -> str:
        """The URL of a path; a version at the end of the address replaces the path's ``/v1``.

        Example:
            >>> server = Connection("http://localhost:8080/v1/", None, timeout=60, retries=0)
            >>> server.url("/v1/rerank"), server.url("/rerank")
            ('http://localhost:8080/v1/rerank', 'http://localhost:8080/rerank')
        """
        # An address that goes on after its version is joined as OpenAI's client does it.
        if _VERSION_INSIDE.search(urlsplit(self.base_url).path):
            return self.base_url + path.removeprefix("/v1")
        version = _VERSION.search(self.base_url)
        if version is None:
            return self.base_url + path
        if path.startswith("/v1/"):
            path = version[0] + path.removeprefix("/v1")
        return self.base_url[: version.start()] + path

    @contextmanager
    def tidy_errors(self) -> Iterator[None]:
        """Makes errors from within one line, not too long, with ``***`` for the key.

        A server may send the key back anywhere in its answer, and any part of an answer may be in a message.
        """
        try:
            yield
        except GgrankError as error:
            error.args = tuple(_in_one_line(without_key(str(text), self._key)) for text in error.args)
            raise

    def close(self) -> None:
        """Closing twice is fine."""
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
        if isinstance(found, httpx.Response):
            return found
        # Raised here, not where it was caught: httpx's own error carries the request and so the key.
        if isinstance(found, httpx.ReadTimeout):
            raise RemoteError(
                f"{url} sent nothing for {self._timeout:g} s. Allow it more with timeout, or send less at "
                "once: a smaller batch_size."
            )
        reason = str(found) or type(found).__name__
        raise RemoteError(f"{url} gave no answer: {reason}. Check base_url, and whether the server runs.")

    def _try(self, method: str, url: str, body: dict[str, object] | None) -> httpx.Response | Exception:
        """The answer to one attempt, or why there is none."""
        try:
            return self._client.request(method, url, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = error
        except RuntimeError:  # what httpx raises for a client that was closed
            raise ClosedError("the connection was closed; make a new object") from None
        return failure


def endpoint_hint(base_url: str) -> str:
    """What to do about an address that ends in the path of a request; "" for any other."""
    path = _ENDPOINT.search(base_url)
    if path is None:
        return ""
    return f"base_url ends in {path[0]}, which is added by itself: give {base_url[: path.start()]}"


def without_key(text: str, key: str | None) -> str:
    """A text with ``***`` for the key, also where JSON, Python or an address writes it differently.

    Example:
        >>> without_key("Bearer s3cret/key is wrong, see ?key=s3cret%2Fkey", "s3cret/key")
        'Bearer *** is wrong, see ?key=***'
    """
    if not key:
        return text
    written = (key, repr(key)[1:-1], json.dumps(key)[1:-1], key.replace("/", "\\/"))
    forms = {*written, *map(repr, written), quote(key), quote(key, safe="")}
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    # A short key, such as "none" where a client insists on one, is a part of words too.
    pattern = pattern if len(key) >= 8 else rf"(?<!\w)(?:{pattern})(?!\w)"
    return re.sub(pattern, "***", text, flags=re.IGNORECASE)


def _checked_url(base_url: object) -> str:
    """An address without the slash at its end."""
    if not isinstance(base_url, str):
        raise InputError(f"base_url must be a string, found {type(base_url).__name__}")
    try:
        parts = urlsplit(base_url.strip())
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:  # The text is not shown: it may be a key in the wrong argument.
        raise InputError("base_url must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.query or parts.fragment:
        raise InputError("base_url must be without user, password or '?': give a secret as api_key")
    return base_url.strip().rstrip("/")


def _checked_key(api_key: object) -> str | None:
    """The key without the line end that a file has. An error never shows it."""
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
    proxies = getproxies()
    proxy = None if proxy_bypass(host) else proxies.get("http") or proxies.get("all")
    if proxy:  # shown without the user and password that it may have
        raise InputError(
            f"the key for {host} would pass the proxy {proxy.rpartition('@')[2]} in plain text: "
            "use https://, or name the host in NO_PROXY"
        )


def _pause(found: httpx.Response | Exception, attempt: int) -> float | None:
    """Seconds before the next attempt; None where it would not help."""
    backoff = FIRST_PAUSE * (1 << attempt) * random.uniform(0.5, 1.0)
    if isinstance(found, Exception):
        return backoff if isinstance(found, _LOST) else None
    if found.status_code not in _BUSY:
        return None
    asked = _asked_pause(found)
    if asked is None:
        return backoff
    return asked * random.uniform(1.0, 1.1) if asked <= LONGEST_PAUSE else None


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
    return max(
        0.0, (until.replace(tzinfo=until.tzinfo or timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    )


def _refusal(response: httpx.Response, base_url: str) -> RemoteError:
    """The error for an answer that is no success, or no JSON."""
    status, url = response.status_code, response.request.url
    if response.next_request is not None:
        target = urlsplit(str(response.next_request.url))
        return RemoteError(
            f"{url} answered {status}: it has moved to {target.scheme}://{target.netloc.rpartition('@')[2]}"
            f"{target.path}. Give that server's address as base_url; redirects are not followed.",
            status=status,
        )
    error_type = RemoteInputError if status in (400, 413, 422) else RemoteError
    found = " with something else than JSON" if response.is_success else ""
    message = _server_message(response.text).strip().rstrip(".") or "no reason given"
    pause = _asked_pause(response)
    asked = f" It asks for a pause of {pause:.0f} s." if pause else ""
    hint = endpoint_hint(base_url) if status in (404, 405) else ""
    return error_type(
        f"{url} answered {status}{found}: {message}.{asked} {hint or _HINTS.get(status, '')}", status=status
    )


def _server_message(text: str) -> str:
    """The reason in an answer that is no success: from its JSON, else its text without tags."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _TAGS.sub(" ", text)
    return _reason(found) or text


def _reason(found: object) -> str:
    """TEI: ``{"error"}``; OpenAI, llama-server, ggrank: ``{"error": {"message"}}``; Cohere: ``{"message"}``;
    Jina and FastAPI: ``{"detail"}``, a text or a list of ``{"loc", "msg"}``.
    """
    if isinstance(found, str):
        return found
    if isinstance(found, list):
        return "; ".join(filter(None, map(_reason, found)))
    if not isinstance(found, dict):
        return ""
    names = ("error", "message", "detail", "msg")
    reason = next(filter(None, (_reason(found.get(name)) for name in names)), "")
    field = found.get("loc")
    return f"{'.'.join(map(str, field))}: {reason}" if isinstance(field, list) and reason else reason


def _in_one_line(text: str) -> str:
    """Printable characters without line ends; of a long text the beginning, and the end with the advice."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} ... {line[-_TAIL:]}"
