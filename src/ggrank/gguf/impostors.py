"""Names of files that are not GGUF, by their first bytes: a web page, a pointer, another format."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from pathlib import Path

_CONVERT = (
    "Expected a GGUF: download the model's GGUF conversion, or convert the model with llama.cpp's "
    "convert_hf_to_gguf.py."
)
_UNPACK = "Expected a GGUF: unpack it first."

_BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes its .bin, .pt and .pth files", _CONVERT),
    (b"\x80\x02", "a Python pickle, as PyTorch writes its .bin and .pt files", _CONVERT),
    (b"lmgg", "a GGML file, the format before GGUF", _CONVERT),
    (b"tjgg", "a GGJT file, the format before GGUF", _CONVERT),
    (b"fmgg", "a GGMF file, the format before GGUF", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
)
_MARKUP = re.compile(rb"\s*(<!doctype|<html|<head|<body|<\?xml|<Error)", re.IGNORECASE)
_SIZE = re.compile(rb"^size (\d+)", re.MULTILINE)


def what_it_is(path: Path, beginning: bytes, n_bytes: int) -> str:
    """The message for a file that does not begin with ``GGUF``, by its first few thousand bytes."""
    if beginning.startswith(b"version https://git-lfs"):
        size = _SIZE.search(beginning)
        real = f" of {int(size[1]):,} bytes" if size else ""
        return (
            f"{path} is a Git LFS pointer of {n_bytes:,} bytes, not the model{real} that it points to. "
            "Expected a GGUF: run 'git lfs pull' in its repository, or download the file from its page."
        )
    if _MARKUP.match(beginning):
        return (
            f"{path} is a web page, not a model: a server's error or login page was saved under the model's "
            "name. Expected a GGUF: open its address in a browser to see why, log in if the model needs it, "
            "and download it again."
        )
    if beginning[8:9] == b"{" and 8 < int.from_bytes(beginning[:8], "little") < n_bytes:
        return f"{path} is a safetensors file, not a GGUF. {_CONVERT}"
    for magic, name, advice in _BEGINNINGS:
        if beginning.startswith(magic):
            return f"{path} is {name}, not a GGUF. {advice}"
    if not beginning.strip(b"\0"):
        return (
            f"{path} begins with zeros: expected a GGUF. A download made room for it and never wrote it, or "
            "the disk is damaged: download it again."
        )
    if (text := _as_text(beginning)) is not None:
        kind = "JSON" if text.startswith(("{", "[")) else "text"
        return (
            f"{path} is {kind}, not a model; it begins with {text[:120]!r}. Expected a GGUF: a "
            "server's answer was saved under its name, or it is another of its files. Download it again."
        )
    return (
        f"{path} is not a GGUF: expected the first bytes 47 47 55 46 ('GGUF'), found "
        f"{beginning[:4].hex(' ')}. It is another kind of file, or damaged: download it again."
    )


def _as_text(beginning: bytes) -> str | None:
    """The beginning as text, or None if it is not text."""
    try:
        text = getincrementaldecoder("utf-8")().decode(beginning).strip()  # may end inside a character
    except UnicodeDecodeError:
        return None
    return text if text and all(char.isprintable() or char.isspace() for char in text) else None
