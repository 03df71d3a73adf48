"""Texts get the token ids that BERT's own tokenizer gives them, on every Python."""

from __future__ import annotations

import hashlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import make_goldens_bundled
from ggrank.gguf_file import open_gguf
from ggrank.presets import bundled_path, presets
from ggrank.wordpiece import MAX_WORD_LENGTH, WordPiece, needs_own_tokenizer

UNK, CLS, SEP = 100, 101, 102
FIRST = "\u2581"


@pytest.fixture(scope="module")
def bundled() -> WordPiece:
    file = open_gguf(bundled_path(presets()["all-minilm-l6-v2"]))
    return WordPiece(file.strings("tokenizer.ggml.tokens"), unk_id=UNK)


def small(*tokens: str, lowercase: bool = True, strip_accents: bool = True) -> WordPiece:
    """Token 0 is unknown; the others are the given ones, from 1."""
    return WordPiece(["[UNK]", *tokens], unk_id=0, lowercase=lowercase, strip_accents=strip_accents)


def test_every_text_has_the_original_tokenizer_s_ids(bundled: WordPiece) -> None:
    goldens = make_goldens_bundled.read()
    assert len(goldens) >= 250
    different = [
        golden.name
        for golden in goldens
        if [CLS, *bundled.tokenize(golden.text)[: 256 - 2], SEP] != golden.ids.tolist()
    ]
    assert different == []


def test_the_longest_piece_that_fits_comes_first() -> None:
    wordpiece = small(FIRST + "re", FIRST + "read", "a", "d", "able")
    assert wordpiece.tokenize("readable read re").tolist() == [2, 5, 2, 1]


def test_a_word_with_one_unknown_piece_is_unknown_as_a_whole() -> None:
    assert small(FIRST + "read", "able").tokenize("readably readable").tolist() == [0, 1, 2]


def test_a_piece_within_a_word_does_not_begin_one() -> None:
    assert small("able").tokenize("able").tolist() == [0]


def test_a_word_of_more_than_100_characters_is_unknown() -> None:
    wordpiece = small(FIRST + "a", "a")
    assert wordpiece.tokenize("a" * MAX_WORD_LENGTH).size == MAX_WORD_LENGTH
    assert wordpiece.tokenize("a" * (MAX_WORD_LENGTH + 1)).tolist() == [0]


def test_the_length_of_a_word_counts_after_accents_are_gone() -> None:
    wordpiece = small(FIRST + "e", "e")
    assert wordpiece.tokenize("é" * MAX_WORD_LENGTH).size == MAX_WORD_LENGTH


def test_the_text_of_a_control_token_is_plain_text(bundled: WordPiece) -> None:
    assert not {UNK, CLS, SEP} & set(bundled.tokenize("[CLS] [SEP] [UNK] [PAD]").tolist())


def test_punctuation_and_ideographs_are_words_of_their_own(bundled: WordPiece) -> None:
    assert bundled.tokenize("can't日本").tolist() == bundled.tokenize("can ' t 日 本").tolist()


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("Crème BRÛLÉE", "creme brulee"),
        ("İstanbul", "istanbul"),
        ("ΟΔΟΣ", "οδοσ"),
        ("a\u00adb\u200bc\x00d\ufffd", "abcd"),
        ("a\tb\nc\u00a0d\u3000e\u2028f", "a b c d e f"),
        ("한", "\u1112\u1161\u11ab"),
        ("x ≠ y", "x = y"),
        ("\ud800lone surrogates\udfff", "lone surrogates"),
    ],
)
def test_what_is_read_alike_gets_the_same_ids(written: str, read_as: str, bundled: WordPiece) -> None:
    assert bundled.tokenize(written).tolist() == bundled.tokenize(read_as).tolist()


def test_a_spacing_vowel_sign_stays() -> None:
    assert small(FIRST + "क", "ा").tokenize("का").tolist() == [1, 2]


def test_a_cased_vocabulary_keeps_case_and_accents() -> None:
    wordpiece = small(FIRST + "É", FIRST + "e", lowercase=False, strip_accents=False)
    assert wordpiece.tokenize("É e é E").tolist() == [1, 2, 0, 0]


def test_accents_may_stay_where_case_goes() -> None:
    assert small(FIRST + "é", lowercase=True, strip_accents=False).tokenize("É é E").tolist() == [1, 1, 0]


@pytest.mark.parametrize("text", ["", "  \n ", "\x00\u200b\u0301"])
def test_a_text_of_nothing_has_no_tokens(text: str, bundled: WordPiece) -> None:
    ids = bundled.tokenize(text)
    assert (ids.shape, ids.dtype) == ((0,), "int32")


def test_more_words_and_characters_than_are_remembered_are_still_right(bundled: WordPiece) -> None:
    before = bundled.tokenize("unbelievable 日本").tolist()
    for start in range(0x3400, 0x1FFFF, 0x800):
        bundled.tokenize(" ".join(map(chr, range(start, start + 0x800))))
    assert bundled.tokenize("unbelievable 日本").tolist() == before


@given(st.text(), st.text())
def test_two_texts_with_a_space_between_have_the_tokens_of_both(first: str, second: str) -> None:
    wordpiece = small(FIRST + "a", "a", FIRST + "0", FIRST + "é", FIRST + "!")
    together = [*wordpiece.tokenize(first), *wordpiece.tokenize(second)]
    assert wordpiece.tokenize(f"{first} {second}").tolist() == together


@pytest.mark.parametrize(
    ("text", "needed"),
    [
        ("", False),
        ("Plain text: 100 % of it,\n\tand [SEP] too ~", False),
        ("a" * 100 + "." + "b" * 100, False),
        ("a" * 101, True),
        ("naïve", True),
        ("a\x00b", True),
        ("a\x7fb", True),
        ("日本", True),
        ("\ud800", True),
    ],
)
def test_only_printable_ascii_in_words_of_100_is_left_to_llama_cpp(text: str, needed: bool) -> None:
    assert needs_own_tokenizer(text) is needed


def test_every_character_is_rewritten_alike_on_every_python() -> None:
    wordpiece = small()
    written = "\n".join(map(wordpiece._rewrite, range(sys.maxunicode + 1)))
    assert hashlib.sha256(written.encode()).hexdigest() == (
        "1de2449595aa21ccab995338361cc119f0fe3a51112538508a94d0e06014a8d3"
    )
