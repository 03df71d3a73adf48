"""Long texts are tokenised in pieces, to the same ids as in one."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_models
from ggrank import Llama
from ggrank.tokenizer import PIECE_CHARACTERS

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
