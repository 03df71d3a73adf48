"""Vectors and logits to scores, and scores to a ranking: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelModeError
from ggrank.types import RankedDocument, Ranking, Scale, ScoreScale

ONE_THREAD = 400_000
"""Numbers of a matrix that OpenBLAS multiplies with a vector on one thread. From 460,800 on it takes several
threads, which then spin while llama.cpp's threads compute: the next query's vector took 60 ms instead of 3 on
two cores, and the product, which waits for memory, was no faster."""


@dataclass(frozen=True)
class Fused:
    """A document in a fusion of rankings: its position, and the sum of its reciprocal ranks."""

    position: int
    score: float


def l2_normalize(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, shape and dtype (float32) unchanged; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1.0), np.float32)


def cosine(query: NDArray[np.float32], documents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of one query, (n_embd,), with each document, (n, n_embd); all L2-normalised: (n,), float32.

    Example:
        >>> cosine(np.float32([1, 0]), np.float32([[0, 1], [1, 0]])).tolist()
        [0.0, 1.0]
    """
    result = np.empty(len(documents), np.float32)
    rows = max(1, ONE_THREAD // max(1, len(query)))
    for first in range(0, len(documents), rows):
        np.matmul(documents[first : first + rows], query, out=result[first : first + rows])
    return np.clip(result, -1.0, 1.0, out=result)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """``1 / (1 + exp(-x))``, float32: the scale of sentence-transformers and of ``normalize=True``.

    Written with tanh, which cannot overflow.

    Example:
        >>> sigmoid(np.float32([-1000.0, 0.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    exact = 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))
    return np.asarray(exact, np.float32)


def best_first(scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Positions in order of falling score, ties in input order: shape (n,)."""
    return np.argsort(-scores, kind="stable")


def top_k(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The first ``k`` positions of `best_first`, without sorting all: shape (at most k,)."""
    if k >= len(scores):
        return best_first(scores)
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    reaching = np.flatnonzero(scores >= least)
    return reaching[best_first(scores[reaching])][:k]


def choose_scale(score: ScoreScale, *, own: Scale, model: str) -> Scale:
    """The scale of a ranking's scores.

    Args:
        score: the scale that was asked for.
        own: the model's own: "cosine", "logit", or "probability", which "sigmoid" leaves unchanged.
    """
    if score not in ("auto", "logit", "sigmoid", "cosine"):
        raise InputError(f"score must be 'auto', 'logit', 'sigmoid' or 'cosine'; found {score!r}")
    allowed = ("auto", "cosine") if own == "cosine" else ("auto", "logit", "sigmoid")
    if score not in allowed:
        raise ModelModeError(
            f"score {score!r} is not what {model} gives: it is loaded to "
            f"{'embed' if own == 'cosine' else 'rerank'}; use one of {', '.join(map(repr, allowed))}"
        )
    return own if own == "probability" or score == "auto" else score


def ranking_of(
    documents: Sequence[str],
    values: NDArray[np.float32],
    *,
    truncated: Sequence[bool],
    scale: Scale,
    has_logits: bool,
    top_n: int | None = None,
    threshold: float | None = None,
    n_tokens: int = 0,
) -> Ranking:
    """Documents in order of their values, best first; equal values keep the input order.

    Args:
        values: logits (``has_logits``) or cosines, shape (n,).
        truncated: whether each document was cut.
        scale: of the ranking's scores; "sigmoid" squashes the values.
        threshold: keep scores of at least this.
    """
    scores = sigmoid(values) if scale == "sigmoid" else values
    ranked = (
        RankedDocument(
            index=i,
            score=float(scores[i]),
            logit=float(values[i]) if has_logits else None,
            document=documents[i],
            truncated=truncated[i],
        )
        for i in best_first(values).tolist()
        if threshold is None or scores[i] >= threshold
    )
    return Ranking(documents=tuple(islice(ranked, top_n)), scale=scale, n_tokens=n_tokens)


def score_fusion(
    cosines: NDArray[np.float32], lexical: NDArray[np.float32], *, weight: float = 0.5
) -> NDArray[np.float32]:
    """Scores of the same candidates by meaning and by words as one: ``z(cosine) + weight * z(BM25)``.

    ``z`` sets the candidates' mean to 0 and their deviation to 1; if all are equal, it is 0. The fused scores
    order one query's candidates, and mean nothing across queries. The weight 0.5 was best on the eight sets
    that it was chosen on (docs/evaluation.md).

    Source: Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, ACM TOIS 2023,
    https://arxiv.org/abs/2210.11934: a convex combination of normalised scores ranks better than their
    reciprocal ranks, in and out of domain.

    Example:
        >>> score_fusion(np.float32([0.9, 0.1]), np.float32([0, 8])).tolist()
        [0.5, -0.5]
    """
    return np.asarray(_standardized(cosines) + weight * _standardized(lexical), np.float32)


def blend(
    logits: NDArray[np.float32], first_stage: NDArray[np.float32], *, weight: float
) -> NDArray[np.float32]:
    """One order of two stages for the same candidates: ``logit + weight * z(first stage)``.

    ``z`` is that of `score_fusion`. The logits keep their scale: where a reranker sees little difference
    between the candidates, the first stage decides, and where it sees much, the reranker. Standardized
    logits ranked worse (training/README.md). Weight 0 gives the reranker's own order.

    Example:
        >>> blend(np.float32([3, 1]), np.float32([0.2, 0.6]), weight=0.5).tolist()
        [2.5, 1.5]
    """
    blended: NDArray[np.float32] = logits + np.float32(weight) * _standardized(first_stage)
    return blended.astype(np.float32)


def _standardized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not len(values):
        return values
    exact = values.astype(np.float64)
    deviation = exact.std() if exact.std() > 1e-9 else 1.0
    return np.asarray((exact - exact.mean()) / deviation, np.float32)


def reciprocal_rank_fusion(rankings: Iterable[Sequence[int]], *, k: int = 60) -> list[Fused]:
    """Several rankings of the same documents as one: each gives a document ``1 / (k + rank)``.

    Only ranks count, so cosines and BM25 scores need no common scale. Each ranking holds positions of
    documents, best first (rank 1); a document may be missing from some.

    Source: Cormack, Clarke and Buettcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods, SIGIR 2009, https://doi.org/10.1145/1571941.1572114; ``k`` is the paper's.

    Example:
        >>> [fused.position for fused in reciprocal_rank_fusion([[7, 8, 9], [8, 5]])]
        [8, 7, 5, 9]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, position in enumerate(ranking, 1):
            scores[position] = scores.get(position, 0.0) + 1.0 / (k + rank)
    return [Fused(position, scores[position]) for position in sorted(scores, key=lambda p: (-scores[p], p))]


def to_int8(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes, shape (n, width), int8 from -127 to 127, and scales, shape (n,), float32.

    A vector is about ``codes * scale``. A cosine needs no scale: it is ``a @ b / (norm(a) * norm(b))`` of the
    codes, at least 0.9995 for a vector and its own codes.

    Example:
        >>> codes, scales = to_int8(np.float32([[0.6, -0.8]]))
        >>> codes.tolist(), (codes * scales[:, None]).round(2).tolist()
        ([[95, -127]], [[0.6000000238418579, -0.800000011920929]])
    """
    scales = np.abs(vectors).max(axis=1, initial=0.0) / np.float32(127)
    codes = np.rint(vectors / np.where(scales > 0, scales, 1.0)[:, None])
    return codes.astype(np.int8), scales.astype(np.float32)
