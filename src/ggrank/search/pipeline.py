"""`Pipeline`: two stages. A retriever finds many passages fast, a reranker reads the few best closely.

    query -> the retriever's candidates (cosine, or fused with BM25) -> the reranker's logits -> ranking

Knows the order of the stages, and what may stand in the first one's place: by default
`ggrank.search.memory`; `ggrank.search.index` for documents on disk; anything else that retrieves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from ggrank.errors import InputError, InputTypeError
from ggrank.llama import Llama
from ggrank.remote import RemoteEmbedder, RemoteReranker
from ggrank.rows.documents import Document
from ggrank.scoring import Fused, reciprocal_rank_fusion
from ggrank.search.memory import Memory
from ggrank.search.stages import check_depth, check_hybrid, check_reranker, second_stage
from ggrank.text.inputs import check_text
from ggrank.types import Hybrid, RankedDocument, Ranking

Retrieved: TypeAlias = "Sequence[str | Document | RankedDocument]"
"""What a retriever gives, best first. A `Ranking` is one too."""

T = TypeVar("T")


class Retriever(Protocol):
    """Any first stage: a vector database, a search engine, an `Index`."""

    def retrieve(self, query: str, k: int) -> Retrieved:
        """The ``k`` best documents for a query, best first."""


class Pipeline:
    """Retrieves documents, then reranks the best of them. Safe to use from several threads.

    Args:
        embedder: a loaded embedding model (or a `RemoteEmbedder`), which ranks the documents that `add`
            brings by cosine; or a first stage of any other kind: a `Retriever`, or a function of a query and
            a number.
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
        >>> best.id, best.document
        ('animal', 'Llamas live in Peru.')

        Any retriever can take the first stage's place, here one that speaks as LangChain's do:

        >>> def retrieve(query, k):
        ...     found = langchain_retriever.invoke(query)[:k]
        ...     return [Document(one.page_content, metadata=one.metadata) for one in found]
        >>> pipeline = Pipeline(retrieve)
    """

    def __init__(
        self,
        embedder: Llama | RemoteEmbedder | Retriever | Callable[[str, int], Retrieved],
        reranker: Llama | RemoteReranker | None = None,
    ) -> None:
        self._memory = Memory(embedder) if isinstance(embedder, (Llama, RemoteEmbedder)) else None
        self._retrieve = _retrieve_function(embedder if self._memory is None else self._memory)
        self._reranker = check_reranker(reranker)

    def __len__(self) -> int:
        """How many documents were added."""
        return 0 if self._memory is None else len(self._memory)

    def add(
        self,
        documents: Iterable[str | Document],
        *,
        ids: Iterable[str | int | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Embeds documents and adds them behind those that are there; all of them, or none on an error.

        Args:
            documents: texts, or `Document`s with ids and metadata of their own.
            ids: one for each text.
            metadata: one mapping, or None, for each text.

        Raises:
            InputError: an id that is there already, ids or metadata of another number than documents,
                or a pipeline whose first stage is another retriever.
            InputTypeError: a document that is no string, or an id that is neither string nor number.
        """
        if self._memory is None:
            raise InputError(
                "this pipeline's documents are its retriever's: add them there, or make the pipeline with "
                "an embedding model"
            )
        self._memory.add(_documents(documents, ids, metadata))

    def search(
        self, query: str, *, retrieve_k: int = 20, top_n: int | None = 5, hybrid: bool | Hybrid = False
    ) -> Ranking:
        """The best documents for a query.

        Args:
            query: any string; the embedder's ``query_prefix`` is set before it for the first stage.
            retrieve_k: how many the first stage hands on; ``top_n`` where that is more.
            top_n: how many of them are kept; None for all.
            hybrid: fuse the ranking by cosine with one by BM25, which finds names and numbers that
                vectors blur: "scores" by their standardised scores (`ggrank.scoring.score_fusion`), the
                best of what was measured; "rrf", or True, by reciprocal rank.

        Returns:
            With a reranker by its logit, blended with the first stage's score where `Llama.blend` says so
            (the bundled one's does); without, by cosine, or by the fused score. Fused ranks, and those of
            another retriever, score ``1 / (60 + rank)``, scale "rrf". ``cosine`` stands beside the score
            wherever the first stage knows it.

        Raises:
            InputError: a number below 1, or ``hybrid`` with another retriever.
        """
        query = check_text(query, "the query")
        k = check_depth(retrieve_k, top_n)
        fusion = check_hybrid(hybrid)
        if fusion is None:
            candidates = _as_ranking(self._retrieve(query, k), k)
        elif self._memory is not None:
            candidates = self._memory.retrieve(query, k, hybrid=fusion)
        else:
            raise InputError("hybrid is for a pipeline that holds its documents; let the retriever fuse")
        return second_stage(query, candidates, reranker=self._reranker, top_n=top_n)


def _documents(
    documents: Iterable[str | Document],
    ids: Iterable[str | int | None] | None,
    metadata: Iterable[Mapping[str, Any] | None] | None,
) -> list[Document]:
    """One `Document` for each text, with its id and metadata."""
    if isinstance(documents, (str, bytes, Document)):
        raise InputTypeError("documents must be a list, found one document: put it in a list")
    found = [_document(one, f"document {i}") for i, one in enumerate(documents)]
    if ids is not None:
        found = [replace(one, id=id) for one, id in _aligned(found, ids, "ids")]
    if metadata is not None:
        found = [replace(one, metadata=facts) for one, facts in _aligned(found, metadata, "metadata")]
    return found


def _document(value: object, name: str) -> Document:
    if isinstance(value, Document):
        return replace(value, text=check_text(value.text, f"the text of {name}"))
    if isinstance(value, str):
        return Document(check_text(value, name))
    raise InputTypeError(
        f"{name} must be a string or ggrank.Document(text, id=..., metadata=...), found "
        f"{type(value).__name__}"
    )


def _aligned(documents: list[Document], values: Iterable[T], name: str) -> list[tuple[Document, T]]:
    found = list(values)
    if len(found) != len(documents):
        raise InputError(f"{name} must be as many as documents: {len(documents):,}, found {len(found):,}")
    return list(zip(documents, found, strict=True))


def _retrieve_function(retriever: object) -> Callable[[str, int], object]:
    retrieve = getattr(retriever, "retrieve", retriever)
    if callable(retrieve):
        return cast(Callable[[str, int], object], retrieve)
    raise InputTypeError(
        "the first stage must be a loaded embedding model, an object with retrieve(query, k) or such a "
        f"function; found {type(retriever).__name__}"
    )


def _as_ranking(found: object, k: int) -> Ranking:
    """What another retriever gave, as candidates in its order."""
    if isinstance(found, Ranking):
        return replace(found, documents=found[:k])
    if isinstance(found, (str, bytes)) or not isinstance(found, Sequence):
        raise InputTypeError(
            f"a retriever must give a list of strings or Documents, found {type(found).__name__}"
        )
    ranks = reciprocal_rank_fusion([range(min(len(found), k))])
    documents = tuple(_candidate(found[one.position], one) for one in ranks)
    return Ranking(documents, "rrf", n_tokens=0)


def _candidate(value: object, rank: Fused) -> RankedDocument:
    if isinstance(value, RankedDocument):
        return replace(value, score=rank.score)
    document = _document(value, f"the retriever's document {rank.position}")
    return RankedDocument(
        index=rank.position,
        score=rank.score,
        logit=None,
        document=document.text,
        truncated=False,
        id=document.id,
        metadata=document.metadata,
    )
