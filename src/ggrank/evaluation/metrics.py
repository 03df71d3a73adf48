"""Rankings to the metrics of each query, by ir-measures; and how sure the mean of a difference is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError

METRICS = ("nDCG@10", "P@1", "MRR@5", "MRR@10", "recall@5", "recall@20", "recall@100")
"""In the order in which they are shown. nDCG's gain is the grade itself, as in trec_eval."""

RESAMPLES = 10_000
SEED = 20261121

_DRAWN_AT_ONCE = 2_000_000
"""Numbers; keeps memory flat however many queries there are."""


def measure(
    rankings: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, int]]
) -> dict[str, NDArray[np.float64]]:
    """The value of every metric for every query.

    Args:
        rankings: for each query the positions of documents, best first.
        relevant: for each query the grades above 0 by position; none is empty.

    Returns:
        For each name of `METRICS` an array of shape (n_queries,), float64, 0 to 1.

    Raises:
        InputError: ir-measures is not installed.

    Example:
        >>> values = measure([[3, 1, 2]], [{1: 1}])
        >>> float(values["MRR@10"][0]), float(values["P@1"][0]), round(float(values["nDCG@10"][0]), 4)
        (0.5, 0.0, 0.6309)
    """
    try:
        import ir_measures
        from ir_measures import RR, P, R, nDCG
    except ImportError as error:
        raise InputError("Metrics need ir-measures: pip install 'ggrank[eval]'") from error
    # Not by `parse_measure`, which needs ``ast.Num``: gone from Python 3.14.
    computed = (nDCG @ 10, P @ 1, RR @ 5, RR @ 10, R @ 5, R @ 20, R @ 100)
    measures = dict(zip(computed, METRICS, strict=True))
    # trec_eval orders by score and breaks ties by name: each rank gets a score of its own.
    run = [
        ir_measures.ScoredDoc(str(query), str(document), float(-rank))
        for query, ranking in enumerate(rankings)
        for rank, document in enumerate(ranking)
    ]
    qrels = [
        ir_measures.Qrel(str(query), str(document), grade)
        for query, grades in enumerate(relevant)
        for document, grade in grades.items()
    ]
    values = {name: np.zeros(len(rankings)) for name in METRICS}
    for found in ir_measures.iter_calc(computed, qrels, run):
        values[measures[found.measure]][int(found.query_id)] = found.value
    return values


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
