"""Rankings -> metrics of each query, and how sure a difference between two systems is.

The metrics are ir-measures' (trec_eval's formulas). Knows positions and grades; no texts, no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError

METRICS = ("nDCG@10", "MRR@5", "MRR@10", "recall@5", "recall@20", "recall@100", "P@1")
"""In the order in which they are shown. nDCG's gain is the grade itself, as in trec_eval."""

_IN_IR_MEASURES = {"MRR": "RR", "recall": "R"}

RESAMPLES = 10_000
_BLOCK = 500
_SEED = 20261121


@dataclass(frozen=True)
class Interval:
    """A mean difference and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


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
    ir_measures = _library()
    measures = {ir_measures.parse_measure(_library_name(name)): name for name in METRICS}
    # trec_eval orders by score, so that each rank gets a score of its own.
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
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[found.measure]][int(found.query_id)] = found.value
    return values


def _library_name(name: str) -> str:
    family, _, depth = name.partition("@")
    return f"{_IN_IR_MEASURES.get(family, family)}@{depth}"


def _library() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise InputError("Metrics need ir-measures: pip install 'ggrank[eval]'") from error
    return ir_measures


def bootstrap(differences: NDArray[np.float64]) -> Interval:
    """The mean of paired differences with its 95 % percentile interval, from 10,000 resamples of the queries.

    The same numbers come out every time. Source: Efron and Tibshirani, An Introduction to the Bootstrap
    (1993), chapter 13; for retrieval: Sakai, SIGIR 2006, https://doi.org/10.1145/1148170.1148261.

    Example:
        >>> import numpy as np
        >>> bootstrap(np.full(50, 0.25))
        Interval(mean=0.25, low=0.25, high=0.25)
    """
    rng = np.random.default_rng(_SEED)
    n = len(differences)
    blocks = [differences[rng.integers(n, size=(_BLOCK, n))].mean(1) for _ in range(RESAMPLES // _BLOCK)]
    low, high = np.percentile(np.concatenate(blocks), [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))
