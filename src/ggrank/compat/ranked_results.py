"""What `ggrank.compat.Reranker` takes and gives: documents, results, and a ranking of them.

The shapes of ``rerankers.documents`` and ``rerankers.results`` (https://github.com/AnswerDotAI/rerankers), as
classes of our own: importing that package imports torch and transformers where they are installed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggrank.errors import InputError
from ggrank.text.inputs import check_text


@dataclass(frozen=True)
class Document:
    """A text, the id it is known by, and whatever belongs to it."""

    text: str
    doc_id: str | int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    document_type: str = "text"


@dataclass(frozen=True)
class Result:
    """One document of a ranking. What it does not have itself is its document's: text, doc_id, metadata and
    the keys of it.

    Attributes:
        score: the raw logit.
        rank: from 1.

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


def as_documents(
    docs: Any, *, doc_ids: Sequence[str | int] | None = None, metadata: Sequence[dict[str, Any]] | None = None
) -> list[Document]:
    """Documents of texts, of our `Document`s or those of ``rerankers``; a single one is a list of one.

    An id or metadata that is given goes before a document's own; where neither is, the id is its place.

    Raises:
        InputError: not texts, or another number of ids or metadata than of documents.
    """
    items = [docs] if isinstance(docs, str) or hasattr(docs, "text") else list(docs)
    for name, values in (("doc_ids", doc_ids), ("metadata", metadata)):
        if values is not None and len(values) != len(items):
            raise InputError(f"{name} must have one item a document: {len(items)}, found {len(values)}")
    found = [_as_document(item, i) for i, item in enumerate(items)]
    return [
        Document(
            document.text,
            document.doc_id if doc_ids is None else doc_ids[i],
            document.metadata if metadata is None else metadata[i],
        )
        for i, document in enumerate(found)
    ]


def _as_document(item: Any, i: int) -> Document:
    text = check_text(getattr(item, "text", item), f"document {i}")
    doc_id = getattr(item, "doc_id", None)
    return Document(text, i if doc_id is None else doc_id, getattr(item, "metadata", {}))
