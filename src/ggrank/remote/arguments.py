"""Checks of what `RemoteReranker` and `RemoteEmbedder` are made and called with.

Knows Python values; no servers. No message shows an address or a key, in which something secret may stand.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from ggrank.errors import InputError, ModelModeError
from ggrank.types import Truncate


def check_dialect(dialect: object, known: Iterable[str]) -> None:
    """Raises InputError unless it is "auto" or one of the known ones."""
    names = ("auto", *known)
    if dialect not in names:
        raise InputError(f"dialect must be one of {', '.join(map(repr, names))}; found {dialect!r}")


def check_can_truncate(truncate: Truncate, known: tuple[Truncate, ...], dialect: str) -> None:
    """Raises ModelModeError where a server cannot be asked for this."""
    if truncate not in known:
        raise ModelModeError(
            f"a server of dialect {dialect!r} cannot be asked for truncate={truncate!r}; use "
            f"{' or '.join(map(repr, known))}"
        )


def check_model(model: object) -> str | None:
    """Raises InputError unless it is a name or None."""
    if model is not None and (not isinstance(model, str) or not model.strip()):
        raise InputError(f"model must be the server's name for a model, or None; found {model!r}")
    return model


def check_batch_size(value: object) -> int | None:
    """Raises InputError unless it is None or a whole number of at least 1."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"batch_size must be a whole number of at least 1, or None; found {value!r}")
    return value


def checked_url(base_url: object) -> str:
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


def checked_key(api_key: object) -> str | None:
    """The key without the line end that a file has. Raises InputError, which never shows it."""
    if api_key is None:
        return None
    if not isinstance(api_key, str):
        raise InputError(f"api_key must be a string or None, found {type(api_key).__name__}")
    key = api_key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise InputError("api_key is empty or holds characters that no key has: copy it again")
    return key


def checked_seconds(value: object, name: str) -> float:
    """Raises InputError unless it is a number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise InputError(f"{name} must be a number of seconds above 0, found {value!r}")
    return float(value)


def checked_retries(value: object) -> int:
    """Raises InputError unless it is a whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(f"retries must be a whole number of at least 0, found {value!r}")
    return value
