"""Texts that a model cannot read: unknown words, or another script than its languages have."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

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
