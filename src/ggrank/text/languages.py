"""Warnings of texts that a model cannot read: unknown words, or another script than its languages have."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ggrank.errors import GgrankWarning
from ggrank.hub.presets import covers_many, multilingual_preset
from ggrank.types import TokenIds

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


class Readability:
    """Warns, once, of texts that a model cannot read.

    Args:
        model: what the warning calls it.
        languages: that the model was trained for, as in `Preset`; empty if not known.
        unknown_id: the token for what is not in the vocabulary; None if there is none.
        reranker: whether the model is one.
    """

    def __init__(
        self, model: str, *, languages: Sequence[str], unknown_id: int | None, reranker: bool
    ) -> None:
        self._model = model
        self._unknown_id = unknown_id
        self._reranker = reranker
        self._knows_many = covers_many(languages)
        self._languages = () if self._knows_many else tuple(languages)
        self._has_warned = False

    def look(self, text: str, tokens: TokenIds) -> None:
        """Warns if the model cannot read this text, of which ``tokens`` are the ids without special ones."""
        if self._has_warned:
            return
        problem = self._problem(text, tokens)
        if problem:
            self._has_warned = True
            warnings.warn(f"{self._model} {problem}{self._advice()}", GgrankWarning, stacklevel=2)

    def _problem(self, text: str, tokens: TokenIds) -> str | None:
        # A text without letters, such as an emoji, says nothing about its language.
        n_unknown = 0 if self._unknown_id is None else np.count_nonzero(tokens == self._unknown_id)
        if 2 * n_unknown > len(tokens) and any(map(str.isalpha, text[:_LOOKED_AT])):
            return "does not know over half of the tokens of a text: all such texts look alike to it."
        script = foreign_script(text, self._languages)
        if script is None:
            return None
        known = ", ".join(self._languages)
        return f"was trained for {known}, but most letters of a text are {script}: it ranks such texts badly."

    def _advice(self) -> str:
        better = multilingual_preset(reranker=self._reranker).name
        return "" if self._knows_many else f" Use a model for many languages, such as {better!r}."


def foreign_script(text: str, languages: Sequence[str]) -> str | None:
    """The script of most letters of a text, if none of these languages uses it; else None.

    Example:
        >>> foreign_script("Где живут ламы?", ["en"]), foreign_script("Où vivent les lamas ?", ["en"])
        ('Cyrillic', None)
        >>> foreign_script("日本 means Japan", ["en"]), foreign_script("羊驼住在秘鲁", ["en", "zh"])
        (None, None)
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
