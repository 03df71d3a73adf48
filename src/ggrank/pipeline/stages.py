"""What both kinds of first stage share: how candidates are fused, and how the second stage orders them.

Knows rankings and scores; not where documents are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, InputTypeError, ModelModeError
from ggrank.inputs import check_top_n
from ggrank.lexical import LexicalHit
from ggrank.llama import Llama
from ggrank.scoring import Fused, reciprocal_rank_fusion, top_k
from ggrank.types import Mode, Ranking

FUSION_DEPTH = 100
"""How far down both rankings are fused, at least; with fewer, ``retrieve_k`` would change the order."""


def second_stage(query: str, candidates: Ranking, *, reranker: Llama | None, top_n: int | None) -> Ranking:
    """Candidates in the reranker's order; in their own where there is none.

    They keep index, id, metadata and cosine. ``n_tokens`` becomes that of both stages.
    """
    if reranker is None:
        return replace(candidates, documents=candidates[:top_n])
    ranking = reranker.rank(query, [candidate.document for candidate in candidates], top_n=top_n)
    documents = tuple(
        replace(candidates[found.index], score=found.score, logit=found.logit, truncated=found.truncated)
        for found in ranking
    )
    return Ranking(documents, ranking.scale, candidates.n_tokens + ranking.n_tokens)


def fuse(cosines: NDArray[np.float32], hits: Sequence[LexicalHit], *, k: int) -> list[Fused]:
    """The ``k`` best of a ranking by cosine and one by BM25, whose hits are positions in ``cosines``."""
    by_cosine = top_k(cosines, max(k, FUSION_DEPTH)).tolist()
    return reciprocal_rank_fusion([by_cosine, [hit.position for hit in hits]])[:k]


def check_depth(retrieve_k: int, top_n: int | None) -> int:
    """How many the first stage must find. Raises InputError where one is no whole number from 1."""
    check_top_n(top_n)
    if isinstance(retrieve_k, bool) or not isinstance(retrieve_k, int) or retrieve_k < 1:
        raise InputError(f"retrieve_k must be a whole number of at least 1; found {retrieve_k!r}")
    return max(retrieve_k, top_n or 1)


def check_embedder(embedder: object) -> Llama:
    """Raises ModelModeError unless the model makes vectors, InputTypeError unless it is one."""
    embedder = _check_model(embedder, "embedder")
    if embedder.mode is not Mode.EMBEDDING:
        raise ModelModeError(
            f"the embedder must be an embedding model; {embedder.model_path.name} is a reranker: give it as "
            "the reranker"
        )
    return embedder


def check_reranker(reranker: object) -> Llama | None:
    """Raises ModelModeError unless the model scores pairs, InputTypeError unless it is one."""
    if reranker is None:
        return None
    reranker = _check_model(reranker, "reranker")
    if reranker.mode is not Mode.RERANK:
        raise ModelModeError(
            f"the reranker must be a cross-encoder; {reranker.model_path.name} is loaded to embed: load one "
            "with pooling_type=PoolingType.RANK, such as 'bge-reranker-base'"
        )
    return reranker


def _check_model(value: object, name: str) -> Llama:
    if isinstance(value, Llama):
        return value
    found = f"{value!r}: load it with Llama.load" if isinstance(value, str) else type(value).__name__
    raise InputTypeError(f"the {name} must be a loaded model, found {found}")
