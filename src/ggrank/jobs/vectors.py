"""How a vector is kept: cut to fewer dimensions, and as float32, float16, int8 or bits.

Knows arrays of numbers and to what widths a model's may be cut; no texts, no files.

    float32   as the model gives it
    float16   each number rounded to half precision
    int8      rint(127 x / max|x|), from -127 to 127: each vector has a scale of its own, which is not kept.
              The direction stays, so cosines are those of the codes: a·b / (|a| |b|).
    binary    bit i is 1 where x[i] > 0, eight to a byte, the first one in the highest bit, uint8: compared by
              the number of bits that differ (Hamming distance)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.hub.matryoshka import Matryoshka, cut
from ggrank.hub.presets import check_dimensions
from ggrank.llama import Llama
from ggrank.scoring import l2_normalize

VectorDtype = Literal["float32", "float16", "int8", "binary"]
"""What a vector's numbers are kept as."""


@dataclass(frozen=True)
class VectorForm:
    """What becomes of a model's vectors.

    Attributes:
        dtype: what the numbers are kept as.
        dimensions: how many of them; None for all. Only models trained for it (Matryoshka) allow it.
        normalize: give each vector length 1, before it is rounded.

    Raises:
        InputError: values that do not go together.

    Example:
        >>> VectorForm(dtype="int8").apply(np.float32([[3.0, -4.0]])).tolist()
        [[95, -127]]
        >>> VectorForm(dtype="binary").apply(np.float32([[1, -1, 0, 1, 1, 1, 1, 1]])).tolist()
        [[159]]
    """

    dtype: VectorDtype = "float32"
    dimensions: int | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        if self.dtype not in get_args(VectorDtype):
            raise InputError(f"dtype must be one of {', '.join(get_args(VectorDtype))}; found {self.dtype!r}")
        if self.dtype in ("int8", "binary") and not self.normalize:
            raise InputError(
                f"{self.dtype} keeps a vector's direction and not its length; leave out no-normalize"
            )

    def apply(self, vectors: NDArray[np.float32], trained: Matryoshka | None = None) -> NDArray[Any]:
        """Vectors of a model, shape (n, n_embd), float32, as they are kept: (n, `width`).

        Args:
            trained: the widths that the model was trained with; needed where there are fewer ``dimensions``.
        """
        vectors = cut(vectors, self.dimensions, trained)
        if self.normalize:
            vectors = l2_normalize(vectors)
        if self.dtype == "binary":
            return np.packbits(vectors > 0, axis=1)
        if self.dtype == "int8":
            largest = np.abs(vectors).max(axis=1, keepdims=True, initial=0.0)
            return np.rint(vectors * (127 / np.where(largest > 0, largest, 1.0))).astype(np.int8)
        return vectors.astype(self.dtype)

    def width(self, n_embd: int) -> int:
        """Numbers of a vector as it is kept."""
        n = self.dimensions or n_embd
        return n // 8 if self.dtype == "binary" else n

    def check(self, llama: Llama) -> None:
        """Raises InputError where this model's vectors cannot be kept so."""
        if self.dimensions is not None:
            check_dimensions(
                self.dimensions,
                model=llama.model_path.name,
                n_embd=llama.n_embd,
                trained=llama.matryoshka,
            )
        n = self.dimensions or llama.n_embd
        if self.dtype == "binary" and n % 8:
            raise InputError(f"binary packs 8 dimensions to a byte, and {n} is no multiple of 8")


AS_IT_IS = VectorForm()
"""Every number that the model gives, as float32, in vectors of length 1."""
