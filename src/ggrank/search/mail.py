"""Mail (.eml) to documents: its parts are sections, its headers metadata."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from ggrank.errors import InputError
from ggrank.rows.encodings import decode
from ggrank.search.html import html_blocks
from ggrank.search.sections import Block, FileDocument, assembled

_MOST_CHARACTERS = 10_000
"""Of a header; decoding it takes the square of its length."""

_HEADERS = ("from", "to", "cc", "subject", "date")


def read_mail(path: Path) -> Iterator[FileDocument]:
    """The document of a message. Raises InputError where it is none."""
    try:
        message = message_from_bytes(path.read_bytes())
        headers = {name: _header(message, name) for name in _HEADERS if name in message}
        document = assembled(_blocks(message, headers), title=headers.get("subject", ""))
    except (RecursionError, MessageError, ValueError, LookupError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a message that cannot be read: {error or type(error).__name__}") from error
    if not headers:
        raise InputError("not a mail: it has no sender, subject or date")
    yield FileDocument(document.text, document.sections, document.title, headers)


def _header(message: Message, name: str) -> str:
    """A header without its encoding; a date is one of ISO 8601, where it can be read."""
    raw = next(value for key, value in message.raw_items() if key.lower() == name)
    text = " ".join(_decoded(str(raw)[:_MOST_CHARACTERS]).split())
    if name == "date":
        try:
            return parsedate_to_datetime(text).isoformat()
        except (ValueError, TypeError, IndexError):
            return text
    return text


def _decoded(raw: str) -> str:
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return str(make_header(decode_header(text)))
    except (MessageError, LookupError, ValueError):
        return text


def _blocks(message: Message, headers: dict[str, str]) -> Iterator[Block]:
    """Headers, texts and names of attachments; parts are numbered in their order, from 1."""
    yield Block("\n".join(f"{name.capitalize()}: {text}" for name, text in headers.items()))
    doubled = set(_doubled(message))
    number, several = 0, sum(not part.is_multipart() for part in message.walk()) > 1
    for part in message.walk():
        number += not part.is_multipart()
        place = f"part {number}" if several and number else ""
        if "subject" in part and part is not message:  # one that was forwarded
            yield Block(_header(part, "subject"), level=1, place=f"part {number + part.is_multipart()}")
        if name := _decoded(part.get_filename() or ""):
            yield Block(f"Attachment: {name}", place=place)
        if part.get_content_type() == "text/html" and part not in doubled:
            yield from (Block(one.text, one.level, place) for one in html_blocks(_data(part))[1])
        elif part.get_content_maintype() == "text" and part not in doubled:
            yield Block(_text(part), place=place)


def _doubled(message: Message) -> Iterator[Message]:
    """HTML that stands beside the same text without markup."""
    for group in message.walk():
        if group.get_content_type() == "multipart/alternative":
            plain = (part for part in group.walk() if part.get_content_type() == "text/plain")
            if any(_data(part).strip() for part in plain):
                yield from (part for part in group.walk() if part.get_content_type() == "text/html")


def _data(part: Message) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _text(part: Message) -> str:
    data, charset = _data(part), part.get_content_charset()
    try:
        text = data.decode(charset) if charset else decode(data)
    except (LookupError, UnicodeDecodeError):
        text = decode(data)
    return text.replace("\r\n", "\n").replace("\r", "\n")
