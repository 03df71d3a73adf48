"""The committed tokenizers (``tests/tiny/*.json``): what is in their files."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@cache
def read(name: str) -> Json:
    """The parsed ``tokenizer.json`` of "wordpiece", "unigram", "modernbert", "roberta" or "qwen2"."""
    data: Json = json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))
    return data


@cache
def tokens(name: str) -> tuple[str, ...]:
    """All tokens by id, the added ones included."""
    data = read(name)
    vocab = data["model"]["vocab"]
    base = [piece for piece, _ in vocab] if isinstance(vocab, list) else sorted(vocab, key=vocab.__getitem__)
    known = set(base)
    return (*base, *(added["content"] for added in data["added_tokens"] if added["content"] not in known))


def size(name: str) -> int:
    return len(tokens(name))


def token_id(name: str, token: str) -> int:
    return tokens(name).index(token)
