"""A GGUF's tensors as NumPy arrays: whole matrices, single rows of a table, and the vectors of BERT's tokens.

Rows are dequantized by ggml's own functions (``ggml_get_type_traits``, ggml.h), so that they are the numbers
with which llama.cpp computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.base import check_token_ids
from ggrank.engine.library import declare
from ggrank.gguf import GgufFile
from ggrank.gguf.format import TENSOR_TYPES, TensorInfo
from ggrank.types import TokenIds

Floats = NDArray[np.float32]

BLOCK = 32
"""Weights that share a scale, as in ggml's q8_0."""

_PLAIN: dict[str, np.dtype[Any]] = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2")}
_CODES = {name: code for code, (name, _, _) in TENSOR_TYPES.items()}


class _TypeTraits(ctypes.Structure):
    """``struct ggml_type_traits``, ggml.h, up to the one field that is used."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


_type_traits = declare("ggml_get_type_traits", ctypes.POINTER(_TypeTraits), ctypes.c_int)


class Weights:
    """The tensors of one file. The file stays mapped for as long as this lives."""

    def __init__(self, file: GgufFile) -> None:
        self._tensors = file.tensors
        self._data = np.memmap(file.path, np.uint8, "r")

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """As NumPy counts: rows first."""
        return self._tensors[name].shape[::-1]

    def is_quantized(self, name: str) -> bool:
        """Whether its numbers are stored in blocks."""
        return TENSOR_TYPES[_CODES[self._tensors[name].type]][1] > 1

    def array(self, name: str) -> Floats:
        """All numbers of a tensor: its shape, float32."""
        tensor = self._tensors[name]
        return _floats(self._bytes(tensor), tensor).reshape(tensor.shape[::-1])

    def rows(self, name: str, indices: NDArray[np.int64]) -> Floats:
        """Some rows of a table: shape (n, width), float32. The others are not read from the disk."""
        tensor = self._tensors[name]
        table = self._bytes(tensor).reshape(int(np.prod(tensor.shape[1:])), -1)
        return _floats(table[indices].reshape(-1), tensor).reshape(len(indices), tensor.shape[0])

    def blocks(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
        """A matrix as whole numbers, (rows, blocks, BLOCK), with a scale for each block, (rows, blocks, 1).

        Of a q8_0 tensor they are the file's own bytes; others are rounded to -127 to 127, by 1/254 of the
        block's largest weight at most.
        """
        tensor = self._tensors[name]
        n_rows = tensor.shape[1]
        if tensor.type == "q8_0":
            parts = self._bytes(tensor).view(np.dtype([("scale", "<f2"), ("codes", "i1", (BLOCK,))]))
            codes, scale = (np.ascontiguousarray(parts[field]) for field in ("codes", "scale"))
            return codes.reshape(n_rows, -1, BLOCK), scale.astype(np.float16).reshape(n_rows, -1, 1)
        values = self.array(name).reshape(n_rows, -1, BLOCK)
        scales = (np.abs(values).max(axis=-1, keepdims=True) / 127).astype(np.float16)
        inverse = 1 / np.where(scales > 0, scales, 1).astype(np.float32)
        return np.clip(np.rint(values * inverse), -127, 127).astype(np.int8), scales

    def _bytes(self, tensor: TensorInfo) -> NDArray[np.uint8]:
        return np.asarray(self._data[tensor.offset : tensor.offset + tensor.n_bytes])


def _floats(data: NDArray[np.uint8], tensor: TensorInfo) -> Floats:
    if tensor.type in _PLAIN:
        return data.view(_PLAIN[tensor.type]).astype(np.float32)
    _, block, block_bytes = TENSOR_TYPES[_CODES[tensor.type]]
    out = np.empty(data.size // block_bytes * block, np.float32)
    source: Any = np.ascontiguousarray(data)
    _type_traits(_CODES[tensor.type]).contents.to_float(source.ctypes.data, out.ctypes.data, out.size)
    return out


class TokenVectors:
    """The word vectors of one BERT file, with what the segments add; an engine's input in place of token ids.

    What follows a sequence's first ``separator`` is segment 1; None if all tokens are segment 0.
    """

    def __init__(self, weights: Weights, *, separator: int | None) -> None:
        self._weights = weights
        self._separator = separator
        self._n_vocab = weights.shape("token_embd.weight")[0]
        if separator is not None:
            types = weights.array("token_types.weight")
            self._segment_difference = types[1] - types[0]

    def of(self, sequences: Sequence[TokenIds]) -> Floats:
        """Each token's word vector, all sequences in a row: shape (n_tokens, n_embd), float32.

        In segment 1 with the difference of its type vector to segment 0's, which graphs add to every token.
        """
        tokens = np.concatenate(sequences)
        words, which = np.unique(tokens, return_inverse=True)
        check_token_ids(words, self._n_vocab)
        vectors = self._weights.rows("token_embd.weight", words.astype(np.int64))[which]
        if self._separator is not None:
            vectors[segments(sequences, tokens == self._separator)] += self._segment_difference
        return vectors


def segments(sequences: Sequence[TokenIds], is_separator: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each token follows the first separator of its sequence, and so is segment 1: (n_tokens,).

    Example:
        >>> pair = np.array([101, 7, 102, 8, 9, 102])
        >>> segments([pair], pair == 102).astype(int).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    n_before: NDArray[np.int64] = np.cumsum(is_separator) - is_separator
    starts = np.cumsum(lengths) - lengths
    return n_before > np.repeat(n_before[starts], lengths)
