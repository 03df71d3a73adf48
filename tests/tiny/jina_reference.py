"""JinaBert (v2) in torch, as ``transformers`` has no class for it: ALiBi, gated GELU, a linear head.

Written from the published architecture (https://arxiv.org/abs/2310.19923, section 3) and ALiBi
(https://arxiv.org/abs/2108.12409), with the tensor names of jinaai/jina-reranker-v1-tiny-en. The score is
``tanh(w . h + b)`` of the first token, which is what llama.cpp's graph makes of a file with ``cls`` alone.
"""

from __future__ import annotations

import torch
from torch import nn


class JinaReranker(nn.Module):
    """Token ids, shape (1, n_tokens), to a score, shape (1, 1)."""

    def __init__(
        self, vocab_size: int, n_types: int, n_embd: int, n_ff: int, *, n_layers: int, n_heads: int
    ) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(vocab_size, n_embd),
                "token_type_embeddings": nn.Embedding(n_types, n_embd),
                "LayerNorm": nn.LayerNorm(n_embd, eps=1e-12),
            }
        )
        layers = nn.ModuleList(_Layer(n_embd, n_ff, n_heads) for _ in range(n_layers))
        self.encoder = nn.ModuleDict({"layer": layers})
        self.classifier = nn.Linear(n_embd, 1)
        self._n_heads = n_heads

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        types = self.embeddings["token_type_embeddings"](torch.zeros_like(ids))
        states = self.embeddings["LayerNorm"](self.embeddings["word_embeddings"](ids) + types)
        positions = torch.arange(ids.shape[1])
        distance = (positions[:, None] - positions[None, :]).abs().float()
        slopes = 2.0 ** (-8.0 / self._n_heads * torch.arange(1, self._n_heads + 1))
        for layer in self.encoder["layer"]:
            states = layer(states, -slopes[:, None, None] * distance)
        return torch.tanh(self.classifier(states[:, 0]))


class _Layer(nn.Module):
    def __init__(self, n_embd: int, n_ff: int, n_heads: int) -> None:
        super().__init__()
        projections = {name: nn.Linear(n_embd, n_embd) for name in ("query", "key", "value")}
        norm = nn.LayerNorm(n_embd, eps=1e-12)
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(projections),
                "output": nn.ModuleDict({"dense": nn.Linear(n_embd, n_embd), "LayerNorm": norm}),
            }
        )
        self.mlp = nn.ModuleDict(
            {
                "gated_layers": nn.Linear(n_embd, 2 * n_ff, bias=False),
                "wo": nn.Linear(n_ff, n_embd),
                "layernorm": nn.LayerNorm(n_embd, eps=1e-12),
            }
        )
        self._n_heads = n_heads

    def forward(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        output = self.attention["output"]
        states = output["LayerNorm"](output["dense"](self._attend(states, bias)) + states)
        gate, plain = self.mlp["gated_layers"](states).chunk(2, dim=-1)
        return self.mlp["layernorm"](self.mlp["wo"](nn.functional.gelu(gate) * plain) + states)

    def _attend(self, states: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        one, n_tokens, n_embd = states.shape
        split = (one, n_tokens, self._n_heads, n_embd // self._n_heads)
        parts = self.attention["self"]
        query, key, value = (parts[name](states).view(split).transpose(1, 2) for name in parts)
        scores = query @ key.transpose(2, 3) / split[3] ** 0.5 + bias
        return (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(one, n_tokens, n_embd)
