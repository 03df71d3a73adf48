"""BM25 on FTS5: the published scores, and any query is safe."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter

import pytest

from ggrank.search import lexical
from ggrank.search.lexical import Bm25, LexicalHit, best_window, find_phrases, find_words
from ggrank.search.words import parse

FOXES = [
    "the quick brown fox",
    "quick quick hare",
    "one lazy dog sleeps all day long",
    "café naïve",
    "a brown bear",
    "grazing llamas",
]


def published(query: list[str], texts: list[str], *, k1: float = 1.2, b: float = 0.75) -> list[float]:
    """BM25 as Robertson and Zaragoza write it (The Probabilistic Relevance Framework, 2009, section 3)."""
    bags = [Counter(text.split()) for text in texts]
    lengths = [sum(bag.values()) for bag in bags]
    mean = sum(lengths) / len(lengths)
    scores = [0.0] * len(texts)
    for word in query:
        n = sum(word in bag for bag in bags)
        weight = math.log((len(texts) - n + 0.5) / (n + 0.5))
        for i, bag in enumerate(bags):
            scores[i] += weight * bag[word] * (k1 + 1) / (bag[word] + k1 * (1 - b + b * lengths[i] / mean))
    return scores


def assert_published(hits: list[LexicalHit], scores: list[float]) -> None:
    expected = sorted((i for i, score in enumerate(scores) if score), key=lambda i: (-scores[i], i))
    assert [hit.position for hit in hits] == expected
    assert [hit.score for hit in hits] == pytest.approx([scores[i] for i in expected], rel=1e-6)


def test_scores_are_those_of_the_published_formula() -> None:
    assert_published(Bm25(FOXES).search("quick brown day", k=9), published(["quick", "brown", "day"], FOXES))


def test_scores_stay_the_published_ones_when_rare_words_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "ENOUGH", 3)
    scores = published(["bear", "brown", "quick"], FOXES)
    # "bear" and "brown" choose: the hare, which has only "quick", is not looked at.
    assert_published(
        Bm25(FOXES).search("quick brown bear", k=9), [s if i != 1 else 0 for i, s in enumerate(scores)]
    )


def test_words_match_by_stem_and_without_case() -> None:
    bm25 = Bm25(FOXES)
    assert [hit.position for hit in bm25.search("LLAMA grazes", k=3)] == [5]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("le café naïve", "cafe NAI\u0308VE"),
        ("Fußgängerstraße", "FUSSGANGERSTRASSE"),
        ("\u0451\u043b\u043a\u0430", "\u0435\u043b\u043a\u0430"),  # Russian with io, and with ie
        (
            "\u03ac\u03bd\u03b8\u03c1\u03c9\u03c0\u03bf\u03c2",
            "\u0391\u039d\u0398\u03a1\u03a9\u03a0\u039f\u03a3",
        ),
        ("\u0623\u064e\u062d\u0645\u062f", "\u0627\u062d\u0645\u062f"),  # Arabic with hamza and a vowel
        ("\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd", "\u05e9\u05dc\u05d5\u05dd"),  # pointed Hebrew
        ("\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902", "\u0939\u093f\u0928\u094d\u0926\u0940"),
        ("\u7c73\u56fd\u306e\u6771\u4eac\u90fd\u306b\u884c\u304f", "\u6771\u4eac"),
        ("\u9ed2\u732b", "\u732b"),
        ("\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22\u0e2a\u0e27\u0e22", "\u0e44\u0e17\u0e22"),
        ("\uace0\uc591\uc774\ub294", "\uace0\uc591\uc774"),  # a Korean word with its particle
        (unicodedata.normalize("NFD", "\uace0\uc591\uc774"), "\uace0\uc591\uc774"),
        ("\uff21\uff22\uff23 \uff8a\uff9e\uff85\uff85", "abc"),
        ("\uff8a\uff9e\uff85\uff85", "\u30d0\u30ca\u30ca"),  # half-width katakana
        ("\ufb01nancial", "financial"),
        ("co\u00adop\u00aderation", "cooperation"),
        ("effi-\n  ciency", "efficiency"),
    ],
    ids=ascii,
)
def test_words_match_in_every_script_and_shape(text: str, query: str) -> None:
    bm25 = Bm25(["nothing here", text, "\u5c71 \u0e14\u0e35 \ub098 other"])
    assert [hit.position for hit in bm25.search(query, k=3)] == [1]


@pytest.mark.parametrize(
    ("text", "query"),
    [("10\u00b2 metres", "102"), ("\u304b\u304d", "\u304c\u304e"), ("Well-\nKnown", "WellKnown")],
    ids=ascii,
)
def test_what_means_something_else_does_not_match(text: str, query: str) -> None:
    assert Bm25([text, "nothing"]).search(query, k=3) == []


@pytest.mark.parametrize(
    ("query", "text", "shown"),
    [
        ("grazing llama", "The (Llamas) graze; no-llama.", ["Llamas", "graze", "llama"]),
        ("efficient", "E\ufb03-\ncient and ef\u00adficient.", ["E\ufb03-\ncient", "ef\u00adficient"]),
        ("\u6771\u4eac\u90fd", "\u660e\u65e5\u3001\u6771\u4eac\u90fd\u306b", ["\u6771\u4eac\u90fd"]),
        ("zebra", "No such animal.", []),
        ("", "No query.", []),
    ],
    ids=ascii,
)
def test_words_are_found_in_the_original_text(query: str, text: str, shown: list[str]) -> None:
    assert [text[start:end] for start, end in find_words(query, text)] == shown


def test_the_best_window_has_most_different_words() -> None:
    text = "llama llama llama " + "filler " * 50 + "a llama grazes here " + "filler " * 50
    start, end = best_window(text, find_words("llama graze", text), n_characters=60)
    assert "llama grazes" in text[start:end]
    assert end - start <= 60
    assert best_window("short", [], n_characters=60) == (0, 5)


def test_a_long_query_keeps_the_words_that_it_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "MOST_WORDS", 1)
    assert [hit.position for hit in Bm25(FOXES).search("bear fox fox", k=9)] == [0]


@pytest.mark.parametrize(
    ("query", "text", "required", "excluded"),
    [
        ("who pays for travel?", "who pays for travel?", [], []),
        ('"annual leave" policy', "annual leave policy", ["annual leave"], []),
        ('policy -draft -"last year"', "policy", [], ["draft", "last year"]),
        ("\u201cannual leave\u201d \u201ethat\u201c", "annual leave that", ["annual leave", "that"], []),
        ('("annual leave"), "x"', "(annual leave), x", ["annual leave", "x"], []),
        ("\u72ac -\u732b", "\u72ac", [], ["\u732b"]),
        ("leave -e-mail -draft,", "leave", [], ["e-mail", "draft,"]),
        ("re-ranking covid-19 - dash --flag", "re-ranking covid-19 - dash --flag", [], []),
        ("-40 degrees -.5 -> -_x a-", "-40 degrees -.5 -> -_x a-", [], []),
        ('a 15" and a 17" monitor', 'a 15" and a 17" monitor', [], []),
        ('say "yes', 'say "yes', [], []),
        ('foo-"bar" x"y" "a"b', 'foo-"bar" x"y" "a"b', [], []),
        (r"\"hello\" \-x C:\-y", '"hello" -x C:\\-y', [], []),
        ('"?!" wow', "?! wow", [], []),
        ('""  two  spaces', '""  two  spaces', [], []),
        ("", "", [], []),
        ("-draft", "", [], ["draft"]),
        ('"a\nb"', "a b", ["a\nb"], []),
    ],
    ids=ascii,
)
def test_what_a_query_means(query: str, text: str, required: list[str], excluded: list[str]) -> None:
    asked = parse(query)
    assert (asked.text, list(asked.required), list(asked.excluded)) == (text, required, excluded)


@pytest.mark.parametrize(
    ("query", "text", "shown"),
    [
        ('"leave of absence"', "Leave, of Absence; leaves of absence.", ["Leave, of Absence"]),
        ('"\u6771\u4eac" "\u4eac\u90fd"', "\u6771\u4eac\u90fd", ["\u6771\u4eac", "\u4eac\u90fd"]),
        ("leave of absence -of", "leave of absence", []),
    ],
    ids=ascii,
)
def test_phrases_are_found_in_the_original_text(query: str, text: str, shown: list[str]) -> None:
    assert [text[start:end] for start, end in find_phrases(query, text)] == shown


def test_ties_keep_the_input_order() -> None:
    texts = ["nothing", "same words", "nothing", "same words", "nothing", "nothing", "same words"]
    assert [hit.position for hit in Bm25(texts).search("words", k=2)] == [1, 3]


def test_stop_words_count_only_where_there_are_no_others() -> None:
    bm25 = Bm25([*FOXES, "to be or not to be"])
    assert [hit.position for hit in bm25.search("the fox", k=9)] == [0]
    assert [hit.position for hit in bm25.search("to be", k=9)] == [6]


@pytest.mark.parametrize(
    "query",
    [
        "",
        " \n",
        '"',
        "'; DROP TABLE words; --",
        "*",
        "^",
        "()",
        "?!",
        "\0",
        "\ud800",
        "AND",
        "🦊",
        "x" * 2_000_000,
    ],
)
def test_a_query_without_a_known_word_finds_nothing(query: str) -> None:
    assert Bm25(FOXES).search(query, k=3) == []


@pytest.mark.parametrize(
    "query",
    [
        '"fox',
        "fox NEAR(",
        "NOT fox",
        "text:fox",
        "{text} : ^fox",
        "-fox*",
        "fox\0hound",
        "fox" + " zebra" * 300_000,
        f"fox {' '.join(map(str, range(50_000)))}",
    ],
    ids=lambda query: query[:12],
)
def test_no_part_of_a_query_is_an_operator(query: str) -> None:
    assert [hit.position for hit in Bm25(FOXES).search(query, k=3)] == [0]


def test_texts_may_hold_anything() -> None:
    bm25 = Bm25(["", "fox\0hound", "lone \ud800 surrogate", "x" * 100_000])
    assert [hit.position for hit in bm25.search("hound", k=3)] == [1]
    assert [hit.position for hit in bm25.search("surrogate", k=3)] == [2]


def test_nothing_is_found_in_nothing() -> None:
    assert Bm25([]).search("fox", k=3) == []


@pytest.mark.parametrize("text", ["The price in Thailand is ฿ 500", "။ ၊", "日本語・", "។"])
def test_punctuation_of_unspaced_scripts_is_no_word(text: str) -> None:
    assert all(text[start:end].strip("฿။၊・។ ") for start, end in find_words(text, text))
