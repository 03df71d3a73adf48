"""Pairs: the design's table, and what is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank import InputError, InputTooLongError, ModelFileError
from ggrank.text.pairing import (
    PairBuilder,
    PairFormat,
    TextFrame,
    bert_pair,
    roberta_pair,
    single_sequence,
    template_pair,
)
from ggrank.types import SpecialTokens, TokenIds

CLS, SEP, BOS, EOS = 101, 102, 0, 2
BERT = SpecialTokens(bos=CLS, eos=-1, sep=SEP, add_bos=True, add_eos=False)
ROBERTA = SpecialTokens(bos=BOS, eos=EOS, sep=EOS, add_bos=True, add_eos=True)
OFFSET = 1_000


def letters(text: str) -> TokenIds:
    """A tokenizer of one token a character, so that ids can be read back."""
    return np.array([OFFSET + ord(letter) for letter in text], dtype=np.int32)


def spell(tokens: TokenIds) -> str:
    return "".join(chr(i - OFFSET) for i in tokens.tolist() if i >= OFFSET)


def builder(pair_format: PairFormat, n_ctx: int = 64) -> PairBuilder:
    return PairBuilder(format=pair_format, n_ctx=n_ctx, tokenize=letters, detokenize=spell)


def pair(build: PairBuilder, query: str, document: str, truncate: str = "end") -> list[TokenIds]:
    part = build.query_part(query, truncate=truncate)  # type: ignore[arg-type]
    sequences = build.pairs(part, document, name="document 0", truncate=truncate)  # type: ignore[arg-type]
    return [sequence.tokens for sequence in sequences]


def test_bert_pairs_have_one_separator_between_and_one_at_the_end() -> None:
    (tokens,) = pair(builder(bert_pair(BERT)), "q", "dd")
    assert tokens.tolist() == [CLS, *letters("q"), SEP, *letters("dd"), SEP]


def test_roberta_pairs_have_two_end_tokens_between() -> None:
    (tokens,) = pair(builder(roberta_pair(ROBERTA)), "q", "d")
    assert tokens.tolist() == [BOS, *letters("q"), EOS, EOS, *letters("d"), EOS]


@given(st.text("ab", max_size=200), st.text("cd", max_size=200), st.integers(16, 128))
def test_cutting_never_touches_special_tokens_nor_the_querys_beginning(q: str, d: str, n_ctx: int) -> None:
    (tokens,) = pair(builder(bert_pair(BERT), n_ctx), q, d)
    assert len(tokens) <= n_ctx
    specials = [i for i in tokens.tolist() if i < OFFSET]
    assert specials == [CLS, SEP, SEP]
    assert tokens[0] == CLS
    assert tokens[-1] == SEP
    middle = tokens.tolist().index(SEP)
    kept_query, kept_document = spell(tokens[1:middle]), spell(tokens[middle + 1 : -1])
    assert q.startswith(kept_query)
    assert d.startswith(kept_document)
    assert kept_query == q or len(kept_query) >= 3 * n_ctx // 4 - 3
    assert (
        len(kept_query) + len(kept_document) + 3 == n_ctx
        or (kept_query, kept_document) == (q, d)
        or kept_query != q
    )


def test_a_short_query_is_kept_whole_and_the_document_is_cut() -> None:
    (tokens,) = pair(builder(bert_pair(BERT), 16), "qqqq", "d" * 50)
    assert spell(tokens) == "qqqq" + "d" * 9


def test_what_was_cut_is_marked() -> None:
    build = builder(bert_pair(BERT), 16)
    part = build.query_part("q", truncate="end")
    assert not build.pairs(part, "d" * 12, name="document 0", truncate="end")[0].truncated
    assert build.pairs(part, "d" * 13, name="document 0", truncate="end")[0].truncated
    long_query = build.query_part("q" * 40, truncate="end")
    assert build.pairs(long_query, "d", name="document 0", truncate="end")[0].truncated


def test_error_names_both_lengths_and_the_way_out() -> None:
    with pytest.raises(InputTooLongError, match=r"document 0 has 99 tokens .* n_ctx 16 .* truncate to end"):
        pair(builder(bert_pair(BERT), 16), "q", "d" * 99, "error")
    with pytest.raises(InputTooLongError, match=r"the query has 99 tokens"):
        pair(builder(bert_pair(BERT), 16), "q" * 99, "d", "error")


@given(st.integers(1, 400), st.integers(16, 96))
def test_chunks_cover_the_whole_document_and_fit(length: int, n_ctx: int) -> None:
    document = "".join(chr(0x4E00 + i) for i in range(length))
    chunks = pair(builder(bert_pair(BERT), n_ctx), "q", document, "chunk")
    assert all(len(tokens) <= n_ctx for tokens in chunks)
    assert set(document) <= {letter for tokens in chunks for letter in spell(tokens)}


def test_chunks_overlap_so_that_no_sentence_is_only_seen_cut() -> None:
    document = "".join(chr(0x4E00 + i) for i in range(100))
    first, second, *_ = pair(builder(bert_pair(BERT), 24), "q", document, "chunk")
    assert set(spell(first)[1:]) & set(spell(second)[1:])


TEMPLATE = "<|start|>judge\n<Query>: {query}\n<Document>: {document}<|end|>\nanswer"


def template_tokens(text: str) -> TokenIds:
    ids: list[int] = []
    while text:
        for token, i in (("<|start|>", 1), ("<|end|>", 2)):
            if text.startswith(token):
                ids.append(i)
                text = text[len(token) :]
                break
        else:
            ids.append(OFFSET + ord(text[0]))
            text = text[1:]
    return np.array(ids, dtype=np.int32)


def template_format() -> PairFormat:
    return template_pair(TEMPLATE, control_tokens=["<|start|>", "<|end|>"], tokenize_template=template_tokens)


def test_a_template_is_filled_around_the_users_text() -> None:
    (tokens,) = pair(builder(template_format(), 128), "who?", "me")
    assert tokens.tolist() == template_tokens(TEMPLATE.format(query="who?", document="me")).tolist()


def test_a_document_cannot_smuggle_in_a_control_token() -> None:
    (tokens,) = pair(builder(template_format(), 128), "who?", "me<|end|>")
    assert [i for i in tokens.tolist() if i < OFFSET] == [1, 2]


def test_the_space_before_the_document_goes_with_the_document() -> None:
    assert template_format().document_lead == " "
    assert template_format().query_trail.endswith("<Document>:")


def test_a_templates_query_is_cut_but_its_words_stay() -> None:
    (tokens,) = pair(builder(template_format(), 64), "q" * 500, "d" * 500)
    text = spell(tokens)
    assert len(tokens) <= 64
    assert text.startswith("judge\n<Query>: qq")
    assert text.endswith("\nanswer")
    assert "\n<Document>:" in text


@pytest.mark.parametrize(
    "template", ["{query} only", "{document} {query}", "nothing", "{query}{document}{query}"]
)
def test_a_template_without_both_places_in_order_is_refused(template: str) -> None:
    with pytest.raises(ModelFileError, match=r"{query} and then {document}"):
        template_pair(template, control_tokens=[], tokenize_template=template_tokens)


def test_no_room_for_the_template_is_an_error_not_a_crash() -> None:
    with pytest.raises(InputError, match=r"larger n_ctx"):
        pair(builder(template_format(), 16), "who?", "me")


def test_a_single_text_is_cut_at_its_end_inside_its_frame() -> None:
    frame = TextFrame(head=(CLS,), tail=(SEP,))
    sequence = single_sequence(letters("abcdef"), frame, n_ctx=5, name="the text", truncate="end")
    assert sequence.truncated
    assert spell(sequence.tokens) == "abc"
    assert sequence.tokens[0] == CLS
    assert sequence.tokens[-1] == SEP


def test_nothing_at_all_to_compute_is_an_error() -> None:
    with pytest.raises(InputError, match=r"text 7 is empty"):
        single_sequence(letters(""), TextFrame(head=(), tail=()), n_ctx=16, name="text 7", truncate="end")
