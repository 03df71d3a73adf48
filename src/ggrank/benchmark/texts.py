"""Made-up passages with a known number of tokens, the same ones every time.

Knows words and how often they occur; not what the texts are used for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ggrank.gguf import open_gguf
from ggrank.hub import find_model

SEED = 7

WORDS_AROUND_A_STOP = 13
ENDINGS = ("ness", "able", "ized", "wise", "ment", "ology")
SHARE_WITH_ENDING = 0.15
"""Of words that no vocabulary has whole: English text has about 1.3 tokens a word."""


class Writer:
    """Draws texts from the bundled model's words, which its vocabulary lists by frequency.

    Example:
        >>> len(Writer(lambda text: len(text.split())).passage(20).split())
        20
    """

    def __init__(self, count_tokens: Callable[[str], int], *, seed: int = SEED) -> None:
        self._count = count_tokens
        self._random = np.random.default_rng(seed)
        self._written: set[str] = set()

    def passage(self, n_tokens: int) -> str:
        """A text of ``n_tokens`` or few less: as many whole words as have room; none is given twice."""
        while (text := self._text(n_tokens)) in self._written:
            pass
        self._written.add(text)
        return text

    def _text(self, n_tokens: int) -> str:
        words = self._words(n_tokens)
        least, most = 1, len(words)
        while least < most:
            middle = (least + most + 1) // 2
            if self._count(" ".join(words[:middle])) <= n_tokens:
                least = middle
            else:
                most = middle - 1
        return " ".join(words[:least])

    def lengths(self, n: int, *, least: int, most: int) -> list[int]:
        """Tokens of passages as they lie in collections: many short, few long (lognormal)."""
        middle = float(np.sqrt(least * most))
        drawn = middle * np.exp(0.8 * self._random.standard_normal(n))
        return [int(length) for length in np.clip(drawn, least, most)]

    def _words(self, n: int) -> list[str]:
        chosen = self._random.choice(len(self._vocabulary), size=n, p=self._frequencies)
        words = [self._vocabulary[i] for i in chosen.tolist()]
        for i in np.flatnonzero(self._random.random(n) < SHARE_WITH_ENDING).tolist():
            words[i] += ENDINGS[int(self._random.integers(len(ENDINGS)))]
        for i in np.flatnonzero(self._random.random(n) < 1 / WORDS_AROUND_A_STOP).tolist():
            words[i] += "."
        return words

    @cached_property
    def _vocabulary(self) -> list[str]:
        tokens = open_gguf(find_model("all-minilm-l6-v2").path).strings("tokenizer.ggml.tokens")
        words = (token[1:] for token in tokens if token.startswith("\u2581"))
        return [word for word in words if len(word) > 1 and word.isascii() and word.isalpha()]

    @cached_property
    def _frequencies(self) -> NDArray[np.float64]:
        """Zipf's law, as Mandelbrot has it."""
        weights = 1 / (np.arange(len(self._vocabulary), dtype=np.float64) + 2.7)
        shares: NDArray[np.float64] = weights / weights.sum()
        return shares
