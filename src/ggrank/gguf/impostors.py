"""Names of files that are not GGUF, by their first bytes: a web page, a pointer, another format."""

from __future__ import annotations

import re
from pathlib import Path

_CONVERT = (
    "Expected a GGUF: download the model's GGUF conversion, or convert the model with llama.cpp's "
    "convert_hf_to_gguf.py."
)
_UNPACK = "Expected a GGUF: unpack it first."

_BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive, as PyTorch writes its .bin, .pt and .pth files", _CONVERT),
    (b"\x80\x02", "a Python pickle, as PyTorch writes its .bin and .pt files", _CONVERT),
    (b"\x80\x04", "a Python pickle", _CONVERT),
    (b"\x80\x05", "a Python pickle", _CONVERT),
    (b"\x89HDF", "an HDF5 file, as Keras writes", _CONVERT),
    (b"\x93NUMPY", "a NumPy array", _CONVERT),
    (b"lmgg", "a GGML file, the format before GGUF", _CONVERT),
    (b"tjgg", "a GGJT file, the format before GGUF", _CONVERT),
    (b"fmgg", "a GGMF file, the format before GGUF", _CONVERT),
    (b"algg", "a GGLA file, a LoRA adapter in the format before GGUF", _CONVERT),
    (b"\x1f\x8b", "a gzip archive", _UNPACK),
    (b"\xfd7zXZ", "an xz archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
)
_MARKUP = re.compile(rb"\s*(<!doctype|<html|<head|<body|<\?xml|<Error)", re.IGNORECASE)
_SIZE = re.compile(rb"^size (\d+)", re.MULTILINE)


def what_it_is(path: Path, beginning: bytes, n_bytes: int) -> str:
    """The message for a file that does not begin with ``GGUF``.

    Args:
        path: the file, for the message.
        beginning: its first bytes, a few thousand.
        n_bytes: its size.
    """
    if beginning.startswith(b"version https://git-lfs"):
        return _about_pointer(path, beginning, n_bytes)
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


def _about_pointer(path: Path, beginning: bytes, n_bytes: int) -> str:
    size = _SIZE.search(beginning)
    real = f" of {int(size[1]):,} bytes" if size else ""
    return (
        f"{path} is a Git LFS pointer of {n_bytes:,} bytes, not the model{real} that it points to. Expected "
        "a GGUF: run 'git lfs pull' in its repository, or download the file from its page."
    )


def _as_text(beginning: bytes) -> str | None:
    """The beginning as text, or None where it is not text."""
    try:
        text = beginning.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        if error.start < len(beginning) - 3:
            return None
        text = beginning[: error.start].decode("utf-8").strip()  # A character was cut at the end.
    return text if text and all(char.isprintable() or char.isspace() for char in text) else None
