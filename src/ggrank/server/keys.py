"""The API key: where it is read from, and what it must be for anybody to send it.

Knows texts and one file; not how a request brings the key.
"""

from __future__ import annotations

import os
from pathlib import Path

from ggrank.errors import InputError

VARIABLE = "GGRANK_API_KEY"


def find_key(given: str | None, file: Path | None) -> str | None:
    """The key of a file, else the one that was given, else the environment's; None: there is none.

    Raises:
        InputError: the key cannot be used. An empty one counts: it was meant to keep others out.
    """
    if file is not None:
        return checked_key(_first_line(file), f"{file}: its first line, the API key,")
    key = os.environ.get(VARIABLE) if given is None else given  # click takes an empty variable for none
    return None if key is None else checked_key(key)


def checked_key(key: str, name: str = "the API key") -> str:
    """The key without the spaces around it, which no header keeps.

    Raises:
        InputError: empty; not UTF-8; characters that no header can hold.

    Example:
        >>> checked_key(" sesame ")
        'sesame'
    """
    key = key.strip()
    if not key:
        raise InputError(f"{name} is empty, which lets nobody in; leave it out to let everybody in")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InputError(f"{name} is not UTF-8; make one of letters and digits") from None
    if not key.isprintable():
        raise InputError(f"{name} holds a line break or another control character; no header can")
    return key


def _first_line(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig").partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: the API key cannot be read ({error})") from error
