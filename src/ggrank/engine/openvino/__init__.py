"""BERT and XLM-R on OpenVINO, from the same GGUF: for x86 processors, where its kernels are faster.

It has the same calls as llama.cpp's engine; llama.cpp still turns text into token ids here. Needs the extra
``openvino``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.budget import check_budget
from ggrank.engine.hardware import find_processor
from ggrank.engine.library import api
from ggrank.engine.lifetime import Lifetime, is_ending, native_call
from ggrank.engine.openvino.shape import ONE_TOKEN, BertShape, Precision
from ggrank.engine.token_vectors import TokenVectors
from ggrank.engine.vocabulary import Vocabulary, load_vocabulary
from ggrank.engine.weights import Floats, Weights
from ggrank.errors import EngineError
from ggrank.gguf import GgufFile, open_gguf
from ggrank.types import Attention, EngineSettings, PoolingType, SpecialTokens, TokenIds

__all__ = ["OpenVinoEngine", "precision_for"]

STEP = 16
"""Rows and lengths are filled up to a multiple of this: OpenVINO prepares its kernels for each new shape."""

_MASKED = np.float32(-1e9)
_EXACT = ("f32", "f16", "bf16")


def precision_for(file: GgufFile) -> Precision:
    """How matrices are multiplied: exactly for a file of whole floats, else as fast as this processor can
    without more noise than q8_0 has.
    """
    if file.quantization in _EXACT:
        return "f32"
    return "bf16" if "amx" in find_processor().features else "int8"


class OpenVinoEngine:
    """One GGUF, compiled for one way of pooling; `why_not_openvino` says which files it takes.

    Safe to call from several threads.

    Raises:
        EngineError: OpenVINO could not compile it.

    Example:
        >>> from ggrank import Llama
        >>> with Llama.load("all-minilm-l6-v2", engine="openvino") as llama:
        ...     llama.engine
        'openvino'
    """

    name = "openvino"
    device = "CPU"
    attention: Attention = "padded"

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        file = open_gguf(path)
        self._path, self._settings = path, settings
        self._lifetime = Lifetime()
        self._lock = threading.Lock()
        self._weights = Weights(file)
        self.n_embd = BertShape.of(file).n_embd
        is_rank = settings.pooling_type is PoolingType.RANK
        self.n_outputs = _n_labels(self._weights) if is_rank else self.n_embd
        with ThreadPoolExecutor(1) as other:  # A vocabulary of 250,000 pieces takes longer than all the rest.
            loading = other.submit(load_vocabulary, path)
            try:
                with native_call():
                    self._request = self._start_graph(file)
            finally:
                self._model = loading.result()
                self._vocabulary = Vocabulary(self._model, self._lifetime)  # from here on `close` frees both
        separator = self._vocabulary.special.sep if settings.segment_ids else None
        self._token_vectors = TokenVectors(self._weights, separator=separator)

    def _start_graph(self, file: GgufFile) -> Any:
        from ggrank.engine.openvino.compiled import compiled_graph  # OpenVINO itself: 0.2 s
        from ggrank.engine.openvino.library import leave_alone_in_forks

        precision = precision_for(file)
        self._graph = compiled_graph(file, self._weights, precision=precision, settings=self._settings)
        request = self._graph.model.create_infer_request()
        leave_alone_in_forks(request, self._graph.model)
        # The first run of all prepares what all shapes share: 0.1 s with 12 layers of 768.
        request.infer(self._inputs([STEP], np.zeros((STEP, self.n_embd), np.float32)))
        self._graph.drop_pages()
        return request

    @property
    def special(self) -> SpecialTokens:
        """The vocabulary's special tokens."""
        return self._vocabulary.special

    def control_tokens(self) -> dict[str, int]:
        """The text of every control token and its id, such as ``{"[SEP]": 102}``."""
        return self._vocabulary.control_tokens()

    def tokenize(self, text: str, *, parse_special: bool = False) -> TokenIds:
        """Token ids, shape (n_tokens,), int32; see `ggrank.engine.vocabulary.Vocabulary.tokenize`."""
        return self._vocabulary.tokenize(text, parse_special=parse_special)

    def detokenize(self, tokens: TokenIds) -> str:
        """The text of token ids, special tokens left out."""
        return self._vocabulary.detokenize(tokens)

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Computes one micro-batch: shape (n_sequences, n_outputs), float32, as llama.cpp's engine gives it.

        Raises:
            InputError: the micro-batch is empty or over a budget, or has an unknown token id.
            EngineError: the values are not finite.
        """
        check_budget(sequences, self._settings)
        return self._finite(self._infer(sequences)).reshape(len(sequences), self.n_outputs)

    def run_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        """Computes one sequence without pooling: shape (n_tokens, n_embd), float32.

        Raises:
            InputError, EngineError: as for `run`.
        """
        check_budget([tokens], self._settings)
        return self._finite(self._infer([tokens])[: len(tokens)])

    def close(self) -> None:
        """Frees everything, after calls in other threads have ended; twice is fine."""
        if not self._lifetime.in_this_process:
            return  # A forked child shares the memory, but not the threads that would have to end.
        with self._lock, self._vocabulary.lock, native_call():
            if self._model is not None:
                api.llama_model_free(self._model)
                self._model = None
                for name in ("_request", "_graph", "_weights", "_token_vectors"):
                    self.__dict__.pop(name, None)  # those that were made before an error
            self._lifetime.end()

    def __del__(self, _is_ending: Callable[[], bool] = is_ending) -> None:
        if getattr(self, "_vocabulary", None) is not None and not _is_ending():
            self.close()

    def _infer(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        self._lifetime.check()
        with self._lock, native_call():
            self._lifetime.check()
            inputs = self._inputs(list(map(len, sequences)), self._token_vectors.of(sequences))
            found = self._request.infer(inputs, share_inputs=True, share_outputs=True)
            out: NDArray[np.float32] = np.array(found[0])
            return out

    def _inputs(self, n_tokens: list[int], vectors: Floats) -> list[NDArray[Any]]:
        """What `build_graph` describes, in its order, for sequences of so many tokens each."""
        lengths = np.array(n_tokens, np.int64)
        starts = np.cumsum(lengths) - lengths
        places = np.arange(_filled(int(lengths.max())))
        is_token = places < lengths[:, None]
        n_rows = _filled(int(lengths.sum()))
        back = np.zeros(n_rows, np.int32)
        back[: lengths.sum()] = np.flatnonzero(is_token)
        inputs = [
            self._embedded(vectors, n_rows, positions=np.nonzero(is_token)[1]),
            np.minimum(starts[:, None] + places, n_rows - 1).astype(np.int32),
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
            is_counted = (begins[:, None] <= rows) & (rows < ends[:, None])
            inputs.append((is_counted / is_counted.sum(axis=1, keepdims=True)).astype(np.float32))
        return inputs

    def _embedded(self, vectors: Floats, n_rows: int, *, positions: NDArray[np.int64]) -> Floats:
        """The sum of each token's word, segment and position vectors; shape (n_rows, n_embd)."""
        embedded = np.zeros((n_rows, self.n_embd), np.float32)
        np.add(vectors, self._positions[positions], out=embedded[: len(vectors)])
        return embedded

    @cached_property
    def _positions(self) -> Floats:
        """Each position's vector and that of segment 0; (n_ctx_train, n_embd)."""
        positions = self._weights.array("position_embd.weight")
        if "token_types.weight" in self._weights:
            positions = positions + self._weights.array("token_types.weight").reshape(-1, self.n_embd)[0]
        return positions

    def _finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(values).all():
            raise EngineError(
                f"{self._path.name} computed values that are not finite (NaN or infinity) with OpenVINO. The "
                "file is damaged (ggrank models verify), or this engine fails here: use engine='llama.cpp'."
            )
        return values


def _filled(n: int) -> int:
    return -(-n // STEP) * STEP


def _n_labels(weights: Weights) -> int:
    name = "cls.output.weight" if "cls.output.weight" in weights else "cls.weight"
    shape = weights.shape(name)
    return shape[0] if len(shape) > 1 else 1
