"""The arrays of a ``llama_batch`` (llama.h), filled with NumPy: whole micro-batches, never token by token."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.budget import check_token_ids
from ggrank.types import TokenIds

_int32 = ctypes.POINTER(ctypes.c_int32)
_float = ctypes.POINTER(ctypes.c_float)


class BatchArrays:
    """Memory for micro-batches of ``n_tokens`` tokens and ``n_sequences`` sequences at most.

    It must live as long as the batches made from it, which point into it.
    """

    def __init__(self, n_tokens: int, n_sequences: int) -> None:
        self._token = np.zeros(n_tokens, dtype=np.int32)
        self._pos = np.zeros(n_tokens, dtype=np.int32)
        self._n_seq_id = np.ones(n_tokens, dtype=np.int32)
        self._seq_ids = np.arange(n_sequences, dtype=np.int32)
        self._seq_id = np.zeros(n_tokens, dtype=np.uintp)
        self._output = np.ones(n_tokens, dtype=np.int8)
        self._pointers: dict[str, Any] = {
            "token": self._token.ctypes.data_as(_int32),
            "embd": None,
            "pos": self._pos.ctypes.data_as(_int32),
            "n_seq_id": self._n_seq_id.ctypes.data_as(_int32),
            "seq_id": self._seq_id.ctypes.data_as(ctypes.POINTER(_int32)),
            "logits": self._output.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        }

    def fill(
        self, sequences: Sequence[TokenIds], *, n_vocab: int, vectors: NDArray[np.float32] | None = None
    ) -> dict[str, Any]:
        """The fields of one batch: sequence i has id i and positions from 0; every token is an output.

        Args:
            sequences: token ids.
            n_vocab: pieces of the vocabulary.
            vectors: shape (n_tokens, n_embd): computed with in place of the word vectors. The caller keeps
                it for as long as the batch.

        Raises:
            InputError: a token id is not in the vocabulary; llama.cpp would read past a table.
        """
        lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
        n_tokens = int(lengths.sum())
        tokens = self._token[:n_tokens]
        np.concatenate(sequences, out=tokens)
        check_token_ids(tokens, n_vocab)
        self._pos[:n_tokens] = np.arange(n_tokens) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        # Each token points at its sequence's id: an address into _seq_ids, four bytes an id.
        owner = np.repeat(np.arange(len(sequences), dtype=np.uintp), lengths)
        self._seq_id[:n_tokens] = np.uintp(self._seq_ids.ctypes.data) + owner * np.uintp(4)
        fields = {"n_tokens": n_tokens, **self._pointers}
        if vectors is not None:
            fields |= {"token": None, "embd": vectors.ctypes.data_as(_float)}
        return fields
