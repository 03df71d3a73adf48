"""How a vector is kept: cut to fewer dimensions, and as float32, float16, int8 or bits.

Knows arrays of numbers and what a preset says of its model; no texts, no files.

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
from ggrank.presets import Preset, presets
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

    def apply(self, vectors: NDArray[np.float32]) -> NDArray[Any]:
        """Vectors of a model, shape (n, n_embd), float32, as they are kept: (n, `width`)."""
        if self.dimensions is not None:
            vectors = _layer_norm(vectors)[:, : self.dimensions]
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

    def check(self, model: str, n_embd: int) -> None:
        """Raises InputError where this model's vectors cannot be kept so.

        Args:
            model: its file's name.
            n_embd: the width of its vectors.
        """
        if self.dimensions is not None:
            _check_dimensions(self.dimensions, model, n_embd)
        if self.dtype == "binary" and (self.dimensions or n_embd) % 8:
            raise InputError(
                f"binary packs 8 dimensions to a byte, and {self.dimensions or n_embd} is no multiple of 8"
            )


AS_IT_IS = VectorForm()
"""Every number that the model gives, as float32, in vectors of length 1."""


def _check_dimensions(dimensions: int, model: str, n_embd: int) -> None:
    allowing = [preset.name for preset in presets().values() if preset.least_dimensions is not None]
    least = next((one.least_dimensions for one in presets().values() if _is_of(one, model)), None)
    if least is None:
        raise InputError(
            f"{model} cannot be cut to {dimensions} dimensions: it was not trained so that the first ones of "
            f"its {n_embd} say most (Matryoshka), and the rest would be lost. Models that allow it: "
            f"{', '.join(allowing)}"
        )
    if not least <= dimensions <= n_embd:
        raise InputError(f"dimensions must be from {least} to {n_embd} for {model}; found {dimensions}")


def _is_of(preset: Preset, model: str) -> bool:
    """Whether a file holds a preset's model, in whatever quantization."""
    return model == preset.file or model.lower().startswith(preset.name)


def _layer_norm(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and variance 1 over all dimensions, before the cut.

    Source: the card of https://huggingface.co/nomic-ai/nomic-embed-text-v1.5, which cuts the layer norm.
    """
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.mean(centred**2, axis=1, keepdims=True) + 1e-5)
    scaled: NDArray[np.float32] = (centred / deviation).astype(np.float32)
    return scaled
