"""Rankings -> the metrics of each query, by ir-measures, which computes as trec_eval does.

Knows positions and grades; no texts, no models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError

METRICS = ("nDCG@10", "MRR@5", "MRR@10", "recall@5", "recall@20", "recall@100", "P@1")
"""In the order in which they are shown. nDCG's gain is the grade itself, as in trec_eval."""

_IN_IR_MEASURES = {"nDCG": "nDCG", "MRR": "RR", "recall": "R", "P": "P"}


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
    measures = {_measure_of(ir_measures, name): name for name in METRICS}
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
    for found in ir_measures.iter_calc(list(measures), qrels, run):
        values[measures[found.measure]][int(found.query_id)] = found.value
    return values


def _measure_of(ir_measures: Any, name: str) -> Any:
    """``nDCG @ 10``. Not by ``parse_measure``, which needs ``ast.Num``: gone from Python 3.14."""
    family, _, depth = name.partition("@")
    return getattr(ir_measures, _IN_IR_MEASURES[family]) @ int(depth)


def _library() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise InputError("Metrics need ir-measures: pip install 'ggrank[eval]'") from error
    return ir_measures
