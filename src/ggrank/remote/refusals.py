"""What servers write into answers that are no success, and what a caller can do about it.

Knows the shapes of error bodies; not how they came.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote

HINTS = {
    401: "Give an api_key that the server accepts.",
    403: "Give an api_key that is allowed to do this.",
    404: "Check base_url, model and dialect.",
    413: "Send less at once: a smaller batch_size, or shorter texts.",
    429: "Ask less often, or try again later.",
    503: "Try again later.",
}
"""What to do next, by status."""

_ENDPOINT = re.compile(r"(/v\d+)?/(rerank|reranking|embed|embeddings|models|info)$")
_TAGS = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_SHOWN = 500


def endpoint_hint(base_url: str) -> str:
    """What to do about an address with a request's path at its end; "" for any other.

    Example:
        >>> endpoint_hint("http://localhost:8080/v1/rerank")
        'base_url ends in /v1/rerank, which is added by itself: give http://localhost:8080'
        >>> endpoint_hint("http://localhost:8080/v1")
        ''
    """
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
    """A text with ``***`` for the key, which servers may send back, also as JSON or an address has it.

    Example:
        >>> without_key("Bearer s3cret/key is wrong, see ?key=s3cret%2Fkey", "s3cret/key")
        'Bearer *** is wrong, see ?key=***'
    """
    if not key:
        return text
    forms = {
        key,
        repr(key)[1:-1],
        json.dumps(key)[1:-1],
        key.replace("/", "\\/"),
        quote(key),
        quote(key, safe=""),
    }
    pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    # A short key, such as "none" where a client insists on one, is a part of words too.
    pattern = pattern if len(key) >= 8 else rf"(?<!\w)(?:{pattern})(?!\w)"
    return re.sub(pattern, "***", text, flags=re.IGNORECASE)


def in_one_line(text: str) -> str:
    """Printable characters only, no line ends, and not too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."


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
    reason = next(
        filter(None, (_reason(found.get(key)) for key in ("error", "message", "detail", "msg"))), ""
    )
    place = found.get("loc")
    return f"{'.'.join(map(str, place))}: {reason}" if isinstance(place, list) and reason else reason
