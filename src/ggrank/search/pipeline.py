"""`Pipeline`: two stages. A retriever finds many passages fast, a reranker reads the few best closely."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, cast

from ggrank.errors import InputError, InputTypeError
from ggrank.llama import Llama
from ggrank.remote import RemoteEmbedder
from ggrank.rows.documents import Document
from ggrank.search.hits import Explanation, Hit
from ggrank.search.index import MEMORY, Index
from ggrank.search.models import Embedder, Reranker, check_reranker
from ggrank.search.ranking import By, rerank
from ggrank.search.writing import check_document
from ggrank.text.inputs import check_count, check_text
from ggrank.types import RankedDocument

Retrieved: TypeAlias = "Sequence[str | Document | Hit | RankedDocument]"
"""What a retriever gives, best first."""


class Retriever(Protocol):
    """Any first stage: a vector database, a search engine."""

    def retrieve(self, query: str, k: int) -> Retrieved:
        """The ``k`` best documents for a query, best first."""


class Pipeline:
    """Retrieves documents, then reranks the best of them. Safe to use from several threads.

    Args:
        embedder: a loaded embedding model (or a `RemoteEmbedder`), with which the documents that `add` brings
            are kept in memory; an `Index`; or a first stage of any other kind: a `Retriever`, or a function
            of a query and a number.
        reranker: a loaded reranker (or a `RemoteReranker`). Without one, the first stage's order is the
            result.

    Raises:
        ModelModeError: a model that is loaded for the other job.
        InputTypeError: neither a model nor something that retrieves.

    Example:
        >>> from ggrank import Document, Llama, Pipeline
        >>> with Llama.load("all-minilm-l6-v2") as embedder:
        ...     pipeline = Pipeline(embedder)
        ...     pipeline.add(["Paris is a city.", "Llamas live in Peru."], ids=["city", "animal"])
        ...     best = pipeline.search("Where do llamas live?")[0]
        >>> best.id, best.text
        ('animal', 'Llamas live in Peru.')

        Any retriever can take the first stage's place, here one that speaks as LangChain's do:

        >>> def retrieve(query, k):
        ...     found = langchain_retriever.invoke(query)[:k]
        ...     return [Document(one.page_content, metadata=one.metadata) for one in found]
        >>> pipeline = Pipeline(retrieve)
    """

    def __init__(
        self,
        embedder: Embedder | Index | Retriever | Callable[[str, int], Retrieved],
        reranker: Reranker | None = None,
    ) -> None:
        self._index: Index | None = None
        if isinstance(embedder, Index):
            self._index = embedder
        elif isinstance(embedder, (Llama, RemoteEmbedder)):
            self._index = Index.open(MEMORY, embedder=embedder)
        else:
            self._retrieve = _retrieve_function(embedder)
        self._reranker = check_reranker(reranker)

    def __len__(self) -> int:
        """How many documents were added."""
        return 0 if self._index is None else self._index.n_documents

    def add(
        self,
        documents: Iterable[str | Document],
        *,
        ids: Iterable[str | float | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Adds documents; arguments and errors are those of `Index.add`.

        Raises:
            InputError: also for a pipeline whose first stage is another retriever.
        """
        if self._index is None:
            raise InputError(
                "this pipeline's documents are its retriever's: add them there, or make the pipeline with "
                "an embedding model"
            )
        self._index.add(documents, ids=ids, metadata=metadata)

    def search(self, query: str, *, retrieve_k: int = 20, top_n: int = 5, by: By = "meaning") -> list[Hit]:
        """The best passages for a query.

        Args:
            query: any string; unlike in `Index.search` its quotes and minus signs mean nothing.
            retrieve_k: how many the first stage hands on to the reranker; ``top_n`` where that is more.
            top_n: how many of them are kept.
            by: "meaning", "words" or "both", as in `Index.search`.

        Returns:
            Hits as `Index.search` gives them. Those of another retriever have the score of what it gave,
            where that has one.

        Raises:
            InputError: a number below 1, or ``by`` with another retriever.
        """
        if self._index is not None:
            return self._index.search(
                query, top_n=top_n, by=by, reranker=self._reranker, retrieve_k=retrieve_k, plain=True
            )
        if by != "meaning":
            raise InputError("by is for a pipeline that holds its documents; let the retriever fuse")
        k = max(check_count(retrieve_k, "retrieve_k"), check_count(top_n, "top_n"))
        hits = _hits(self._retrieve(check_text(query, "the query"), k), k)
        return (hits if self._reranker is None else rerank(query, hits, self._reranker))[:top_n]


def _retrieve_function(retriever: object) -> Callable[[str, int], object]:
    retrieve = getattr(retriever, "retrieve", retriever)
    if callable(retrieve):
        return cast(Callable[[str, int], object], retrieve)
    raise InputTypeError(
        "the first stage must be a loaded embedding model, an object with retrieve(query, k) or such a "
        f"function; found {type(retriever).__name__}"
    )


def _hits(found: object, k: int) -> list[Hit]:
    """What another retriever gave, in its order."""
    if isinstance(found, (str, bytes)) or not isinstance(found, Sequence):
        raise InputTypeError(
            f"a retriever must give a list of strings or Documents, found {type(found).__name__}"
        )
    return [_hit(value, rank) for rank, value in enumerate(found[:k], 1)]


def _hit(value: object, rank: int) -> Hit:
    if isinstance(value, Hit):
        return value
    score, cosine = (value.score, value.cosine) if isinstance(value, RankedDocument) else (0.0, None)
    if isinstance(value, RankedDocument):
        value = Document(value.document, value.id, value.metadata)
    document = check_document(value, f"the retriever's document {rank - 1}")
    title = document.title or ""
    # A rank is all that is known of other retrievers' values: 1 / (60 + rank), as in a fusion of ranks.
    return Hit(
        path="",
        headings=title,
        page="",
        line=1,
        start=0,
        stop=len(document.text),
        id=document.id,
        title=title,
        metadata=document.metadata or {},
        text=document.text,
        score=score,
        cosine=cosine,
        explanation=Explanation(None, None, None, 1 / (60 + rank)),
    )
