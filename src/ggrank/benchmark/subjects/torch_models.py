"""sentence-transformers on PyTorch, in float32 or bfloat16, with its own defaults otherwise.

Knows CrossEncoder and SentenceTransformer.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import CrossEncoder, SentenceTransformer

from ggrank.benchmark.subjects import Subject


def load(subject: Subject) -> TorchRunner:
    """Loads the Hugging Face folder on the CPU."""
    torch.set_num_threads(subject.n_threads)
    return TorchRunner(subject)


class TorchRunner:
    """A loaded model; it sorts texts by length and takes 32 at a time, as it does by default."""

    started = None

    def __init__(self, subject: Subject) -> None:
        self.pid = os.getpid()
        options = {"dtype": {"fp32": torch.float32, "bf16": torch.bfloat16}[subject.variant]}
        make = CrossEncoder if subject.job == "rerank" else SentenceTransformer
        self._model: Any = make(subject.path, device="cpu", model_kwargs=options, local_files_only=True)
        self._model.max_seq_length = subject.n_ctx

    def run(self, query: str, documents: Sequence[str]) -> NDArray[Any]:
        """See `ggrank.benchmark.subjects.Runner`."""
        if isinstance(self._model, SentenceTransformer):
            vectors = self._model.encode(list(documents), normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(vectors, np.float32)
        pairs = [(query, document) for document in documents]
        logits = self._model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        return np.asarray(logits, np.float32)

    def close(self) -> None:
        """Nothing to end."""
