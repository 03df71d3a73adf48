"""Text to token ids, exactly as the original model's tokenizer does it; and texts that a model cannot read.

llama.cpp tokenizes, with two exceptions. It leaves out the NFC step of some byte-pair tokenizers, which is
done here. And its WordPiece (``llm_tokenizer_wpm_session`` in ``llama-vocab.cpp``) agrees with BERT's only
for short plain ASCII: it drops spacing vowel signs (Devanagari, Tamil, ...), does not split Korean
syllables, isolates punctuation by another Unicode version, and has no limit of 100 characters a word. All
other texts of WordPiece models go through Hugging Face's ``tokenizers``, which every BERT was trained with.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from ggrank.errors import warn
from ggrank.gguf import GgufFile
from ggrank.hub.presets import covers_many, multilingual_preset
from ggrank.types import Engine, TokenIds

PIECE_CHARACTERS = 50_000
"""Longer texts of byte-pair and unigram models go to llama.cpp in pieces, cut at white space. A longer word
is cut too; its tokens can then differ from the original's at the cut.
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
become other tokens. A GGUF has no field for it; ``tokenizer.ggml.pre`` names them.
"""

MAX_WORD_LENGTH = 100
"""Of WordPiece: a longer word is one unknown token (``max_input_chars_per_word`` of the original)."""

_NOT_PLAIN = re.compile(rf"[^\t\n\r -~]|[0-9A-Za-z]{{{MAX_WORD_LENGTH + 1}}}")
"""Found in texts that llama.cpp's WordPiece may split differently from BERT's. ``tokenizers`` is right for
all texts, but takes three to six times as long.
"""

_WORDPIECE_CHARACTERS = 10_000
"""Longer texts go to `tokenizers` in pieces."""

_WORDPIECE_SEAM = re.compile(r"[ \t\n\r!-/:-@\[-`{-~\u3400-\u4dbf\u4e00-\u9fff]")
"""Before white space, ASCII's punctuation and Chinese characters BERT always begins a new word."""

_WORD_START = "\u2581"
_SEAM = re.compile(r"(?<=\S)\s(?=\S)")

_LATIN = frozenset({"de", "en", "es", "fr", "id", "it", "nl", "pt", "vi"})
_SCRIPTS = {
    **{language: {"LATIN"} for language in _LATIN},
    "ar": {"ARABIC"},
    "hi": {"DEVANAGARI"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA"},
    "ru": {"CYRILLIC"},
    "zh": {"CJK"},
}
"""Scripts of languages, as Unicode's names of characters begin."""

_LOOKED_AT = 1000
"""Characters of a text whose script is looked up."""


class Tokenizer:
    """Turns the texts of one loaded model into token ids, and warns once of a text that it cannot read.

    ``languages`` are those that the model was trained for, as in `ggrank.hub.presets.Preset`.
    """

    def __init__(self, engine: Engine, file: GgufFile, *, languages: Sequence[str], reranker: bool) -> None:
        self._engine = engine
        self._file = file
        self._languages = languages
        self._reranker = reranker
        self._has_warned = False
        self._is_wordpiece = file.tokenizer_model == "bert"
        is_plain = file.tokenizer_model != "gpt2" or file.tokenizer_pre in PLAIN_PRE
        self._most_characters = PIECE_CHARACTERS if is_plain else SHORT_PIECE_CHARACTERS
        self._composes = file.tokenizer_model == "gpt2" and file.tokenizer_pre in COMPOSED_PRE
        self._last_prefix = ("", 0)  # and its tokens

    def tokenize(self, text: str, *, prefix: str = "") -> TokenIds:
        """Token ids of ``prefix`` and text, shape (n_tokens,), int32, no special tokens added.

        The text of a control token (``[SEP]``, ``</s>``) is plain text here: a document cannot
        end its own sequence.
        """
        tokens = self._ids(prefix + text)
        if not self._has_warned:
            self._warn_if_unreadable(text, tokens[self._length_of(prefix) :])
        return tokens

    def _length_of(self, prefix: str) -> int:
        last, n_tokens = self._last_prefix
        if prefix != last:
            n_tokens = len(self._ids(prefix))
            self._last_prefix = (prefix, n_tokens)
        return n_tokens

    def _warn_if_unreadable(self, text: str, tokens: TokenIds) -> None:
        knows_many = covers_many(self._languages)
        listed = () if knows_many else self._languages
        problem = why_unreadable(text, tokens, languages=listed, unknown_id=self._file.unknown_id)
        if problem is None:
            return
        self._has_warned = True
        better = multilingual_preset(reranker=self._reranker).name
        advice = "" if knows_many else f" Use a model for many languages, such as {better!r}."
        warn(f"{self._file.path.name} {problem}{advice}")

    def _ids(self, text: str) -> TokenIds:
        if self._is_wordpiece and (len(text) > PIECE_CHARACTERS or _NOT_PLAIN.search(text)):
            return np.concatenate([self._wordpiece(piece) for piece in _wordpiece_pieces(text)])
        if self._composes and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        if len(text) <= self._most_characters:
            return self._engine.tokenize(text)
        pieces = _pieces(text, self._most_characters)
        return np.concatenate([self._engine.tokenize(piece) for piece in pieces])

    @cached_property
    def _wordpiece(self) -> Callable[[str], TokenIds]:
        return bert_wordpiece(self._file)


def bert_wordpiece(file: GgufFile) -> Callable[[str], TokenIds]:
    """BERT's own tokenizer over the vocabulary of a file, in which a word's first piece begins with U+2581.

    ``[SEP]`` in a text is plain text: five characters, no control token.
    """
    # Imported only now: with the vocabulary it takes 0.1 s, and most texts are plain.
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    tokens = file.strings("tokenizer.ggml.tokens")
    vocabulary = {token[1:]: i for i, token in enumerate(tokens) if token.startswith(_WORD_START)}
    vocabulary |= {f"##{token}": i for i, token in enumerate(tokens) if not token.startswith(_WORD_START)}
    vocabulary["[UNK]"] = int(file.unknown_id or 0)
    lowercase = bool(file.metadata.get("tokenizer.ggml.normalizer.lowercase", True))
    strip_accents = bool(file.metadata.get("tokenizer.ggml.normalizer.strip_accents", lowercase))
    tokenizer = Tokenizer(
        models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    normalize = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents).normalize_str

    def tokenize(text: str) -> TokenIds:
        # Normalized in a call of its own: inside encode() the tokenizer would track the offset of each
        # character, which is a third slower. One text at a time: a batch starts threads, which a fork loses.
        return np.array(tokenizer.encode(normalize(text), add_special_tokens=False).ids, np.int32)

    return tokenize


def _wordpiece_pieces(text: str) -> Iterator[str]:
    """Pieces whose ids together are those of the text, unless it has a word of 40,000 characters.

    While it works, `tokenizers` takes 600 bytes a token, which is 5 GB for a text of 16 MB.
    """
    start = 0
    while len(text) > start + _WORDPIECE_CHARACTERS:
        most = start + PIECE_CHARACTERS
        seam = _WORDPIECE_SEAM.search(text, start + _WORDPIECE_CHARACTERS, most)
        end = seam.start() if seam else most
        yield text[start:end]
        start = end
    yield text[start:]


def _pieces(text: str, most: int) -> Iterator[str]:
    """Pieces of the text whose ids together are those of the text: each but the first begins with the one
    space before a word.
    """
    start = 0
    while len(text) - start > most:
        end = start + most
        seams = [seam.start() for seam in _SEAM.finditer(text, start + most // 2, end)]
        end = seams[-1] if seams else end
        yield text[start:end]
        start = end
    yield text[start:]


def why_unreadable(
    text: str, tokens: TokenIds, *, languages: Sequence[str], unknown_id: int | None
) -> str | None:
    """Why a model cannot read a text, as the end of a sentence; None if it can.

    Args:
        tokens: of the text, without special tokens.
        languages: that the model was trained for; empty if it does not matter.
        unknown_id: the token for what is not in the vocabulary; None if there is none.
    """
    # A text without letters, such as an emoji, says nothing about its language.
    n_unknown = 0 if unknown_id is None else np.count_nonzero(tokens == unknown_id)
    if 2 * n_unknown > len(tokens) and any(map(str.isalpha, text[:_LOOKED_AT])):
        return "does not know over half of the tokens of a text: all such texts look alike to it."
    script = foreign_script(text, languages)
    if script is None:
        return None
    known = ", ".join(languages)
    return f"was trained for {known}, but most letters of a text are {script}: it ranks such texts badly."


def foreign_script(text: str, languages: Sequence[str]) -> str | None:
    """The script of most letters of a text, if none of these languages uses it; else None.

    Example:
        >>> foreign_script("Где живут ламы?", ["en"]), foreign_script("日本 means Japan", ["en"])
        ('Cyrillic', None)
    """
    if text.isascii() or not languages or not _SCRIPTS.keys() >= set(languages):
        return None
    used = {script for language in languages for script in _SCRIPTS[language]}
    # Full-width and mathematical letters are Latin ones after NFKC.
    letters = filter(str.isalpha, unicodedata.normalize("NFKC", text[:_LOOKED_AT]))
    scripts = Counter(map(_script, letters))
    foreign = Counter({script: n for script, n in scripts.items() if script not in used})
    if 2 * foreign.total() <= scripts.total():
        return None
    most = foreign.most_common(1)[0][0]
    return "Chinese" if most == "CJK" else most.title()


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
