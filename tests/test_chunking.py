"""Texts to passages: nothing is lost, nothing is too long, and cuts are where a reader would pause."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.search.chunking import Passage, cut


def words(text: str) -> int:
    return len(text.split())


def pieces(text: str, *, most: int, overlap: int = 0) -> list[str]:
    return [passage.text for passage in cut(text, count_tokens=words, most=most, overlap=overlap)]


texts = st.text(st.sampled_from("ab .?!\n\t-1\u3002é"), max_size=400)


@given(texts, st.integers(1, 12), st.integers(0, 6))
def test_every_character_but_white_space_is_in_a_passage_at_its_place(
    text: str, most: int, overlap: int
) -> None:
    overlap = min(overlap, most // 2)
    found = list(cut(text, count_tokens=words, most=most, overlap=overlap))
    assert all(text[one.start : one.end] == one.text == one.text.strip() != "" for one in found)
    covered = {i for one in found for i in range(one.start, one.end)}
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    assert [one.start for one in found] == sorted({one.start for one in found})


@given(texts, st.integers(1, 12), st.integers(0, 6))
def test_no_passage_is_longer_than_it_may_be(text: str, most: int, overlap: int) -> None:
    found = list(cut(text, count_tokens=words, most=most, overlap=min(overlap, most // 2)))
    assert all(words(one.text) <= most for one in found)


@given(texts, st.integers(2, 12))
def test_neighbours_share_no_more_than_the_overlap(text: str, most: int) -> None:
    overlap = most // 2
    found = list(cut(text, count_tokens=words, most=most, overlap=overlap))
    shared = [text[after.start : before.end] for before, after in pairwise(found)]
    assert all(words(part) <= overlap for part in shared)


def test_a_text_that_fits_is_one_passage() -> None:
    assert list(cut("  A b.\n\nC. ", count_tokens=words, most=9, overlap=2)) == [
        Passage("A b.\n\nC.", 2, 10, 3)
    ]
    assert pieces(" \n ", most=3) == []


def test_paragraphs_stay_whole_where_that_leaves_passages_at_least_half_full() -> None:
    text = "One two. Three four.\n\nFive six. Seven eight. Nine ten."
    assert pieces(text, most=7) == ["One two. Three four.", "Five six. Seven eight. Nine ten."]
    # A passage of two words of seven would be too small: here the sentence decides.
    text = "One two.\n\nThree four. Five six. Seven eight."
    assert pieces(text, most=7) == ["One two.\n\nThree four. Five six.", "Seven eight."]


def test_sentences_stay_whole() -> None:
    text = 'He said "go on." Then he left? "Yes!" (It was late.) The end.'
    found = ['He said "go on."', 'Then he left? "Yes!"', "(It was late.)", "The end."]
    assert pieces(text, most=4) == found


def test_a_passage_begins_with_the_last_sentences_of_the_one_before() -> None:
    assert pieces("A b. C d. E f. G h.", most=4, overlap=2) == ["A b. C d.", "C d. E f.", "E f. G h."]


def test_a_sentence_that_is_too_long_is_cut_at_white_space() -> None:
    found = pieces(" ".join(f"w{i}" for i in range(50)), most=8)
    assert " ".join(found).split() == [f"w{i}" for i in range(50)]


def test_a_word_that_is_too_long_is_cut_too() -> None:
    found = list(cut("x" * 1000, count_tokens=len, most=64, overlap=8))
    assert all(len(one.text) <= 64 for one in found)
    assert found[0].start == 0
    assert found[-1].end == 1000
    assert all(after.start <= before.end for before, after in pairwise(found))


def test_chinese_sentences_need_no_space_between_them() -> None:
    text = "\u4f60\u597d\u3002\u518d\u89c1\u3002" * 3
    assert [one.text for one in cut(text, count_tokens=len, most=6, overlap=0)] == [text[:6]] * 3


def test_items_of_a_list_are_sentences_and_wrapped_lines_are_not() -> None:
    text = "- one two\n- three four\n- five six\n"
    assert pieces(text, most=6) == ["- one two\n- three four", "- five six"]
    wrapped = "a b c\nd e f. g h\ni j k."
    assert pieces(wrapped, most=6) == ["a b c\nd e f.", "g h\ni j k."]


@pytest.mark.parametrize("size", [100_000])
def test_a_long_text_is_cut_in_time(size: int) -> None:
    text = "word " * size
    assert sum(map(words, pieces(text, most=200))) == size
