"""Text to token ids, exactly as the original model's tokenizer does it.

Knows which tokenizer serves a text: llama.cpp's, or for WordPiece models our own where llama.cpp's
differs (`ggrank.wordpiece` says how). Knows nothing of pairs, budgets or vectors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from ggrank.gguf_file import GgufFile
from ggrank.types import Engine, TokenIds
from ggrank.wordpiece import WordPiece, needs_own_tokenizer

PIECE_CHARACTERS = 50_000
"""Longer texts go to llama.cpp in pieces, parted at white space.

Some of its byte-pair tokenizers match with ``std::regex``, which recurses for each character: a
text of a few hundred thousand characters overflows the stack and ends the process. A single word
longer than this is parted too, and its tokens can then differ from the original's at the seam.
"""

_SEAM = re.compile(r"(?<=\S)\s(?=\S)")


class Tokenizer:
    """Turns the texts of one loaded model into token ids."""

    def __init__(self, engine: Engine, file: GgufFile) -> None:
        self._engine = engine
        self._file = file
        self._is_wordpiece = file.tokenizer_model == "bert"

    def tokenize(self, text: str) -> TokenIds:
        """Token ids, shape (n_tokens,), int32, no special tokens added.

        The text of a control token (``[SEP]``, ``</s>``) is plain text here: a document cannot
        end its own sequence.
        """
        if self._is_wordpiece and needs_own_tokenizer(text):
            return self._wordpiece.tokenize(text)
        if len(text) <= PIECE_CHARACTERS:
            return self._engine.tokenize(text)
        return np.concatenate([self._engine.tokenize(piece) for piece in _pieces(text)])

    @cached_property
    def _wordpiece(self) -> WordPiece:
        metadata = self._file.metadata
        lowercase = bool(metadata.get("tokenizer.ggml.normalizer.lowercase", True))
        return WordPiece(
            self._file.strings("tokenizer.ggml.tokens"),
            unk_id=int(metadata.get("tokenizer.ggml.unknown_token_id", 100)),
            lowercase=lowercase,
            strip_accents=bool(metadata.get("tokenizer.ggml.normalizer.strip_accents", lowercase)),
        )


def _pieces(text: str) -> Iterator[str]:
    """Parts of the text that tokenise on their own to the same ids: each but the first begins with
    the one space before a word.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        seams = [seam.start() for seam in _SEAM.finditer(text, start + PIECE_CHARACTERS // 2, end)]
        end = seams[-1] if seams else end
        yield text[start:end]
        start = end
    yield text[start:]
