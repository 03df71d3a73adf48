"""Bytes to text: UTF-8, what a byte order mark says, or else what charset-normalizer finds."""

from __future__ import annotations

import codecs

from ggrank.errors import InputError

SAMPLE_BYTES = 1 << 16
"""Bytes from the beginning of a file that decide its encoding."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes) -> str:
    """The text of a whole file, without a byte order mark; bytes that are not text become U+FFFD.

    Raises:
        InputError: the bytes are no text, or text in an encoding that cannot be told.
    """
    return data.decode(encoding_of(data[:SAMPLE_BYTES]), "replace")


def encoding_of(sample: bytes) -> str:
    """The name of the encoding, from a file's beginning. Raises what `decode` raises.

    A file with some lines of UTF-8 and some that are not is UTF-8: its other lines are damaged.
    """
    for mark, name in _MARKS:
        if sample.startswith(mark):
            return name
    lines = [line for line in sample.splitlines() if not line.isascii()]
    is_cut = len(sample) >= SAMPLE_BYTES
    if _is_utf8(sample, is_cut=is_cut) or 2 * sum(map(_is_utf8, lines)) >= len(lines):
        return "utf-8-sig"
    from charset_normalizer import from_bytes

    found = from_bytes(sample)
    best = found.best()
    if best is None:
        raise InputError("neither UTF-8 nor text in another encoding that can be told; save it as UTF-8")
    # Short Western texts fit many code pages equally well; this one is by far the most common.
    western = next((match for match in found if match.encoding == "cp1252"), best)
    return (western if western.chaos <= best.chaos else best).encoding


def _is_utf8(sample: bytes, *, is_cut: bool = False) -> bool:
    """``is_cut``: its last character may be incomplete."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=not is_cut)
    except UnicodeDecodeError:
        return False
    return True
