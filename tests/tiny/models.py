"""The kinds of tiny models: which weights, tokenizer, pooling and labels each one has.

Knows nothing of GGUF files or torch; both sides build what this file describes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tiny import vocab, weights
from tiny.weights import Shape, Weights


@dataclass(frozen=True)
class TinyModel:
    """One model, described for both sides.

    Attributes:
        family: "bert", "xlmr", "modernbert", "qwen3", "nomic" or "jina".
        tokenizer: a name that `tiny.vocab` knows.
        pooling: "mean", "cls", "last" or "rank".
        labels: the classifier's labels; empty for an embedder.
        classifier_pooling: ModernBERT's "mean" or "cls", before its head.
    """

    kind: str
    family: str
    tokenizer: str
    shape: Shape
    weights: Weights
    pooling: str
    labels: tuple[str, ...] = ()
    classifier_pooling: str = ""

    @property
    def is_reranker(self) -> bool:
        return bool(self.labels)


def _bert(kind: str, pooling: str, *, n_labels: int = 0) -> TinyModel:
    shape = Shape(vocab.size("wordpiece"))
    arrays = weights.bert(shape, 11, types_scale=0.5 if pooling == "cls" else 0)
    if n_labels:
        arrays |= weights.bert_head(shape, 12, n_labels=n_labels)
    return TinyModel(kind, "bert", "wordpiece", shape, arrays, pooling, _labels(n_labels))


def _bert_with_segments(kind: str, *, n_layer: int, n_embd: int, n_head: int) -> TinyModel:
    """A cross-encoder whose type rows are as large as its word rows, so that segments decide its logits."""
    shape = Shape(
        vocab.size("wordpiece"),
        hidden_size=n_embd,
        intermediate_size=4 * n_embd,
        num_hidden_layers=n_layer,
        num_attention_heads=n_head,
    )
    arrays = weights.bert(shape, 13, types_scale=1.0) | weights.bert_head(shape, 14, n_labels=1)
    return TinyModel(kind, "bert", "wordpiece", shape, arrays, "rank", _labels(1))


def _xlmr(kind: str, pooling: str, *, n_labels: int = 0, n_ctx: int = 128) -> TinyModel:
    shape = Shape(vocab.size("unigram"), type_vocab_size=1, max_position_embeddings=n_ctx)
    arrays = weights.bert(shape, 21, unused_positions=2)
    if n_labels:
        arrays |= weights.roberta_head(shape, 22, n_labels=n_labels)
    return TinyModel(kind, "xlmr", "unigram", shape, arrays, pooling, _labels(n_labels))


def _modernbert(kind: str, classifier_pooling: str) -> TinyModel:
    shape = Shape(vocab.size("modernbert"), num_hidden_layers=4, intermediate_size=96)
    arrays = weights.modernbert(shape, 31, n_labels=1)
    return TinyModel(kind, "modernbert", "modernbert", shape, arrays, "rank", _labels(1), classifier_pooling)


def _qwen3(kind: str, pooling: str, *, labels: tuple[str, ...] = ()) -> TinyModel:
    tokenizer = "qwen3-embedding" if pooling == "last" else "qwen2"
    shape = Shape(vocab.size("qwen2"), num_key_value_heads=2, max_position_embeddings=384)
    return TinyModel(kind, "qwen3", tokenizer, shape, weights.qwen3(shape, 50), pooling, labels)


def _nomic(kind: str) -> TinyModel:
    shape = Shape(vocab.size("wordpiece"))
    return TinyModel(kind, "nomic", "wordpiece", shape, weights.nomic(shape, 51), "mean")


def _jina(kind: str) -> TinyModel:
    shape = Shape(vocab.size("roberta"))
    return TinyModel(kind, "jina", "roberta", shape, weights.jina(shape, 65), "rank", ("LABEL_0",))


def _labels(n_labels: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{i}" for i in range(n_labels))


KINDS: dict[str, Callable[[str], TinyModel]] = {
    "bert-reranker": lambda kind: _bert(kind, "rank", n_labels=1),
    "bert-reranker-segments": lambda kind: _bert_with_segments(kind, n_layer=2, n_embd=128, n_head=2),
    "bert-reranker-segments-384": lambda kind: _bert_with_segments(kind, n_layer=6, n_embd=384, n_head=12),
    "bert-mean": lambda kind: _bert(kind, "mean"),
    "bert-cls": lambda kind: _bert(kind, "cls"),
    "xlmr-reranker": lambda kind: _xlmr(kind, "rank", n_labels=1),
    "xlmr-cls": lambda kind: _xlmr(kind, "cls"),
    "modernbert-reranker-mean": lambda kind: _modernbert(kind, "mean"),
    "modernbert-reranker-cls": lambda kind: _modernbert(kind, "cls"),
    "qwen3-reranker": lambda kind: _qwen3(kind, "rank", labels=("yes", "no")),
    "qwen3-last": lambda kind: _qwen3(kind, "last"),
    "nomic-mean": _nomic,
    "jina-reranker": _jina,
}
"""Sound models, each with goldens from torch."""

MORE_KINDS: dict[str, Callable[[str], TinyModel]] = {
    "xlmr-reranker-512": lambda kind: _xlmr(kind, "rank", n_labels=1, n_ctx=512)
}
"""Sound models without goldens."""


def build(kind: str) -> TinyModel:
    """The model of a kind in `KINDS` or `MORE_KINDS`."""
    return {**KINDS, **MORE_KINDS}[kind](kind)
