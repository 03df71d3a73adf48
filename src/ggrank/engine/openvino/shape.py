"""What is to be built: a network's numbers from a file's header, and how it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggrank.gguf import GgufFile
from ggrank.types import PoolingType

Precision = Literal["f32", "bf16", "int8"]
"""How matrices are multiplied: "f32" exactly; "bf16" for AMX; "int8" in blocks of 32 with a scale each,
weights and activations, which is what llama.cpp does with q8_0."""

ONE_TOKEN = (PoolingType.CLS, PoolingType.RANK)
"""Pooling that reads the first token alone: the last layer computes only that one."""


@dataclass(frozen=True)
class BertShape:
    """The numbers that a file's header gives of its network."""

    n_layer: int
    n_embd: int
    n_head: int
    epsilon: float
    gelu: Literal["erf", "tanh"]

    @classmethod
    def of(cls, file: GgufFile) -> BertShape:
        """Read from the header, which `ggrank.gguf` has checked."""
        n_layer, n_embd, n_head, epsilon = (file.metadata[f"{file.architecture}.{name}"] for name in _FACTS)
        return cls(n_layer, n_embd, n_head, epsilon, gelu=file.gelu)


_FACTS = ("block_count", "embedding_length", "attention.head_count", "attention.layer_norm_epsilon")
