"""ggrank itself, through its public API.

Knows `Llama`; not what it is compared with.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ggrank import Llama, LlamaParams, PoolingType
from ggrank.benchmark.subjects import Subject


def load(subject: Subject) -> GgrankRunner:
    """Loads the GGUF on the CPU."""
    engine: Any = subject.engine  # LlamaParams checks it
    pooling = PoolingType.RANK if subject.job == "rerank" else None
    params = LlamaParams(
        subject.path,
        pooling_type=pooling,
        n_ctx=subject.n_ctx,
        n_threads=subject.n_threads,
        n_gpu_layers=0,
        engine=engine,
    )
    return GgrankRunner(Llama.load(params))


class GgrankRunner:
    """A loaded `Llama`."""

    started = None

    def __init__(self, llama: Llama) -> None:
        self.pid = os.getpid()
        self._llama = llama

    def run(self, query: str, documents: Sequence[str]) -> NDArray[Any]:
        """See `ggrank.benchmark.subjects.Runner`."""
        if self._llama.mode.value == "rerank":
            return self._llama.rerank(query, documents)
        return self._llama.embed_many(documents)

    def close(self) -> None:
        """Frees the model."""
        self._llama.close()
