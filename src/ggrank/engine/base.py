"""The common part of both engines: llama.cpp's tokenizer, a micro-batch's limits, freeing a model."""

from __future__ import annotations

import ctypes
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.library import api
from ggrank.engine.lifetime import is_ending, native_call
from ggrank.errors import ClosedError, EngineError, InputError
from ggrank.gguf import GgufFile
from ggrank.types import EngineName, EngineSettings, SpecialTokens, TokenIds

Result = TypeVar("Result")


class EngineBase(ABC):
    """A loaded file. Safe to call from several threads."""

    name: EngineName
    n_vocab: int

    def __init__(self, file: GgufFile, settings: EngineSettings) -> None:
        self._path, self._settings = file.path, settings
        self._process_id = os.getpid()
        self._model: Any = None  # a pointer to a ``llama_model``; None after `close`
        self._lock = threading.Lock()
        self._vocabulary_lock = threading.Lock()

    def _take(self, model: Any) -> None:
        """Owns a ``llama_model`` from now on, and reads its vocabulary."""
        self._model = model
        self._vocabulary = api.llama_model_get_vocab(model)
        self.n_vocab = int(api.llama_vocab_n_tokens(self._vocabulary))

    @property
    def special(self) -> SpecialTokens:
        """The vocabulary's special tokens."""
        vocabulary = self._vocabulary
        return SpecialTokens(
            bos=int(api.llama_vocab_bos(vocabulary)),
            eos=int(api.llama_vocab_eos(vocabulary)),
            sep=int(api.llama_vocab_sep(vocabulary)),
            add_bos=bool(api.llama_vocab_get_add_bos(vocabulary)),
            add_eos=bool(api.llama_vocab_get_add_eos(vocabulary)),
        )

    def control_tokens(self) -> list[str]:
        """The texts of all control tokens, such as "[SEP]"."""
        ids = (i for i in range(self.n_vocab) if api.llama_vocab_is_control(self._vocabulary, i))
        return [api.llama_vocab_get_text(self._vocabulary, i).decode("utf-8", "replace") for i in ids]

    def tokenize(self, text: str, *, parse_special: bool = False) -> TokenIds:
        """Token ids, shape (n_tokens,), int32; no special token is added.

        Args:
            text: must encode as UTF-8.
            parse_special: read ``[SEP]`` and the like as the control token; for trusted text only.
        """
        data = text.encode("utf-8")

        def fill(buffer: NDArray[np.int32]) -> int:
            pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            size = len(buffer)
            return int(
                api.llama_tokenize(self._vocabulary, data, len(data), pointer, size, False, parse_special)
            )

        return self._filled(fill, np.empty(len(data) + 8, np.int32))

    def detokenize(self, tokens: TokenIds) -> str:
        """The text of token ids, without special tokens."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))

        def fill(buffer: NDArray[np.uint8]) -> int:
            text, size = buffer.ctypes.data_as(ctypes.c_char_p), len(buffer)
            return int(api.llama_detokenize(self._vocabulary, pointer, len(ids), text, size, True, False))

        return self._filled(fill, np.empty(16 * len(ids) + 16, np.uint8)).tobytes().decode("utf-8", "replace")

    def _filled(self, fill: Callable[[NDArray[Any]], int], buffer: NDArray[Any]) -> NDArray[Any]:
        """What llama.cpp wrote; if the buffer is too small, it returns the negative size that it needs."""
        for _ in range(2):
            n = self._native(partial(fill, buffer), self._vocabulary_lock)
            if n >= 0:
                return buffer[:n].copy()
            buffer = np.empty(-n, buffer.dtype)
        raise EngineError("llama.cpp's tokenizer failed")

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Computes one micro-batch.

        Args:
            sequences: token ids, each at least one; ``n_ubatch`` tokens and ``n_seq_max`` sequences at most.

        Returns:
            Shape (n_sequences, n_outputs), float32: vectors that are not normalised, or raw logits.
        """
        check_micro_batch(sequences, self._settings)
        return self._finite(lambda: self._compute(sequences))

    def run_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        """Computes one sequence without pooling: shape (n_tokens, n_embd), float32."""
        check_micro_batch([tokens], self._settings)
        return self._finite(lambda: self._compute_tokens(tokens))

    def close(self) -> None:
        """Frees everything, after calls in other threads have ended; closing twice is fine."""
        if self._process_id != os.getpid():
            return  # A forked child shares the memory, but not the threads that would have to end.
        with self._lock, self._vocabulary_lock, native_call():
            if self._model is not None:
                self._free()
                api.llama_model_free(self._model)
                self._model = None

    def __del__(self, _is_ending: Callable[[], bool] = is_ending) -> None:
        # ``_is_ending`` is bound early: at the interpreter's end the names of modules go before objects do.
        if getattr(self, "_model", None) is not None and not _is_ending():
            self.close()

    def _native(self, call: Callable[[], Result], lock: threading.Lock) -> Result:
        """The result of a native call, of which the lock allows one at a time."""
        self._check_open()  # before the lock too: in a forked child it may be held by a thread that is gone
        with lock, native_call():
            self._check_open()
            return call()

    def _check_open(self) -> None:
        if self._process_id != os.getpid():
            raise ClosedError(
                "this model was loaded in another process, and its threads do not survive a fork. Load it in "
                "the process that uses it, or start workers with multiprocessing's 'spawn'."
            )
        if self._model is None:
            raise ClosedError("this model is closed; load it again")

    def _finite(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        values = self._native(compute, self._lock)
        if np.isfinite(values).all():
            return values
        raise EngineError(
            f"{self._path.name} computed values that are not finite (NaN or infinity) with {self.name}. The "
            "file is damaged (ggrank models verify), or this engine computes wrongly here (ggrank doctor)."
        )

    @abstractmethod
    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]: ...

    @abstractmethod
    def _compute_tokens(self, tokens: TokenIds) -> NDArray[np.float32]: ...

    @abstractmethod
    def _free(self) -> None:
        """Frees everything but the ``llama_model``."""


def check_micro_batch(sequences: Sequence[TokenIds], limits: EngineSettings) -> None:
    """Raises InputError if a micro-batch is empty or over a limit; llama.cpp would end the process."""
    n_tokens = sum(map(len, sequences))
    if not sequences or min(map(len, sequences)) == 0:
        raise InputError("a micro-batch needs at least one sequence, and each at least one token")
    if n_tokens > limits.n_ubatch or len(sequences) > limits.n_seq_max:
        raise InputError(
            f"a micro-batch of {len(sequences)} sequences and {n_tokens} tokens is over the limits of "
            f"n_seq_max {limits.n_seq_max} and n_ubatch {limits.n_ubatch}"
        )
    longest = max(map(len, sequences))
    if longest > limits.n_ctx:
        raise InputError(f"a sequence of {longest} tokens is longer than n_ctx {limits.n_ctx}")


def check_token_ids(tokens: TokenIds, n_vocab: int) -> None:
    """Raises InputError if an id is not in the vocabulary; engines would read past the end of a table."""
    if tokens.min() < 0 or tokens.max() >= n_vocab:
        raise InputError(f"token ids must be from 0 to {n_vocab - 1}")
