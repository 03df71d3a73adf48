"""Text to token ids, exactly as the original model's tokenizer does it.

Knows which tokenizer serves a text: llama.cpp's, or for WordPiece models our own where llama.cpp's
differs (`ggrank.wordpiece` says how); and what it needs done to a text first, where llama.cpp leaves a
step of the original out. Knows nothing of pairs, budgets or vectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from ggrank.gguf_file import GgufFile
from ggrank.types import Engine, TokenIds
from ggrank.wordpiece import WordPiece, needs_own_tokenizer

PIECE_CHARACTERS = 50_000
"""Longer texts go to llama.cpp in pieces, parted at white space; a word that is longer still is
parted too, and its tokens can then differ from the original's at the seam.
"""

SHORT_PIECE_CHARACTERS = 1_000
"""The same for byte-pair tokenizers that llama.cpp splits with ``std::regex``, which recurses for each
character: a run of 16,000 overflows the stack of a main thread, one of 2,000 that of a small one, and
ends the process. `PLAIN_PRE` have a splitter of their own in llama.cpp's ``unicode.cpp``; each was
tried with runs of 50,000 characters on a stack of 512 KB.
"""

PLAIN_PRE = frozenset(
    {
        *("chatglm-bpe", "command-r", "dbrx", "exaone", "gpt-2", "jina-v2-code", "jina-v2-de", "kimi-k2"),
        *("llama-bpe", "modern-bert", "mpt", "qwen2", "qwen35", "roberta-bpe", "smaug-bpe", "starcoder"),
    }
)

COMPOSED_PRE = frozenset({"modern-bert", "qwen2"})
"""Byte-pair tokenizers that compose characters first: ``"normalizer": {"type": "NFC"}`` in the
tokenizer.json of ModernBERT and Qwen. llama.cpp does not, so that "é" of two code points would
become other tokens. A GGUF has no field for it; ``tokenizer.ggml.pre`` tells.
"""

_SEAM = re.compile(r"(?<=\S)\s(?=\S)")


class Tokenizer:
    """Turns the texts of one loaded model into token ids."""

    def __init__(self, engine: Engine, file: GgufFile) -> None:
        self._engine = engine
        self._file = file
        self._is_wordpiece = file.tokenizer_model == "bert"
        is_plain = file.tokenizer_model != "gpt2" or file.tokenizer_pre in PLAIN_PRE
        self._most_characters = PIECE_CHARACTERS if is_plain else SHORT_PIECE_CHARACTERS
        self._composes = file.tokenizer_model == "gpt2" and file.tokenizer_pre in COMPOSED_PRE

    def tokenize(self, text: str) -> TokenIds:
        """Token ids, shape (n_tokens,), int32, no special tokens added.

        The text of a control token (``[SEP]``, ``</s>``) is plain text here: a document cannot
        end its own sequence.
        """
        if self._is_wordpiece and needs_own_tokenizer(text):
            return self._wordpiece.tokenize(text)
        if self._composes and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if len(text) <= self._most_characters:
            return self._engine.tokenize(text)
        pieces = _pieces(text, self._most_characters)
        return np.concatenate([self._engine.tokenize(piece) for piece in pieces])

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


def _pieces(text: str, most: int) -> Iterator[str]:
    """Parts of the text that tokenise on their own to the same ids: each but the first begins with
    the one space before a word.
    """
    start = 0
    while len(text) - start > most:
        end = start + most
        seams = [seam.start() for seam in _SEAM.finditer(text, start + most // 2, end)]
        end = seams[-1] if seams else end
        yield text[start:end]
        start = end
    yield text[start:]
