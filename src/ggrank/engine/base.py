"""The common part of both engines: llama.cpp's tokenizer, a micro-batch's limits, freeing a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.library import api
from ggrank.engine.lifetime import Lifetime, is_ending, native_call
from ggrank.engine.vocabulary import Vocabulary
from ggrank.errors import InputError
from ggrank.gguf import GgufFile
from ggrank.types import EngineSettings, SpecialTokens, TokenIds

Result = TypeVar("Result")


class EngineBase:
    """A loaded file. Safe to call from several threads."""

    _model: Any  # a pointer to a ``llama_model``; None after `close`
    _vocabulary: Vocabulary

    def __init__(self, file: GgufFile, settings: EngineSettings) -> None:
        self._path, self._settings = file.path, settings
        self._lifetime = Lifetime()
        self._lock = threading.Lock()

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
        """The text of token ids, without special tokens."""
        return self._vocabulary.detokenize(tokens)

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Computes one micro-batch.

        Args:
            sequences: token ids, each at least one; ``n_ubatch`` tokens and ``n_seq_max`` sequences at most.

        Returns:
            Shape (n_sequences, n_outputs), float32: vectors that are not normalised, or raw logits.

        Raises:
            InputError: the micro-batch is empty or over a limit, or has an unknown token id.
            EngineError: the computation failed, or its values are not finite.
        """
        check_micro_batch(sequences, self._settings)
        return self._finite(lambda: self._compute(sequences))

    def run_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        """Computes one sequence without pooling: shape (n_tokens, n_embd), float32.

        Raises:
            InputError, EngineError: as for `run`.
        """
        check_micro_batch([tokens], self._settings)
        return self._finite(lambda: self._compute_tokens(tokens))

    def close(self) -> None:
        """Frees everything, after calls in other threads have ended; closing twice is fine."""
        if not self._lifetime.in_this_process:
            return  # A forked child shares the memory, but not the threads that would have to end.
        with self._lock, self._vocabulary.lock, native_call():
            if self._model is not None:
                self._free()
                api.llama_model_free(self._model)
                self._model = None
            self._lifetime.end()

    def __del__(self, _is_ending: Callable[[], bool] = is_ending) -> None:
        # ``_is_ending`` is bound early: at the interpreter's end the names of modules go before objects do.
        if getattr(self, "_vocabulary", None) is not None and not _is_ending():
            self.close()

    def _locked(self, call: Callable[[], Result]) -> Result:
        """The result of a native call, of which there is one at a time."""
        self._lifetime.check()
        with self._lock, native_call():
            self._lifetime.check()
            return call()

    def _finite(self, compute: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        raise NotImplementedError

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        raise NotImplementedError

    def _compute_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        raise NotImplementedError

    def _free(self) -> None:
        raise NotImplementedError


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
