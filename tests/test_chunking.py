"""Texts to passages: nothing is lost, nothing is too long, and cuts are where a reader would pause."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.search.chunking import Span, cut, embedded_text, passages
from ggrank.search.sections import Block, FileDocument, assembled, markdown


def words(text: str) -> int:
    return len(text.split())


def pieces(text: str, *, most: int, overlap: int = 0) -> list[str]:
    found = cut(text, count_tokens=words, most=most, overlap=overlap)
    return [text[one.start : one.end] for one in found]


texts = st.text(st.sampled_from("ab .?!\n\t-1\u3002é"), max_size=400)


@given(texts, st.integers(1, 12), st.integers(0, 6))
def test_every_character_but_white_space_is_in_a_passage_at_its_place(
    text: str, most: int, overlap: int
) -> None:
    overlap = min(overlap, most // 2)
    found = list(cut(text, count_tokens=words, most=most, overlap=overlap))
    assert all((shown := text[one.start : one.end]) == shown.strip() != "" for one in found)
    covered = {i for one in found for i in range(one.start, one.end)}
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    assert [one.start for one in found] == sorted({one.start for one in found})


@given(texts, st.integers(1, 12), st.integers(0, 6))
def test_no_passage_is_longer_than_it_may_be(text: str, most: int, overlap: int) -> None:
    found = list(cut(text, count_tokens=words, most=most, overlap=min(overlap, most // 2)))
    assert all(words(text[one.start : one.end]) <= most for one in found)


@given(texts, st.integers(2, 12))
def test_neighbours_share_no_more_than_the_overlap(text: str, most: int) -> None:
    overlap = most // 2
    found = list(cut(text, count_tokens=words, most=most, overlap=overlap))
    shared = [text[after.start : before.end] for before, after in pairwise(found)]
    assert all(words(part) <= overlap for part in shared)


def test_a_text_that_fits_is_one_passage() -> None:
    assert list(cut("  A b.\n\nC. ", count_tokens=words, most=9, overlap=2)) == [Span(2, 10, 3)]
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
    assert all(one.end - one.start <= 64 for one in found)
    assert found[0].start == 0
    assert found[-1].end == 1000
    assert all(after.start <= before.end for before, after in pairwise(found))


def test_chinese_sentences_need_no_space_between_them() -> None:
    text = "\u4f60\u597d\u3002\u518d\u89c1\u3002" * 3
    found = cut(text, count_tokens=len, most=6, overlap=0)
    assert [text[one.start : one.end] for one in found] == [text[:6]] * 3


def test_items_of_a_list_are_sentences_and_wrapped_lines_are_not() -> None:
    text = "- one two\n- three four\n- five six\n"
    assert pieces(text, most=6) == ["- one two\n- three four", "- five six"]
    wrapped = "a b c\nd e f. g h\ni j k."
    assert pieces(wrapped, most=6) == ["a b c\nd e f.", "g h\ni j k."]


@pytest.mark.parametrize("size", [100_000])
def test_a_long_text_is_cut_in_time(size: int) -> None:
    text = "word " * size
    assert sum(map(words, pieces(text, most=200))) == size


def shown(document: FileDocument, *, most: int = 100) -> list[tuple[str, str]]:
    found = passages(document, count_tokens=words, most=most, overlap=0)
    return [(one.headings, document.text[one.start : one.end]) for one in found]


HANDBOOK = """---
title: Handbook
---

# Staff handbook

## Travel

The company pays for travel by rail.

## Leave

All have 25 days.

### Illness

Tell Ana.

### Children

See Bo.

## To do

# Cities

Paris.
"""


def test_a_passage_is_the_text_of_a_section_under_the_path_of_its_headings() -> None:
    assert shown(markdown(HANDBOOK), most=30) == [
        ("Staff handbook > Travel", "The company pays for travel by rail."),
        ("Staff handbook > Leave", "All have 25 days."),
        ("Staff handbook > Leave > Illness", "Tell Ana."),
        ("Staff handbook > Leave > Children", "See Bo.\n\n## To do"),
        ("Handbook > Cities", "Paris."),
    ]


def test_short_sections_join_the_next_one_under_the_same_heading() -> None:
    assert shown(markdown(HANDBOOK)) == [
        ("Staff handbook > Travel", "The company pays for travel by rail."),
        ("Staff handbook > Leave", "All have 25 days.\n\n### Illness\n\nTell Ana."),
        ("Staff handbook > Leave > Children", "See Bo.\n\n## To do"),
        ("Handbook > Cities", "Paris."),
    ]


def test_headings_are_a_passage_only_where_nothing_else_is_there() -> None:
    assert shown(markdown("# Milk\n\n# Bread\n")) == [("Milk", "# Milk\n\n# Bread")]
    assert shown(markdown("---\na: b\n---\n")) == []


def test_a_long_section_is_cut_and_each_passage_has_the_path_and_its_line() -> None:
    document = markdown("# Numbers\n\n" + "\n\n".join(f"n{i} is a number." for i in range(9)))
    found = list(passages(document, count_tokens=words, most=9, overlap=0))
    assert [(one.headings, one.line, one.n_tokens) for one in found] == [
        ("Numbers", 3 + 4 * i, 1 + 4 * min(2, 9 - 2 * i)) for i in range(5)
    ]


def test_a_path_leaves_room_for_the_text() -> None:
    document = markdown(f"# {'a ' * 50}\n## {'b ' * 50}\n\n{'c ' * 50}")
    found = list(passages(document, count_tokens=words, most=20, overlap=8))
    assert all(words(one.headings) <= 5 and one.n_tokens <= 20 for one in found)
    assert all(set(one.headings.split()) == {"b"} for one in found)


def test_pages_are_places_and_short_ones_join() -> None:
    pages = [
        Block("A b c d e f g h i j.", place="page 1"),
        Block("K.", place="page 2"),
        Block("L.", place="page 3"),
    ]
    found = passages(assembled(pages, title="Paper"), count_tokens=words, most=40, overlap=0)
    assert [(one.headings, one.place) for one in found] == [("Paper", "page 1"), ("Paper", "page 2")]


def test_what_is_embedded_has_the_path_before_it_and_whole_words() -> None:
    assert (
        embedded_text("Staff > O\ufb03ce", "e\ufb03-\ncient 10\u00b2")
        == "Staff > Office\n\nefficient 10\u00b2"
    )
    assert embedded_text("", "text") == "text"
