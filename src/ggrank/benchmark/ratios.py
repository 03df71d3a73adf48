"""The figures that rounds give: medians, spreads, ratios, and how far scores agree.

Pure: arrays in, numbers out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Spread:
    """What several rounds gave: the median, and the quartiles around it."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Raises:
        ValueError: there are no values.

    Example:
        >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
        Spread(median=3.0, low=2.0, high=4.0)
    """
    if not values:
        raise ValueError("a spread needs one value at least, found none")
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return Spread(median, low, high)


def times_as_fast(seconds: Sequence[float], of_peer: Sequence[float]) -> Spread:
    """How many times as fast as a peer: the ratios of the rounds, in which both ran one after the other.

    A machine that slows down for a while slows both of a round, and their ratio stays.

    Args:
        seconds, of_peer: of each round, in the same order; rounds that only one has are left out.

    Example:
        >>> times_as_fast([1.0, 2.0, 1.0], [3.0, 6.0, 3.0])
        Spread(median=3.0, low=3.0, high=3.0)
    """
    return spread([theirs / own for own, theirs in zip(seconds, of_peer, strict=False)])


@dataclass(frozen=True)
class Agreement:
    """How near scores are to those of a reference.

    Attributes:
        measure: "correlation" of logits (Pearson's), or "cosine" of vectors (the mean over texts).
        value: of that measure; 1 is the best.
        largest_difference: between two logits, or two elements of vectors of length 1.
    """

    measure: str
    value: float
    largest_difference: float


def agreement(scores: Sequence[NDArray[Any]], reference: Sequence[NDArray[Any]]) -> Agreement:
    """Compares arrays of logits, shape (n,), or of vectors, shape (n, n_embd), one after the other.

    Raises:
        ValueError: the shapes differ.
    """
    if [one.shape for one in scores] != [one.shape for one in reference]:
        raise ValueError("scores and reference must have the same shapes")
    own = np.concatenate(scores).astype(np.float64)
    other = np.concatenate(reference).astype(np.float64)
    difference = float(np.abs(own - other).max())
    if own.ndim == 2:
        lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
        return Agreement("cosine", float(((own * other).sum(axis=1) / lengths).mean()), difference)
    return Agreement("correlation", _correlation(own, other), difference)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's; of constant values 1 where both are the same, else 0."""
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    if scale == 0:
        return float(np.array_equal(a, b))
    return float(a @ b) / scale
