"""A GGUF's tensors as NumPy arrays, read from the mapped file: whole matrices, or single rows of a table.

Rows are dequantized by ggml's own functions (``ggml_get_type_traits``, ggml.h), so that they are the numbers
with which llama.cpp computes.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.library import declare
from ggrank.gguf import GgufFile
from ggrank.gguf.format import TENSOR_TYPES, TensorInfo

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
        """Whether its numbers are stored in blocks, and not each by itself."""
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
        """A matrix as whole numbers of -127 to 127, and a scale for each `BLOCK` of a row, as q8_0 has them.

        Returns:
            Shapes (rows, blocks, BLOCK), int8, and (rows, blocks, 1), float16. Of a q8_0 tensor they are
            the file's own bytes; others are rounded to them, by 1/254 of the block's largest weight at most.
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
