"""Matryoshka: widths to which the vectors of a model may be cut, because it was trained with them.

Source: Kusupati et al., Matryoshka Representation Learning (2022), https://arxiv.org/abs/2205.13147.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Matryoshka:
    """The widths that a model was trained with.

    Attributes:
        widths: a tuple of them, ascending, or a `range`.
        layer_norm: whether the whole vector goes through a layer norm before it is cut.

    Example:
        >>> Matryoshka.parse("32-1024").widths
        range(32, 1025)
        >>> str(Matryoshka.parse("512, 256, 128")), str(Matryoshka.parse("64-768, layer norm"))
        ('128, 256 or 512', '64 to 768')
    """

    widths: Sequence[int]
    layer_norm: bool = False

    @classmethod
    def parse(cls, text: str) -> Matryoshka:
        """Reads a preset's words: widths or a range of them, then ", layer norm" if there is one."""
        widths = text.removesuffix(", layer norm")
        least, dash, most = widths.partition("-")
        listed = () if dash else tuple(sorted(map(int, widths.split(","))))
        return cls(listed or range(int(least), int(most) + 1), layer_norm=widths != text)

    def __str__(self) -> str:
        if isinstance(self.widths, range):
            return f"{self.widths[0]} to {self.widths[-1]}"
        *others, last = map(str, self.widths)
        return f"{', '.join(others)} or {last}" if others else last


def cut(vectors: NDArray[np.float32], width: int | None, trained: Matryoshka | None) -> NDArray[np.float32]:
    """The first ``width`` numbers of vectors, shape (n, n_embd), not normalised; None for all."""
    if width is None or width == vectors.shape[1]:
        return vectors
    return (_layer_norm(vectors) if trained and trained.layer_norm else vectors)[:, :width]


def _layer_norm(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and variance 1 over all dimensions.

    Source: the card of https://huggingface.co/nomic-ai/nomic-embed-text-v1.5, which cuts the layer norm.
    """
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    return np.asarray(centred / deviation, np.float32)
