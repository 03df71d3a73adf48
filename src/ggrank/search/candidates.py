"""The first stage over an index on disk: every vector is compared, and where words are asked for, BM25 fused.

Knows rows, scores and the order of reading; no models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ggrank.scoring import Fused, top_k
from ggrank.search.lexical import search_words
from ggrank.search.stages import LEXICAL_DEPTH, fuse
from ggrank.search.store import Store, StoredPassage
from ggrank.types import Hybrid

_TRIES = 5
"""Of a search while another process commits one batch after the other, seconds apart."""


@dataclass(frozen=True)
class Candidate:
    """A passage that was found, its score and its cosine."""

    passage: StoredPassage
    score: float
    cosine: float


def find_candidates(
    store: Store, vector: NDArray[np.float32], *, k: int, words: str, hybrid: Hybrid | None
) -> list[Candidate]:
    """The ``k`` best passages of one state of the index, best first.

    Args:
        vector: the query's, shape (n_embd,), L2-normalised.
        words: the query.
        hybrid: how BM25's ranking is fused with that of the cosines; None for cosines alone.
    """
    for _ in range(_TRIES):
        before = store.data_version()
        with store.transaction("DEFERRED"):
            found = _find(store, vector, k=k, words=words, hybrid=hybrid)
        # Vectors are outside the transaction: a row that was freed and taken again since has another's.
        if store.data_version() == before:
            break
    return found


def _find(
    store: Store, vector: NDArray[np.float32], *, k: int, words: str, hybrid: Hybrid | None
) -> list[Candidate]:
    n_rows = store.n_rows()
    cosines = store.vectors.cosines(vector, n_rows)
    cosines[store.free_rows(n_rows)] = -np.inf
    if hybrid is None:
        fused = [Fused(row, float(cosines[row])) for row in top_k(cosines, k).tolist()]
    else:
        hits = search_words(store.db, words, k=max(k, LEXICAL_DEPTH))
        fused = fuse(cosines, hits, k=k, by=hybrid)
    return [
        Candidate(store.passage(one.position), one.score, float(cosines[one.position]))
        for one in fused
        if cosines[one.position] > -np.inf
    ]
