"""The first stage that a `Pipeline` has of its own: documents, vectors and words in memory.

Knows how to add and to find; nothing of the second stage, nor of disks.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ggrank.errors import InputError, InputTypeError
from ggrank.llama import Llama
from ggrank.remote import RemoteEmbedder
from ggrank.rows.documents import Document
from ggrank.scoring import Fused, cosine, top_k
from ggrank.search.lexical import Bm25, LexicalHit
from ggrank.search.stages import LEXICAL_DEPTH, check_embedder, first_scale, fuse
from ggrank.types import Hybrid, RankedDocument, Ranking


@dataclass(frozen=True)
class _Count:
    """Tokens of a text that were computed, and whether it has more."""

    n_tokens: int
    truncated: bool


class Memory:
    """Documents and their vectors, in the order in which they came."""

    def __init__(self, embedder: Llama | RemoteEmbedder) -> None:
        self._embedder = embedder if isinstance(embedder, RemoteEmbedder) else check_embedder(embedder)
        self._documents: list[Document] = []
        self._ids: set[str | int] = set()
        self._vectors = np.empty((0, embedder.n_embd), np.float32)
        self._bm25: Bm25 | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._documents)

    def add(self, documents: list[Document]) -> None:
        """Embeds and keeps them, all or none. Raises InputError where an id is there already."""
        ids = _new_ids(documents, self._ids)
        texts = [document.text for document in documents]
        vectors = self._embedder.embed_many(texts, prefix=self._embedder.document_prefix)
        with self._lock:
            ids = _new_ids(documents, self._ids)  # again: another thread may have been faster
            start, end = len(self._documents), len(self._documents) + len(documents)
            if end > len(self._vectors):
                # Grown by doubling, and never in place: a search may be reading the old one.
                grown = np.empty((max(end, 2 * len(self._vectors)), vectors.shape[1]), np.float32)
                grown[:start] = self._vectors[:start]
                self._vectors = grown
            self._vectors[start:end] = vectors
            self._ids |= ids
            self._documents += documents
            if self._bm25 is not None:
                self._bm25.add(texts)

    def retrieve(self, query: str, k: int, *, hybrid: Hybrid | None = None) -> Ranking:
        """The ``k`` best by cosine, or by cosine and BM25 fused."""
        prefix = self._embedder.query_prefix
        vector = self._embedder.embed(query, prefix=prefix)
        with self._lock:
            # What is in these first rows never changes any more, so the lock ends here.
            vectors = self._vectors[: len(self._documents)]
            hits = self._lexical(query, k) if hybrid else []
        cosines = cosine(vector, vectors)
        if hybrid:
            fused = fuse(cosines, hits, k=k, by=hybrid)
        else:
            fused = [Fused(i, float(cosines[i])) for i in top_k(cosines, k).tolist()]
        documents = tuple(self._found(one, float(cosines[one.position])) for one in fused)
        return Ranking(documents, first_scale(hybrid), self._count(prefix + query).n_tokens)

    def _lexical(self, query: str, k: int) -> list[LexicalHit]:
        """The lock is held. The words are indexed when they are first asked for."""
        if self._bm25 is None:
            self._bm25 = Bm25(document.text for document in self._documents)
        return self._bm25.search(query, k=max(k, LEXICAL_DEPTH))

    def _count(self, text: str) -> _Count:
        if isinstance(self._embedder, RemoteEmbedder):
            return _Count(0, truncated=False)  # Only its server could tell, one more request a text.
        n_tokens, n_ctx = self._embedder.count_tokens(text), self._embedder.n_ctx
        return _Count(min(n_tokens, n_ctx), truncated=n_tokens > n_ctx)

    def _found(self, fused: Fused, cosine: float) -> RankedDocument:
        document = self._documents[fused.position]
        return RankedDocument(
            index=fused.position,
            score=fused.score,
            logit=None,
            document=document.text,
            truncated=self._count(self._embedder.document_prefix + document.text).truncated,
            cosine=cosine,
            id=document.id,
            metadata=document.metadata,
        )


def _new_ids(documents: Iterable[Document], known: set[str | int]) -> set[str | int]:
    """The documents' ids. Raises InputError where one is there already, or stands twice."""
    new: set[str | int] = set()
    for i, document in enumerate(documents):
        if document.id is None:
            continue
        if isinstance(document.id, bool) or not isinstance(document.id, (str, int)):
            raise InputTypeError(
                f"the id of document {i} must be a string or a whole number, found {document.id!r}"
            )
        if document.id in known or document.id in new:
            raise InputError(f"the id of document {i}, {document.id!r}, is there already: ids must differ")
        new.add(document.id)
    return new
