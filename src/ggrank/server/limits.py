"""How much one request may have, beside bytes: documents or texts, and tokens.

Knows numbers and the field that has them; not what they are of.
"""

from __future__ import annotations

from collections.abc import Sized

from ggrank.server.errors import TooLargeError
from ggrank.server.settings import ServerSettings


def check_number(settings: ServerSettings, items: Sized, name: str) -> None:
    """Raises TooLargeError for more documents or texts than a request may have; ``name`` is their field."""
    most = settings.max_documents
    if len(items) > most:
        raise TooLargeError(
            f"{name}: {len(items):,} in one request, {most:,} at most; send fewer at a time, or start "
            "the server with a larger --max-documents",
            field=name,
        )


def check_tokens(settings: ServerSettings, n_tokens: int, name: str) -> None:
    """Raises TooLargeError for more tokens than a request may have; ``name`` is the field with them."""
    most = settings.max_tokens
    if n_tokens > most:
        raise TooLargeError(
            f"{name}: more than {most:,} tokens in one request; send fewer at a time, or start the "
            "server with a larger --max-tokens",
            field=name,
        )
