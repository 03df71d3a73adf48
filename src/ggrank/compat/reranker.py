"""`Reranker` as in the ``rerankers`` package 0.10: https://github.com/AnswerDotAI/rerankers.

Its documents and results are classes of our own, because importing that package imports torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggrank.compat.model import Model, check_options, logits, open_reranker
from ggrank.errors import InputError
from ggrank.scoring import best_first
from ggrank.text.inputs import check_text


@dataclass(frozen=True)
class Document:
    """A text, the id it is known by, and its metadata."""

    text: str
    doc_id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    document_type: str = "text"


@dataclass(frozen=True)
class Result:
    """One document of a ranking, its raw logit as ``score``, and its rank, from 1.

    It has its document's attributes too: text, doc_id, metadata, and the keys of the metadata.

    Example:
        >>> result = Result(Document("a text", 7, {"page": 3}), score=2.5, rank=1)
        >>> result.text, result.doc_id, result.page
        ('a text', 7, 3)
    """

    document: Document
    score: float
    rank: int

    def __getattr__(self, name: str) -> Any:
        document = vars(self).get("document")  # none while it is being copied
        if document is not None and not name.startswith("__"):
            if hasattr(document, name):
                return getattr(document, name)
            if name in document.metadata:
                return document.metadata[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


@dataclass(frozen=True)
class RankedResults:
    """Results, best first, and the query that they answer."""

    results: list[Result]
    query: str
    has_scores: bool = True

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __getitem__(self, index: Any) -> Any:
        return self.results[index]

    def results_count(self) -> int:
        """How many results there are."""
        return len(self.results)

    def top_k(self, k: int) -> list[Result]:
        """The first ``k`` results."""
        return self.results[:k]

    def get_score_by_docid(self, doc_id: int | str) -> float | None:
        """The score of the document of that id; None where there is none."""
        result = self.get_result_by_docid(doc_id)
        return None if result is None else result.score

    def get_result_by_docid(self, doc_id: int | str) -> Result | None:
        """The result of the document of that id; None where there is none."""
        return next((result for result in self.results if result.document.doc_id == doc_id), None)


class Reranker:
    """Ranks documents as ``rerankers.Reranker`` does with a cross-encoder, from a GGUF file.

    Args:
        model_name, filename, device: as for `CrossEncoder`.
        lang, verbose: no effect; a model has to be named, and nothing is printed.
        model_type: "cross-encoder", or None.
        options: those that change no score, such as ``dtype``, have no effect; others raise.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.

    Raises:
        GgrankError: as `CrossEncoder`; `InputError` for another kind of ranker than a cross-encoder.

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
        **options: Any,
    ) -> None:
        check_options("Reranker", options)
        if model_type not in (None, "cross-encoder", "TransformerRanker"):
            raise InputError(f"model_type must be 'cross-encoder' or None, found {model_type!r}")
        self.llama = open_reranker(model_name, device=device, filename=filename)

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
            doc_ids: else the documents' own, else their positions.
            metadata: a dict for each document; else the documents' own.
            batch_size: no effect.

        Raises:
            InputError: not texts, or another number of ids or metadata than of documents.
        """
        items = [docs] if isinstance(docs, str) or hasattr(docs, "text") else list(docs)
        for name, values in (("doc_ids", doc_ids), ("metadata", metadata)):
            if values is not None and len(values) != len(items):
                raise InputError(f"{name} must have one item a document: {len(items)}, found {len(values)}")
        documents = [
            Document(
                check_text(getattr(item, "text", item), f"document {i}"),
                doc_ids[i] if doc_ids is not None else _own_id(item, i),
                metadata[i] if metadata is not None else getattr(item, "metadata", {}),
            )
            for i, item in enumerate(items)
        ]
        scores = logits(self.llama, [(query, document.text) for document in documents])
        order = enumerate(best_first(scores).tolist(), 1)
        results = [Result(documents[i], score=float(scores[i]), rank=rank) for rank, i in order]
        return RankedResults(results=results, query=query)

    async def rank_async(
        self, query: str, docs: Any, doc_ids: Sequence[str | int] | None = None
    ) -> RankedResults:
        """`rank` in a thread, which leaves the event loop free."""
        return await asyncio.to_thread(self.rank, query, docs, doc_ids)

    def score(self, query: str, doc: str) -> float:
        """The raw logit of one pair."""
        return float(logits(self.llama, [(query, doc)])[0])


def _own_id(item: object, i: int) -> Any:
    found = getattr(item, "doc_id", None)
    return i if found is None else found
