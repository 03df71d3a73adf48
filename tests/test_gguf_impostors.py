"""Files of other kinds under a model's name: each is named, with what to do."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ggrank.errors import ModelFileError
from ggrank.gguf import open_gguf

POINTER = b"""\
version https://git-lfs.github.com/spec/v1
oid sha256:363a0a4855dff6c653e06efe3209157debcf7f74e52d0d7c71e2747cd523043e
size 24808224
"""
TENSORS_HEADER = b'{"weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
SAFETENSORS = struct.pack("<Q", len(TENSORS_HEADER)) + TENSORS_HEADER + bytes(16)
AGAIN = "ownload it again"

IMPOSTORS = {
    "an LFS pointer": (POINTER, ["Git LFS pointer", "24,808,224 bytes", "git lfs pull"]),
    "an HTML page": (b"\n<!DOCTYPE html>\n<title>404</title>", ["web page", AGAIN]),
    "an XML error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ["web page"]),
    "a JSON error": (b'{"error": "Repository not found"}', ["JSON", "Repository not found", AGAIN]),
    "a text": ("Accès refusé".encode(), ["text", "Accès refusé"]),
    "a long text cut inside a character": (b"x" + "é".encode() * 4000, ["text"]),
    "a safetensors file": (SAFETENSORS, ["safetensors", "convert_hf_to_gguf.py"]),
    "a PyTorch archive": (b"PK\x03\x04" + bytes(60), ["zip archive", "PyTorch"]),
    "a pickle": (b"\x80\x02}q\x00" + bytes(60), ["pickle", "GGUF conversion"]),
    "an older format": (b"tjgg" + bytes(60), ["GGJT", "before GGUF"]),
    "a gzip archive": (b"\x1f\x8b\x08" + bytes(60), ["gzip", "unpack"]),
    "zeros": (bytes(5000), ["zeros", AGAIN]),
    "other bytes": (b"\x12\x34\x56\x78\x9a\xff", ["12 34 56 78", AGAIN]),
    "three letters": (b"GGU", ["not a model", "'GGU'"]),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.gguf"
    data, parts = IMPOSTORS[name]
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        open_gguf(path)
    message = str(caught.value)
    assert str(path) in message
    assert "xpected a GGUF" in message or "expected the first bytes" in message
    for part in parts:
        assert part in message
