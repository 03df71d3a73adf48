"""`Reranker` as in the ``rerankers`` package: ``rank``, ``rank_async`` and ``score``.

Knows the arguments and results of the original's cross-encoders (rerankers 0.10,
https://github.com/AnswerDotAI/rerankers, ``models/transformer_ranker.py``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from ggrank.compat.model import Model, is_gpu, logits, open_reranker
from ggrank.compat.ranked_results import RankedResults, Result, as_documents
from ggrank.errors import InputError
from ggrank.scoring import best_first


class Reranker:
    """Ranks documents as ``rerankers.Reranker`` does with a cross-encoder, from a GGUF file.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.

    Example:
        >>> from ggrank.compat import Reranker
        >>> reranker = Reranker("ggrank-reranker-mini")
        >>> results = reranker.rank("Where do llamas live?", ["Paris is a city", "Llamas live in Peru"])
        >>> results.top_k(1)[0].text, results[0].doc_id, results.results_count()
        ('Llamas live in Peru', 1, 2)
    """

    def __init__(
        self,
        model_name: Model,
        lang: str = "en",
        model_type: str | None = None,
        verbose: int = 1,
        *,
        filename: str | None = None,
        device: object = None,
        dtype: object = None,
        batch_size: int = 16,
    ) -> None:
        """Loads the model.

        Args:
            model_name: an original's name (``BAAI/bge-reranker-base``), a preset, a path to a GGUF file, a
                Hugging Face repo with GGUF files, or a loaded `ggrank.Llama`.
            model_type: "cross-encoder", or None.
            filename: which file of a repo, where it has several.
            device: "cpu", else a GPU where llama.cpp was built for one.
            lang, verbose, dtype, batch_size: accepted, without effect: a model has to be named, nothing is
                printed, the file says in what its weights are stored, and batches are made by tokens.

        Raises:
            ModelNotFoundError, DownloadError: no such model; the message names those that are known.
            ModelModeError: an embedding model.
            InputError: another kind of ranker than a cross-encoder.
        """
        if model_type not in (None, "cross-encoder", "TransformerRanker"):
            raise InputError(f"model_type must be 'cross-encoder' or None, found {model_type!r}")
        self.llama = open_reranker(model_name, filename=filename, on_gpu=is_gpu(device))

    def rank(
        self,
        query: str,
        docs: Any,
        doc_ids: Sequence[str | int] | None = None,
        metadata: Sequence[dict[str, Any]] | None = None,
        batch_size: int | None = None,
    ) -> RankedResults:
        """Documents in order, best logit first, ties in input order.

        Args:
            docs: texts, or `Document`s of ours or of ``rerankers``; or one of them.
            doc_ids: else the documents' own, else their places.
            metadata: a dict a document; else the documents' own.
            batch_size: accepted, without effect.

        Raises:
            InputError: not texts, or another number of ids or metadata than of documents.
        """
        documents = as_documents(docs, doc_ids=doc_ids, metadata=metadata)
        values = logits(self.llama, [(query, document.text) for document in documents])
        order = enumerate(best_first(values).tolist(), 1)
        results = [Result(documents[i], score=float(values[i]), rank=rank) for rank, i in order]
        return RankedResults(results=results, query=query)

    async def rank_async(
        self, query: str, docs: Any, doc_ids: Sequence[str | int] | None = None
    ) -> RankedResults:
        """`rank` in a thread, so that an event loop goes on meanwhile."""
        return await asyncio.to_thread(partial(self.rank, query, docs, doc_ids))

    def score(self, query: str, doc: str) -> float:
        """The raw logit of one pair."""
        return float(logits(self.llama, [(query, doc)])[0])
