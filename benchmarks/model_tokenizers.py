"""The tokenizers of the models that `make_models.py` writes, as tokenizer.json.

Imported by that script, which says where the tests' modules are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from ggrank.gguf import open_gguf
from ggrank.hub.presets import bundled_path, presets
from tiny import vocab

Json = dict[str, Any]

SEED = 4
BUNDLED = bundled_path(presets()["all-minilm-l6-v2"])
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def bundled_tokens() -> list[str]:
    """The bundled model's WordPiece vocabulary as BERT writes it, ``##`` before what continues a word."""
    tokens = open_gguf(BUNDLED).strings("tokenizer.ggml.tokens")
    return [_plain(token) if token not in SPECIAL_TOKENS else token for token in tokens]


def _plain(token: str) -> str:
    return token[1:] if token.startswith("\u2581") else f"##{token}"


def wordpiece() -> Json:
    """BERT's tokenizer with that vocabulary."""
    ids = {token: i for i, token in enumerate(bundled_tokens())}
    return _with_vocabulary("wordpiece", ids, ids)


def unigram(size: int) -> Json:
    """XLM-R's tokenizer, with ``size`` pieces."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, *islice(_pieces(), size - len(special) - 1), "<mask>"]
    # Scores as Zipf's law gives them; sentencepiece's lie between -3 and -15 too.
    scores = (
        [0.0] * len(special) + [-3.0 - float(np.log(i + 1)) for i in range(size - len(special) - 1)] + [0.0]
    )
    ids = {piece: i for i, piece in enumerate(pieces)}
    return _with_vocabulary("unigram", [list(pair) for pair in zip(pieces, scores, strict=True)], ids)


def _pieces() -> Iterator[str]:
    """Words in BERT's order (by frequency), their parts and characters, then made-up ones; none twice."""
    tokens = [token for token in bundled_tokens() if not token.startswith("[")]
    words = [token for token in tokens if len(token) > 1 and not token.startswith("##")]
    parts = [token.removeprefix("##") for token in tokens if token.startswith("##")]
    characters = sorted({c for token in tokens for c in token.removeprefix("##")})
    beginnings = (f"\u2581{word}" for word in words)
    seen: set[str] = set()
    for piece in chain(beginnings, "\u2581", parts, characters, _made_up()):
        if piece not in seen:
            seen.add(piece)
            yield piece


def _made_up() -> Iterator[str]:
    random = np.random.default_rng(SEED)
    starts, ends = "bdfgklmnprstvz", ("", "n", "r", "s")
    syllables = [first + vowel + last for first in starts for vowel in "aeiou" for last in ends]
    while True:
        chosen = random.integers(len(syllables), size=(10_000, 3))
        yield from ("\u2581" + "".join(syllables[i] for i in row) for row in chosen.tolist())


def _with_vocabulary(name: str, vocabulary: Any, ids: dict[str, int]) -> Json:
    """A tokenizer of the tests with another vocabulary, and the special tokens where that has them."""
    data = vocab.read(name)
    added = [{**token, "id": ids[token["content"]]} for token in data["added_tokens"]]
    template = data["post_processor"]
    known = template["special_tokens"]
    special = {token: {**known[token], "ids": [ids[token]]} for token in known}
    return {
        **data,
        "added_tokens": added,
        "model": {**data["model"], "vocab": vocabulary},
        "post_processor": {**template, "special_tokens": special},
    }
