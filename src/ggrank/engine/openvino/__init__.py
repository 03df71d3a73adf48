"""BERT and XLM-R on OpenVINO, from the same GGUF: for x86 processors, where its kernels are faster.

llama.cpp makes the token ids here too. Needs the extra ``openvino``.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.base import EngineBase
from ggrank.engine.hardware import find_processor
from ggrank.engine.library import api, load_model, start_backend
from ggrank.engine.lifetime import native_call
from ggrank.engine.openvino.compiled import compiled_graph
from ggrank.engine.openvino.graph import ONE_TOKEN, Precision
from ggrank.engine.openvino.library import leave_alone_in_forks
from ggrank.engine.weights import Floats, TokenVectors, Weights
from ggrank.gguf import GgufFile
from ggrank.types import Attention, EngineName, EngineSettings, PoolingType, TokenIds

STEP = 16
"""Rows and lengths are padded to a multiple of this: OpenVINO prepares its kernels for each new shape."""

_MASKED = np.float32(-1e9)


def _precision(file: GgufFile) -> Precision:
    """Exact for a file of floats, else as fast as this processor can without more noise than q8_0 has."""
    if file.quantization in ("f32", "f16", "bf16"):
        return "f32"
    return "bf16" if "amx" in find_processor().features else "int8"


class OpenVinoEngine(EngineBase):
    """One GGUF, compiled for one pooling; `ggrank.engine.why_not_openvino` says which files it takes."""

    name: EngineName = "openvino"
    device = "CPU"
    attention: Attention = "padded"

    def __init__(self, file: GgufFile, settings: EngineSettings) -> None:
        super().__init__(file, settings)
        self._weights = Weights(file)
        self.n_embd = self._weights.shape("token_embd.weight")[1]
        self.n_outputs = self.n_embd
        if settings.pooling_type is PoolingType.RANK:
            last = "cls.output.weight" if "cls.output.weight" in self._weights else "cls.weight"
            self.n_outputs = int(np.prod(self._weights.shape(last))) // self.n_embd
        with ThreadPoolExecutor(1) as other:  # a vocabulary of 250,000 pieces takes longer than the rest
            loading = other.submit(_load_vocabulary, file.path)
            try:
                with native_call():
                    self._request = self._start_graph(file)
            finally:
                self._take(loading.result())
        separator = self.special.sep if settings.segment_ids else None
        self._token_vectors = TokenVectors(self._weights, separator=separator)

    def _start_graph(self, file: GgufFile) -> Any:
        precision = _precision(file)
        self._graph = compiled_graph(file, self._weights, precision=precision, settings=self._settings)
        model, mapped = self._graph
        request = model.create_infer_request()
        leave_alone_in_forks(request, model)
        # The first run prepares what all shapes share: 0.1 s with 12 layers of 768.
        request.infer(self._inputs([STEP], np.zeros((STEP, self.n_embd), np.float32)))
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            # It has copied each matrix into its kernel's order; pages that are needed again are read again.
            mapped._mmap.madvise(mmap.MADV_DONTNEED)
        return request

    def _free(self) -> None:
        for name in ("_request", "_graph", "_weights", "_token_vectors"):
            self.__dict__.pop(name, None)  # an error may have come before some of them were made

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        inputs = self._inputs(list(map(len, sequences)), self._token_vectors.of(sequences))
        found = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        return np.array(found[0]).reshape(-1, self.n_outputs)

    def _compute_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        return self._compute([tokens])[: len(tokens)]

    def _inputs(self, n_tokens: list[int], vectors: Floats) -> list[NDArray[Any]]:
        """The inputs that `build_graph` describes, for sequences of so many tokens each."""
        lengths = np.array(n_tokens, np.int64)
        starts = np.cumsum(lengths) - lengths
        columns = np.arange(_padded(int(lengths.max())))
        is_token = columns < lengths[:, None]
        n_rows = _padded(int(lengths.sum()))
        back = np.zeros(n_rows, np.int32)
        back[: lengths.sum()] = np.flatnonzero(is_token)
        embedded = np.zeros((n_rows, self.n_embd), np.float32)
        np.add(vectors, self._positions[np.nonzero(is_token)[1]], out=embedded[: len(vectors)])
        inputs = [
            embedded,
            np.minimum(starts[:, None] + columns, n_rows - 1).astype(np.int32),
            np.where(is_token, np.float32(0), _MASKED)[:, None, None],
            back,
        ]
        pooling = self._settings.pooling_type
        if pooling in ONE_TOKEN:
            inputs.append(starts.astype(np.int32))
        elif pooling is not PoolingType.NONE:
            rows = np.arange(n_rows)
            ends = starts + lengths
            begins = starts if pooling is PoolingType.MEAN else ends - 1
            is_pooled = (begins[:, None] <= rows) & (rows < ends[:, None])
            inputs.append((is_pooled / is_pooled.sum(axis=1, keepdims=True)).astype(np.float32))
        return inputs

    @cached_property
    def _positions(self) -> Floats:
        """Each position's vector and that of segment 0; (n_ctx_train, n_embd)."""
        positions = self._weights.array("position_embd.weight")
        if "token_types.weight" in self._weights:
            positions = positions + self._weights.array("token_types.weight").reshape(-1, self.n_embd)[0]
        return positions


def _load_vocabulary(path: Path) -> Any:
    """A ``llama_model`` without weights."""
    start_backend()
    params = api.llama_model_default_params()
    params.vocab_only = True
    return load_model(path, params)


def _padded(n: int) -> int:
    return -(-n // STEP) * STEP
