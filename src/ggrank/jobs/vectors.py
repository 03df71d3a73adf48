"""How a vector is kept: cut to fewer dimensions, and as float32, float16 or int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.hub.matryoshka import Matryoshka, cut
from ggrank.hub.presets import check_dimensions
from ggrank.llama import Llama
from ggrank.scoring import l2_normalize, to_int8

VectorDtype = Literal["float32", "float16", "int8"]
"""What a vector's numbers are kept as; int8 as `ggrank.scoring.to_int8` has it, without the scale."""


@dataclass(frozen=True)
class VectorForm:
    """What becomes of a model's vectors, which get length 1 before they are rounded.

    Attributes:
        dtype: what the numbers are kept as.
        dimensions: how many are kept, the first ones; None for all. Only models trained for it (Matryoshka)
            allow fewer.

    Raises:
        InputError: an unknown dtype.

    Example:
        >>> VectorForm("int8").apply(np.float32([[3.0, -4.0]])).tolist()
        [[95, -127]]
    """

    dtype: VectorDtype = "float32"
    dimensions: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in get_args(VectorDtype):
            raise InputError(f"dtype must be one of {', '.join(get_args(VectorDtype))}; found {self.dtype!r}")

    def apply(self, vectors: NDArray[np.float32], trained: Matryoshka | None = None) -> NDArray[Any]:
        """Vectors of a model, shape (n, n_embd), float32, as they are kept: (n, dimensions).

        Args:
            trained: the widths that the model was trained with; needed where there are fewer ``dimensions``.
        """
        unit = l2_normalize(cut(vectors, self.dimensions, trained))
        return to_int8(unit)[0] if self.dtype == "int8" else unit.astype(self.dtype)

    def check(self, llama: Llama) -> None:
        """Raises InputError where this model's vectors cannot be cut so."""
        if self.dimensions is not None:
            name, trained = llama.model_path.name, llama.matryoshka
            check_dimensions(self.dimensions, model=name, n_embd=llama.n_embd, trained=trained)


AS_IT_IS = VectorForm()
"""Every number that the model gives, as float32, in vectors of length 1."""
