"""The order and the scores of both stages: pure functions of cosines, BM25 scores and logits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import Fused, best_first, reciprocal_rank_fusion, score_fusion, top_k
from ggrank.search.lexical import LexicalHit
from ggrank.types import Hybrid

FUSION_DEPTH = 100
"""How far down both rankings are fused, at least; with fewer, ``retrieve_k`` would change the order."""

LEXICAL_DEPTH = 1_000
"""How many passages BM25 names, at least: those that the embedder found have their scores among them."""


def fuse(cosines: NDArray[np.float32], hits: Sequence[LexicalHit], *, k: int, by: Hybrid) -> list[Fused]:
    """The ``k`` best of a ranking by cosine and one by BM25.

    Args:
        cosines: of every document, shape (n,); -inf for a row that is none.
        hits: the first `LEXICAL_DEPTH` or more; positions in ``cosines``.
    """
    depth = max(k, FUSION_DEPTH)
    by_cosine = [i for i in top_k(cosines, depth).tolist() if cosines[i] > -np.inf]
    by_words = [hit.position for hit in hits[:depth]]
    if by == "rrf":
        return reciprocal_rank_fusion([by_cosine, by_words])[:k]
    pool = np.array(sorted({*by_cosine, *by_words}), np.int64)
    # What is below the last hit scores as that one, or 0 where every passage with a word is a hit.
    floor = hits[-1].score if len(hits) >= LEXICAL_DEPTH else 0.0
    scores = {hit.position: hit.score for hit in hits}
    lexical = np.array([scores.get(position, floor) for position in pool.tolist()], np.float32)
    fused = score_fusion(cosines[pool], lexical)
    return [Fused(int(pool[i]), float(fused[i])) for i in best_first(fused)[:k].tolist()]


def meaning_score(cosine: float, *, unrelated: float) -> float:
    """How far a cosine is on the way from what unrelated texts reach (0) to equal texts (1).

    Args:
        unrelated: of the model, see `ggrank.search.models.unrelated_cosine`.

    Example:
        >>> meaning_score(0.625, unrelated=0.25), meaning_score(0.1, unrelated=0.25)
        (0.5, 0.0)
    """
    return min(max((cosine - unrelated) / (1.0 - unrelated), 0.0), 1.0)


def word_weights(counts: Mapping[str, int], *, n_passages: int) -> dict[str, float]:
    """What each word of a query weighs: BM25's inverse document frequency, in the form that is never below 0.

    Args:
        counts: passages with each word; 0 for a word that the index does not have, which weighs most.
    """
    return {word: math.log(1 + (n_passages - n + 0.5) / (n + 0.5)) for word, n in counts.items()}


def words_score(held: Collection[str], weights: Mapping[str, float]) -> float:
    """The share of a query's words that a passage holds besides the heaviest of them, by their weights.

    Nearly every query of several words has a passage that holds one of them, so one alone counts nothing. A
    query of one word is held, 1.0, or not.

    Example:
        >>> weights = {"llamas": 3.0, "live": 1.0, "peru": 2.0}
        >>> words_score(["llamas", "peru"], weights), words_score(["peru"], weights)
        (0.3333333333333333, 0.0)
    """
    if len(weights) == 1:
        return float(len(held))
    found = [weights[word] for word in held]
    return (sum(found) - max(found)) / sum(weights.values()) if found else 0.0


def first_score(meaning: float | None, words: float | None) -> float:
    """One score of the first stage; of both kinds the mean, words weighing half as in `score_fusion`."""
    if meaning is None or words is None:
        return (meaning or 0.0) + (words or 0.0)
    return (2 * meaning + words) / 3
