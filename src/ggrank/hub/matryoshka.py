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
    """The widths that a model was trained with: a tuple, ascending, or a `range`.

    Example:
        >>> str(Matryoshka.parse("512, 256, 128")), str(Matryoshka.parse("64-768, layer norm"))
        ('128, 256 or 512', '64 to 768')
    """

    widths: Sequence[int]
    layer_norm: bool = False
    """Whether the whole vector goes through a layer norm before it is cut."""

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
    if trained and trained.layer_norm:
        # As the card of https://huggingface.co/nomic-ai/nomic-embed-text-v1.5 does it.
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        vectors = centred / np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    return vectors[:, :width].astype(np.float32)
