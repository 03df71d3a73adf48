"""Vectors as int8: each divided by a scale of its own and rounded, so that its direction stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_int8(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes, shape (n, width), int8 from -127 to 127, and scales, shape (n,), float32.

    A vector is about ``codes * scale``. A cosine needs no scale: it is ``a @ b / (norm(a) * norm(b))`` of the
    codes, at least 0.9995 for a vector and its own codes.

    Example:
        >>> codes, scales = to_int8(np.float32([[0.6, -0.8]]))
        >>> codes.tolist(), (codes * scales[:, None]).round(2).tolist()
        ([[95, -127]], [[0.6000000238418579, -0.800000011920929]])
    """
    scales = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(127)
    codes = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None])
    return codes.astype(np.int8), scales.astype(np.float32)


def from_int8(codes: NDArray[Any]) -> NDArray[np.float32]:
    """Vectors of length 1, shape (n, width), float32, of codes whose scales were not kept."""
    wide = codes.astype(np.float32)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norms > 0, norms, 1.0)).astype(np.float32)
