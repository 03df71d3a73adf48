"""What the service hands to the dialects: a model as callers may know it, and what it computed.

Knows values; nothing of how they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggrank.llama import Llama
from ggrank.types import Mode, Ranking, Scale


@dataclass(frozen=True)
class ServedModel:
    """What callers may know of a model."""

    name: str
    mode: Mode
    n_ctx: int
    n_embd: int
    score_scale: Scale
    engine: str
    device: str
    file: str
    quantization: str


@dataclass(frozen=True)
class Reranked:
    """A ranking, and the model that computed it."""

    model: ServedModel
    ranking: Ranking


@dataclass(frozen=True)
class Embedded:
    """Vectors in input order, shape (n, n_embd), float32, and the model that computed them."""

    model: ServedModel
    vectors: NDArray[np.float32]
    n_tokens: int
    truncated: list[bool]


def served_model(name: str, llama: Llama) -> ServedModel:
    """What a loaded model says of itself, under the name that callers use."""
    return ServedModel(
        name=name,
        mode=llama.mode,
        n_ctx=llama.n_ctx,
        n_embd=llama.n_embd,
        score_scale=llama.score_scale,
        engine=llama.engine,
        device=llama.device,
        file=llama.model_path.name,
        quantization=llama.quantization,
    )
