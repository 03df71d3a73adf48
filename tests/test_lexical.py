"""BM25 on FTS5: the published scores, and any query is safe."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest

from ggrank import InputError, lexical
from ggrank.errors import InputTypeError
from ggrank.search.lexical import Bm25, LexicalHit

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


def test_words_match_by_stem_and_without_case_and_accents() -> None:
    bm25 = Bm25(FOXES)
    assert [hit.position for hit in bm25.search("LLAMA grazes", k=3)] == [5]
    assert [hit.position for hit in bm25.search("cafe NAI\u0308VE", k=3)] == [3]


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


@pytest.mark.parametrize("k", [0, -1, 1.5, None, True])
def test_k_is_a_whole_number_of_at_least_one(k: object) -> None:
    with pytest.raises(InputError, match="k must be"):
        Bm25(FOXES).search("fox", k=k)  # type: ignore[arg-type]


def test_a_text_that_is_no_string_is_named() -> None:
    with pytest.raises(InputTypeError, match="text 1"):
        Bm25(["a", 2])  # type: ignore[list-item]


def test_threads_get_what_one_thread_gets() -> None:
    bm25 = Bm25(f"passage {i} word{i % 7}" for i in range(500))
    alone = [bm25.search(f"word{i % 7}", k=9) for i in range(40)]
    found: list[list[LexicalHit] | None] = [None] * 40

    def search(i: int) -> None:
        found[i] = bm25.search(f"word{i % 7}", k=9)

    threads = [threading.Thread(target=search, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
