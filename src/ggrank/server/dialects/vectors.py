"""What is done to vectors on their way out: fewer numbers, or bytes in base64.

Knows arrays; no requests and no models.
"""

from __future__ import annotations

import base64

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import l2_normalize
from ggrank.server.dialects.errors import found
from ggrank.server.errors import FieldError


def shortened(
    vectors: NDArray[np.float32], dimensions: int | None, *, normalize: bool = True
) -> NDArray[np.float32]:
    """The first ``dimensions`` numbers of each vector, of length 1 again if ``normalize``.

    Args:
        vectors: shape (n, n_embd), float32.

    Raises:
        FieldError: more dimensions than the model has.

    Example:
        >>> import numpy as np
        >>> shortened(np.float32([[3, 4, 12]]), 2).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    if dimensions > vectors.shape[1]:
        told = f"dimensions must be at most the model's {vectors.shape[1]}, found {found(dimensions)}"
        raise FieldError(f"{told}: ask for fewer", field="dimensions")
    cut = vectors[:, :dimensions]
    return l2_normalize(cut) if normalize else cut


def as_base64(vector: NDArray[np.float32]) -> str:
    """A vector's float32 numbers, little-endian, as OpenAI's ``encoding_format="base64"`` gives them.

    Example:
        >>> import numpy as np
        >>> as_base64(np.float32([1.0, -2.0]))
        'AACAPwAAAMA='
    """
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
