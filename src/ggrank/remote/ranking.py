"""Scores to a `Ranking`, as `Llama.rank` makes it.

Knows texts and their scores; not where either comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from ggrank.remote.reading import Results
from ggrank.scoring import best_first, sigmoid
from ggrank.types import RankedDocument, Ranking, Scale


def ranking_of(
    documents: Sequence[str],
    results: Results,
    *,
    own: Scale,
    scale: Scale,
    top_n: int | None,
    threshold: float | None,
) -> Ranking:
    """Documents in order, best first.

    Args:
        results: raw values, shape (n,), on the scale ``own``.
        scale: of the ranking's scores: ``own``, or "sigmoid" of logits.

    Example:
        >>> import numpy as np
        >>> results = Results([np.float32([-1.0, 2.0])], [False, False])
        >>> ranking = ranking_of(["a", "b"], results, own="logit", scale="logit", top_n=1, threshold=None)
        >>> ranking[0].index, ranking[0].logit
        (1, 2.0)
    """
    raw = results.values
    scores = sigmoid(raw) if scale == "sigmoid" else raw
    ranked = (
        RankedDocument(
            index=i,
            score=float(scores[i]),
            logit=float(raw[i]) if own == "logit" else None,
            document=documents[i],
            truncated=results.truncated[i],
        )
        for i in best_first(raw).tolist()
        if threshold is None or scores[i] >= threshold
    )
    return Ranking(documents=tuple(islice(ranked, top_n)), scale=scale, n_tokens=results.n_tokens)
