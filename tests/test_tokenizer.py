"""Texts get the token ids of the original tokenizer, long texts too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFValueType
from tokenizers import Tokenizer

import gguf_bytes
import make_goldens_bundled
import tiny_models
from ggrank import Llama
from ggrank.text.tokenizer import MAX_WORD_LENGTH, PIECE_CHARACTERS
from tiny import vocab

STRIP_ACCENTS = "tokenizer.ggml.normalizer.strip_accents"
PROSE = "The year 1984, it's said: “naïve” cafés (and   bars!) won't re-open —\n\n they'll 日本 move. "


@pytest.mark.parametrize(
    "kind", ["bert-reranker", "xlmr-reranker", "modernbert-reranker-mean", "qwen3-reranker"]
)
def test_a_text_longer_than_one_piece_gets_the_ids_of_its_repeated_parts(kind: str, tmp_path: Path) -> None:
    with Llama.load(tiny_models.write(kind, tmp_path)) as llama:
        n_repeats = 2 * PIECE_CHARACTERS // len(PROSE)
        short, long = (llama.tokenize(PROSE * n).tolist() for n in (3, n_repeats))
        once = len(short) - len(llama.tokenize(PROSE * 2))
        body = short[len(short) - 2 * once : len(short) - once]
        assert len(PROSE) * n_repeats > PIECE_CHARACTERS
        assert long == short[: len(short) - 2 * once] + body * (n_repeats - 2) + short[len(short) - once :]


def test_a_megabyte_without_a_space_is_tokenised(tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("qwen3-reranker", tmp_path)) as llama:
        assert len(llama.tokenize("ab" * 500_000)) > 0


ODD_TEXTS = [
    "",
    " \n ",
    "\x00\u200b\u0301",
    "[CLS] [SEP] [UNK] and [PAD] are plain text",
    "Crème BRÛLÉE, Ångström, İstanbul, ΟΔΟΣ, naïve",
    "a\u00adb\u200bc\x00d\ufffd\x7f x\u00a0y\u3000z\u2028w",
    "日本語とEnglish한국어 can't “quote” का ≠ =",
    f"{'a' * MAX_WORD_LENGTH} {'b' * (MAX_WORD_LENGTH + 1)} c",
    f"{'é' * MAX_WORD_LENGTH} {'é' * (MAX_WORD_LENGTH + 1)} c",
    "a" * (PIECE_CHARACTERS - 1),
    "Naïve. " * PIECE_CHARACTERS,
    "日本と" * PIECE_CHARACTERS,
    "re-open;" * PIECE_CHARACTERS,  # plain ASCII without a space to cut at
]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False, None])
def test_wordpiece_reads_case_and_accents_as_the_file_says(
    lowercase: bool, strip_accents: bool | None, tmp_path: Path
) -> None:
    data = json.loads(json.dumps(vocab.read("wordpiece")))
    data["normalizer"] |= {"lowercase": lowercase, "strip_accents": strip_accents}
    original = Tokenizer.from_str(json.dumps(data))
    original.encode_special_tokens = True
    file = gguf_bytes.read(tiny_models.write("bert-mean", tmp_path))
    file = file.with_key("tokenizer.ggml.normalizer.lowercase", lowercase)
    file = file.without_key(STRIP_ACCENTS)
    if strip_accents is not None:
        file = file.with_key(STRIP_ACCENTS, strip_accents, type=GGUFValueType.BOOL)
    path = tmp_path / "flags.gguf"
    path.write_bytes(file.to_bytes())
    texts = [*ODD_TEXTS, *(text for _, text in make_goldens_bundled.read_texts())]
    with Llama.load(path) as llama:
        assert len(texts) > 300
        different = [
            text[:80]
            for text in texts
            if llama.tokenize(text).tolist() != original.encode(text, add_special_tokens=False).ids
        ]
    assert different == []


def test_a_lone_surrogate_reads_like_a_character_that_is_unknown_to_unicode(tmp_path: Path) -> None:
    with Llama.load(tiny_models.write("bert-mean", tmp_path)) as llama:
        assert llama.tokenize("\ud800lone\udfff é").tolist() == llama.tokenize("lone é").tolist()
