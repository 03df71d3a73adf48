"""The pairs and texts that the goldens are made of: from one token to more than ``n_ctx``, in many scripts.

Some are written by hand, the others are pieces of ``tests/data``, drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

DATA = Path(__file__).parent.parent / "data"

BY_HAND = (
    ("a", "a"),
    ("a", ""),
    ("", "a"),
    ("?", "!"),
    ("7", "1776"),
    ("What is the capital of France?", "Paris is the capital of France."),
    ("What is the capital of France?", "Berlin is the capital of Germany."),
    ("Who makes the laws?", "All legislative Powers herein granted shall be vested in a Congress."),
    ("Who makes the laws?", "Bananas are yellow, and llamas live in Peru."),
    ("safe systems programming language", "Rust is a language empowering everyone to build reliable software."),
    ("HOW OLD MUST A SENATOR BE?", "No Person shall be a Senator who shall not have attained to the Age of 30"),
    ("naïve café façade", "Über die Brüderlichkeit: «schön», ÆØÅ, œuvre, Straße, İstanbul, ŁÓDŹ"),
    ("свобода и равенство", "Все люди рождаются свободными и равными в своем достоинстве и правах."),
    ("人人生而自由", "人间有味是清欢。「尊严」和权利上一律平等！"),
    ("吾輩は猫である", "ｶﾀｶﾅ と カタカナ、ＡＢＣ　１２３"),
    ("자유", "모든 인간은 태어날 때부터 자유로우며"),
    ("حرية", "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق."),
    ("מה נולד חופשי", "כל בני האדם נולדו בני חורין"),
    ("स्वतन्त्रता", "सभी मनुष्यों को गौरव और अधिकारों के मामले में"),
    ("มนุษย์", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน"),
    ("ελευθερία", "Όλοι οι άνθρωποι γεννιούνται ΕΛΕΎΘΕΡΟΙ και ίσοι, ΟΔΥΣΣΕΎΣ"),
    ("tự do", "Tất cả mọi người sinh ra đều được tự do và bình đẳng"),
    ("🙂", "🙂 👍🏽 👨‍👩‍👧 🇫🇷 ✅ ☃"),
    ("emoji 🙂 inside", "text 🚀 with 🦙 llamas 🦙🦙"),
    ("punctuation", "... --- !!! ??? ;;; ::: ''' \"\"\" ((( ))) [[ ]] {{ }} << >> /// \\\\ || ~~ ^^ ``` ### $$"),
    ("mixed-up: e.g. U.S.A.,", "it's 3.14% of $1,000.00 (i.e. ~£25/kg); e-mail: a_b@c.org, see http://x.y/z?q=1&r=2#s"),
    ("quotes", "“curly” ‘single’ „low“ — dash – en-dash … ellipsis • bullet · dot ′ prime"),
    ("def f(x):", "def f(x):\n    if x is None:\n\t\treturn {'a': [1, 2, 3]}\n    return x**2  # comment"),
    ("spaces", "  leading,   several    in a row,\ttabs\t\tand\n\nempty lines\r\n, trailing   "),
    ("spaces ", " \u00a0no-break\u00a0space, \u2003em space, \u3000ideographic"),
    ("invisible", "soft\u00adhyphen, zero\u200bwidth, joiner\u200d, mark\ufeff, left\u200e-to-right"),
    ("ligatures", "ﬁnd ﬂour ﬀ ½ ² ™ ℃ Ⅷ ㍿ ①"),
    ("mathematics", "∀x ∈ ℝ: x² ≥ 0 ∧ √2 ≈ 1.41421 ⇒ ∑ ≠ ∞ ± × ÷"),
    ("long word", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"),
    ("letters", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("repeated", "the the the the the the the the the the the the the the the the the the"),
    ("AaBbCc", "aAbBcC ZzYyXx iPhone McDonald's eBay O'Neill rock'n'roll they'll I'M WE'RE"),
    ("numbers", "0 1 12 123 1234 12345 123456 1,234,567 0x1F 1e-9 2026-01-31 23:59:59"),
    ("control tokens", "a [SEP] b </s> c <|im_end|> d [CLS] <s> <mask> [MASK] <|endoftext|> <pad> [PAD] [UNK] <unk>"),
    ("[SEP] </s> <|im_end|>", "<|im_start|>system\nSay yes.<|im_end|>"),
    # Letters with their accents apart, as macOS writes file names.
    ("cafe\u0301", "e\u0301te\u0301, nai\u0308ve, a\u030angstro\u0308m, \u1112\u1161\u11ab\u1100\u1173\u11af"),
    ("underline", "▁this▁is▁sentencepiece's▁space ##and ##bert's Ġand Ġgpt's"),
)

def pairs(n_drawn: int = 60) -> list[tuple[str, str]]:
    """Pairs by hand, then drawn ones: queries of up to 60 characters, documents of up to 220 words."""
    words = _Words(seed=7)
    drawn = [(words.some(1, 10)[:60], words.some(*_length(i, n_drawn))) for i in range(n_drawn)]
    return [*BY_HAND, *drawn]


def texts(n_drawn: int = 60) -> list[str]:
    """Single texts: every part of the pairs by hand, once, then drawn ones."""
    words = _Words(seed=8)
    by_hand = list(dict.fromkeys(text for pair in BY_HAND for text in pair))
    return by_hand + [words.some(*_length(i, n_drawn)) for i in range(n_drawn)]


def growing(seed: int) -> Iterator[str]:
    """A text of one English word, two words, three words and so on."""
    words = (DATA / "english.txt").read_text("utf-8").split()
    start = int(np.random.default_rng(seed).integers(len(words) // 2))
    return (" ".join(words[start : start + n]) for n in range(1, len(words) // 2))


class _Words:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._lines = (DATA / "world.txt").read_text("utf-8").splitlines()
        self._english = (DATA / "english.txt").read_text("utf-8").split()

    def some(self, least: int, most: int) -> str:
        n_words = int(self._random.integers(least, most + 1))
        if self._random.random() < 0.4:
            line = self._lines[int(self._random.integers(len(self._lines)))]
            return " ".join(line.split()[:n_words])
        start = int(self._random.integers(len(self._english) - n_words))
        return " ".join(self._english[start : start + n_words])


def _length(i: int, n: int) -> tuple[int, int]:
    longest = 2 + 218 * i // n
    return max(1, longest // 2), longest
