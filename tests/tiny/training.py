"""Trains the small tokenizers on the texts of ``tests/data``, for ``scripts/make_goldens.py --tokenizers``.

The results are committed (``tests/tiny/*.json``) in the format of the ``tokenizers`` package, with the
normalizers, splitting rules and templates of the tokenizers that real models have. Needs ``tokenizers``,
``sentencepiece`` and ``protobuf``. WordPiece training breaks ties at random: its vocabulary differs from run
to run, and with it the goldens.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tiny.templates import RERANK_TEMPLATE

DATA = Path(__file__).parent.parent / "data"
TEXTS = (DATA / "english.txt", DATA / "world.txt")
HERE = Path(__file__).parent

QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's splitting rule, from the tokenizer.json of Qwen/Qwen3-Reranker-0.6B."""


def train_all() -> None:
    """Writes ``<name>.json`` beside this file for each of the five tokenizers."""
    for train in (wordpiece, unigram, modernbert, roberta, qwen2):
        text = json.dumps(train(), ensure_ascii=False, separators=(",", ":"))
        (HERE / f"{train.__name__}.json").write_text(text + "\n", "utf-8")


def wordpiece(vocab_size: int = 1600) -> dict[str, Any]:
    """As bert-base-uncased has it: lower case, accents stripped, ``[CLS] a [SEP] b [SEP]``."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train([str(path) for path in TEXTS], trainer)
    tokenizer.post_processor = _pairs("[CLS]", "[SEP]", tokenizer)
    return json.loads(tokenizer.to_str())


def modernbert(vocab_size: int = 1200) -> dict[str, Any]:
    """As answerdotai/ModernBERT-base has it: NFC, byte-level BPE with GPT-2's rule, special tokens last."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _train_bpe(tokenizer, vocab_size)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    tokenizer.add_special_tokens(
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True, special=True)]
    )
    tokenizer.post_processor = _pairs("[CLS]", "[SEP]", tokenizer)
    return json.loads(tokenizer.to_str())


def roberta(vocab_size: int = 1200) -> dict[str, Any]:
    """As jinaai/jina-reranker-v1-tiny-en has it: byte-level BPE, ``<s> a </s></s> b </s>``."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    _train_bpe(tokenizer, vocab_size, special_tokens=special)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return json.loads(tokenizer.to_str())


def qwen2(vocab_size: int = 1200) -> dict[str, Any]:
    """As Qwen/Qwen3-Reranker-0.6B has it: NFC, byte-level BPE with Qwen2's rule; "yes", "no" are tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    answers = [RERANK_TEMPLATE, "yes", "no", "query", "document"] * 200
    _train_bpe(tokenizer, vocab_size, more=answers)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(tokenizer.to_str())


def unigram(vocab_size: int = 2000) -> dict[str, Any]:
    """As xlm-roberta-base has it: trained by sentencepiece with nmt_nfkc; ``<s> a </s></s> b </s>``."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    with tempfile.TemporaryDirectory() as directory:
        prefix = str(Path(directory) / "unigram")
        sentencepiece.SentencePieceTrainer.train(
            input=",".join(map(str, TEXTS)),
            model_prefix=prefix,
            model_type="unigram",
            vocab_size=vocab_size - 2,
            character_coverage=0.9995,
            normalization_rule_name="nmt_nfkc",
            num_threads=1,
            minloglevel=2,
        )
        proto = sentencepiece_model_pb2.ModelProto()
        proto.ParseFromString(Path(f"{prefix}.model").read_bytes())
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece.piece, piece.score) for piece in proto.pieces[3:]] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    mask = AddedToken("<mask>", lstrip=True, special=True)
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", mask])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return json.loads(tokenizer.to_str())


def _train_bpe(
    tokenizer: Any, vocab_size: int, *, more: Sequence[str] = (), special_tokens: Sequence[str] = ()
) -> None:
    from tokenizers import pre_tokenizers, trainers

    lines = [line for path in TEXTS for line in path.read_text("utf-8").splitlines()]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*lines, *more], trainer)


def _pairs(first: str, last: str, tokenizer: Any) -> Any:
    from tokenizers.processors import TemplateProcessing

    special = [(token, tokenizer.token_to_id(token)) for token in (first, last)]
    pair = f"{first}:0 $A:0 {last}:0 $B:1 {last}:1"
    return TemplateProcessing(single=f"{first} $A {last}", pair=pair, special_tokens=special)
