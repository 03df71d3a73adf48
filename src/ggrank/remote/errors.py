"""What goes wrong between here and a server, as a `RemoteError` in the server's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from ggrank.errors import GgrankError, RemoteError, RemoteInputError

if TYPE_CHECKING:
    import httpx2 as httpx

_HINTS = {
    200: "Check base_url, and name the dialect.",
    401: "Give an api_key that the server accepts.",
    403: "Give an api_key that is allowed to do this.",
    404: "Check base_url, model and dialect.",
    413: "Send less at once: a smaller batch_size, or shorter texts.",
    429: "Ask less often, or try again later.",
    503: "Try again later.",
}
_ENDPOINT = re.compile(r"(/v\d+)?/(rerank|reranking|embed|embeddings|models|info)$")
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_HEAD, _TAIL = 450, 200


@contextmanager
def tidy_errors(key: str | None) -> Iterator[None]:
    """Errors from within become one line, not too long, with ``***`` for the key.

    A server may send the key back in any place of its answer, and any part of an answer may be in a message.
    """
    try:
        yield
    except GgrankError as error:
        error.args = tuple(_in_one_line(without_key(str(text), key)) for text in error.args)
        raise


def no_answer(failure: Exception, url: str, *, silence: float | None) -> RemoteError:
    """The error for no answer, or half of one; ``silence`` is how many seconds the server said nothing."""
    if silence is not None:
        return RemoteError(
            f"{url} said nothing for {silence:g} s. Allow it longer with read_timeout, or send less at once: "
            "a smaller batch_size."
        )
    reason = str(failure) or type(failure).__name__
    return RemoteError(f"{url} gave no answer: {reason}. Check base_url, and whether the server runs.")


def refusal(response: httpx.Response, base_url: str, *, pause: float | None) -> RemoteError:
    """The error for an answer that is no success, or no JSON; ``pause`` is what the server asks for."""
    status, url = response.status_code, response.request.url
    if response.next_request is not None:
        target = urlsplit(str(response.next_request.url))
        return RemoteError(
            f"{url} answered {status}: it has moved to {target.scheme}://{target.netloc.rpartition('@')[2]}"
            f"{target.path}. Give that server's address as base_url; redirects are not followed.",
            status=status,
        )
    kind = RemoteInputError if status in (400, 413, 422) else RemoteError
    found = " with something else than JSON" if response.is_success else ""
    message = server_message(response.text).strip().rstrip(".") or "no reason given"
    asked = f" It asks for a pause of {pause:.0f} s." if pause else ""
    hint = endpoint_hint(base_url) if status in (404, 405) else ""
    return kind(
        f"{url} answered {status}{found}: {message}.{asked} {hint or _HINTS.get(status, '')}", status=status
    )


def endpoint_hint(base_url: str) -> str:
    """What to do about an address that ends in the path of a request; "" for any other."""
    path = _ENDPOINT.search(base_url)
    if path is None:
        return ""
    return f"base_url ends in {path[0]}, which is added by itself: give {base_url[: path.start()]}"


def server_message(text: str) -> str:
    """The reason in an answer that is no success: from its JSON, else its text without tags.

    Example:
        >>> server_message('{"error": "Model is overloaded", "error_type": "overloaded"}')
        'Model is overloaded'
        >>> server_message("<html><body><h1>502 Bad Gateway</h1></body></html>").strip()
        '502 Bad Gateway'
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _TAGS.sub(" ", text)
    return _reason(found) or text


def without_key(text: str, key: str | None) -> str:
    """A text with ``***`` for the key, also where it stands as JSON, Python or an address has it.

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
    place = found.get("loc")
    return f"{'.'.join(map(str, place))}: {reason}" if isinstance(place, list) and reason else reason


def _in_one_line(text: str) -> str:
    """Printable characters without line ends; of a long text the beginning, and the end with what to do."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _HEAD + _TAIL else f"{line[:_HEAD]} ... {line[-_TAIL:]}"
