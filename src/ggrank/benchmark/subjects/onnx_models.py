"""ONNX Runtime with the tokenizers library: with care, and as fastembed uses it.

Both load the same graph. "onnxruntime" sorts by length and takes 8 texts at a time. "fastembed-style" takes
them as they come, 64 pairs or 256 texts at a time, as fastembed 0.9 does (its
``rerank/cross_encoder/onnx_text_model.py`` and ``text/onnx_text_model.py``); fastembed itself needs an older
huggingface_hub than ggrank. Knows no other library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ggrank.benchmark.subjects import Subject

CAREFUL_BATCH = 8
"""Fewer texts at a time pad less and stay in the caches; of 4, 8, 16 and 32 the best over all cells."""

FASTEMBED_BATCH = {"rerank": 64, "embed": 256}


def load(subject: Subject) -> OnnxRunner:
    """Loads tokenizer and graph."""
    return OnnxRunner(subject)


class OnnxRunner:
    """A session of ONNX Runtime."""

    started = None

    def __init__(self, subject: Subject) -> None:
        self.pid = os.getpid()
        self._is_reranker = subject.job == "rerank"
        self._sorts = subject.kind == "onnxruntime"
        self._batch = CAREFUL_BATCH if self._sorts else FASTEMBED_BATCH[subject.job]
        folder = Path(subject.path).parent.parent
        self._tokenizer = _tokenizer(folder, subject.n_ctx)
        self._takes_mean = not self._is_reranker and _pools_by_mean(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = subject.n_threads
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            subject.path, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {one.name for one in self._session.get_inputs()}

    def run(self, query: str, documents: Sequence[str]) -> NDArray[Any]:
        """See `ggrank.benchmark.subjects.Runner`."""
        order = np.arange(len(documents))
        if self._sorts:
            order = np.argsort([-len(document) for document in documents], kind="stable")
        parts = [
            self._outputs(query, [documents[i] for i in order[start : start + self._batch].tolist()])
            for start in range(0, len(order), self._batch)
        ]
        computed = np.concatenate(parts)
        results = np.empty_like(computed)
        results[order] = computed
        return results

    def close(self) -> None:
        """Nothing to end."""

    def _outputs(self, query: str, documents: list[str]) -> NDArray[Any]:
        inputs: list[Any] = [(query, text) for text in documents] if self._is_reranker else documents
        encoded = self._tokenizer.encode_batch(inputs)
        arrays = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        output = self._session.run(None, {name: arrays[name] for name in self._inputs})[0]
        return output[:, 0] if self._is_reranker else self._pooled(output, arrays["attention_mask"])

    def _pooled(self, tokens: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
        vectors = tokens[:, 0]
        if self._takes_mean:
            vectors = (tokens * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        normalized: NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalized


def _tokenizer(folder: Path, n_ctx: int) -> Tokenizer:
    """Cuts at ``n_ctx`` tokens and pads to the longest of a batch."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    pad_id = config["pad_token_id"]
    tokenizer.enable_truncation(n_ctx)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id))
    return tokenizer


def _pools_by_mean(folder: Path) -> bool:
    path = folder / "1_Pooling" / "config.json"
    return path.is_file() and bool(json.loads(path.read_text("utf-8")).get("pooling_mode_mean_tokens"))
