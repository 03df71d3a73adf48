"""The vocabulary of a model that llama.cpp has loaded: text to token ids and back."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ggrank.engine.library import api, recent_errors, refusal, start_backend
from ggrank.engine.lifetime import Lifetime, native_call
from ggrank.errors import EngineError, ModelFileError
from ggrank.types import SpecialTokens, TokenIds


def load_vocabulary(path: Path) -> Any:
    """A file loaded for its vocabulary alone, to be freed with ``llama_model_free``: no weights are read.

    Raises:
        ModelFileError: llama.cpp refuses the file.
    """
    start_backend()
    params = api.llama_model_default_params()
    params.vocab_only = True
    recent_errors.clear()
    with native_call():
        model = api.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise ModelFileError(refusal(path, "load the vocabulary"))
    return model


class Vocabulary:
    """Reads the vocabulary of ``model``, a ``llama_model`` that its owner keeps open and frees.

    Args:
        model: the pointer.
        lifetime: of that model; ended under ``lock``, so that no call is under way when it is freed.
    """

    def __init__(self, model: Any, lifetime: Lifetime) -> None:
        self.lock = threading.Lock()
        self._lifetime = lifetime
        self.read_from(model)

    def read_from(self, model: Any) -> None:
        """Goes on with another pointer to the same model; the caller holds ``lock``, or is alone."""
        self._vocab = api.llama_model_get_vocab(model)
        self.n_tokens = int(api.llama_vocab_n_tokens(self._vocab))

    @property
    def special(self) -> SpecialTokens:
        """The special tokens; -1 where there is none."""
        vocab = self._vocab
        return SpecialTokens(
            bos=int(api.llama_vocab_bos(vocab)),
            eos=int(api.llama_vocab_eos(vocab)),
            sep=int(api.llama_vocab_sep(vocab)),
            add_bos=bool(api.llama_vocab_get_add_bos(vocab)),
            add_eos=bool(api.llama_vocab_get_add_eos(vocab)),
        )

    def control_tokens(self) -> dict[str, int]:
        """The text of every control token and its id, such as ``{"[SEP]": 102}``."""
        found = (i for i in range(self.n_tokens) if api.llama_vocab_is_control(self._vocab, i))
        return {api.llama_vocab_get_text(self._vocab, i).decode("utf-8", "replace"): i for i in found}

    def tokenize(self, text: str, *, parse_special: bool = False) -> TokenIds:
        """Token ids, shape (n_tokens,), int32; no special token is added.

        Args:
            text: must encode as UTF-8.
            parse_special: read ``[SEP]`` and the like as the control token; for trusted text only.
        """
        data = text.encode("utf-8")
        size = len(data) + 8
        for _ in range(2):
            buffer = np.empty(size, dtype=np.int32)
            n_tokens = self._llama_tokenize(data, buffer, parse_special)
            if n_tokens >= 0:
                return buffer[:n_tokens].copy()
            size = -n_tokens
        raise EngineError(f"llama.cpp could not tokenize a text of {len(data)} bytes")

    def _llama_tokenize(self, data: bytes, buffer: TokenIds, parse_special: bool) -> int:
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        self._lifetime.check()
        with self.lock, native_call():
            self._lifetime.check()
            n_max = len(buffer)
            return int(api.llama_tokenize(self._vocab, data, len(data), pointer, n_max, False, parse_special))

    def detokenize(self, tokens: TokenIds) -> str:
        """The text of token ids, special tokens left out."""
        ids = np.ascontiguousarray(tokens, dtype=np.int32)
        pointer = ids.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        size = 16 * len(ids) + 16
        for _ in range(2):
            buffer = ctypes.create_string_buffer(size)
            self._lifetime.check()
            with self.lock, native_call():
                self._lifetime.check()
                n_bytes = api.llama_detokenize(self._vocab, pointer, len(ids), buffer, size, True, False)
            if n_bytes >= 0:
                return buffer.raw[:n_bytes].decode("utf-8", "replace")
            size = -n_bytes
        raise EngineError(f"llama.cpp could not turn {len(ids)} tokens back into text")
