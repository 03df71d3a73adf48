"""What both kinds of first stage share: how candidates are fused, and how the second stage orders them.

Knows rankings and scores; not where documents are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, InputTypeError, ModelModeError
from ggrank.llama import Llama
from ggrank.remote import RemoteReranker
from ggrank.scoring import Fused, best_first, blend, reciprocal_rank_fusion, score_fusion, top_k
from ggrank.search.lexical import LexicalHit
from ggrank.text.inputs import check_top_n
from ggrank.types import Hybrid, Mode, RankedDocument, Ranking, Scale

FUSION_DEPTH = 100
"""How far down both rankings are fused, at least; with fewer, ``retrieve_k`` would change the order."""

LEXICAL_DEPTH = 1_000
"""How many passages BM25 names, at least: those that the embedder found have their scores among them."""


def second_stage(
    query: str, candidates: Ranking, *, reranker: Llama | RemoteReranker | None, top_n: int | None
) -> Ranking:
    """Candidates in the order of both stages; in their own where there is no reranker.

    They keep index, id, metadata and cosine. ``n_tokens`` becomes that of both stages.
    """
    if reranker is None:
        return replace(candidates, documents=candidates[:top_n])
    weight = reranker.blend if isinstance(reranker, Llama) else 0.0
    texts = [candidate.document for candidate in candidates]
    ranking = reranker.rank(query, texts, top_n=None if weight else top_n)
    documents = [
        replace(candidates[found.index], score=found.score, logit=found.logit, truncated=found.truncated)
        for found in ranking
    ]
    if weight:
        first = np.array([candidates[found.index].score for found in ranking], np.float32)
        own = np.array([_raw(found) for found in ranking], np.float32)
        documents = [documents[i] for i in best_first(blend(own, first, weight=weight))][:top_n]
    return Ranking(tuple(documents), ranking.scale, candidates.n_tokens + ranking.n_tokens)


def _raw(found: RankedDocument) -> float:
    return found.score if found.logit is None else found.logit


def fuse(cosines: NDArray[np.float32], hits: Sequence[LexicalHit], *, k: int, by: Hybrid) -> list[Fused]:
    """The ``k`` best of a ranking by cosine and one by BM25.

    Args:
        cosines: of every document, shape (n,); -inf for a row that is none.
        hits: the first `LEXICAL_DEPTH` or more; positions in ``cosines``.
    """
    depth = max(k, FUSION_DEPTH)
    by_cosine = top_k(cosines, depth).tolist()
    by_words = [hit.position for hit in hits[:depth]]
    if by == "rrf":
        return reciprocal_rank_fusion([by_cosine, by_words])[:k]
    pool = np.array(sorted({*by_cosine, *by_words}), np.int64)
    pool = pool[cosines[pool] > -np.inf]
    # What is below the last hit scores as that one, or 0 where every passage with a word is a hit.
    floor = hits[-1].score if len(hits) >= LEXICAL_DEPTH else 0.0
    scores = {hit.position: hit.score for hit in hits}
    lexical = np.array([scores.get(position, floor) for position in pool.tolist()], np.float32)
    fused = score_fusion(cosines[pool], lexical)
    return [Fused(int(pool[i]), float(fused[i])) for i in best_first(fused)[:k].tolist()]


def check_hybrid(hybrid: object) -> Hybrid | None:
    """How to fuse, if at all; True is "rrf". Raises InputError for anything else."""
    if hybrid is None or hybrid is False:
        return None
    if hybrid is True:
        return "rrf"
    if hybrid not in get_args(Hybrid):
        raise InputError(f"hybrid must be 'scores', 'rrf', True (which is 'rrf') or False; found {hybrid!r}")
    return cast(Hybrid, hybrid)


def first_scale(hybrid: Hybrid | None) -> Scale:
    """The scale of what the first stage gives."""
    if hybrid is None:
        return "cosine"
    return "fused" if hybrid == "scores" else "rrf"


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


def check_reranker(reranker: object) -> Llama | RemoteReranker | None:
    """Raises ModelModeError unless the model scores pairs, InputTypeError unless it is one."""
    if reranker is None or isinstance(reranker, RemoteReranker):
        return reranker
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
