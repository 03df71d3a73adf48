"""How sure a mean difference between two systems is, by resampling the queries.

Knows numbers, one a query; not what they measure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
SEED = 20261121

_DRAWN_AT_ONCE = 2_000_000
"""Numbers; keeps memory flat however many queries there are."""


@dataclass(frozen=True)
class Interval:
    """A mean difference and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap(differences: NDArray[np.float64]) -> Interval:
    """The mean of paired differences with its 95 % percentile interval, from 10,000 resamples of the queries.

    The same numbers come out every time. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), chapter 13; for retrieval: Sakai, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.

    Args:
        differences: one a query, shape (n_queries,), n_queries at least 1.

    Example:
        >>> import numpy as np
        >>> bootstrap(np.full(50, 0.25))
        Interval(mean=0.25, low=0.25, high=0.25)
    """
    rng = np.random.default_rng(SEED)
    n = len(differences)
    block = max(1, _DRAWN_AT_ONCE // n)
    sizes = [min(block, RESAMPLES - start) for start in range(0, RESAMPLES, block)]
    means = np.concatenate([differences[rng.integers(n, size=(size, n))].mean(1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))
