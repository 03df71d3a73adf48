"""LangChain: embeddings for a vector store, a reranker for a retriever, a cross-encoder of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ggrank.errors import InputError
from ggrank.integrations.held_model import BUNDLED_EMBEDDER, BUNDLED_RERANKER, HeldModel, ModelLike, Options
from ggrank.types import ScoreScale

try:
    from langchain_core.callbacks import Callbacks
    from langchain_core.cross_encoders import BaseCrossEncoder
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings
    from pydantic import ConfigDict, Field, PrivateAttr
except ImportError as error:
    raise InputError("ggrank for LangChain needs langchain-core: pip install 'ggrank[langchain]'") from error


class GgrankEmbeddings(Embeddings):
    """Vectors of length 1, of queries and documents, each with the model's own prefix.

    Example:
        >>> len(GgrankEmbeddings().embed_query("Where do llamas live?"))
        384
    """

    def __init__(self, model: ModelLike = BUNDLED_EMBEDDER, *, model_kwargs: Options = None) -> None:
        self._held = HeldModel(model, model_kwargs)
        self._held.load()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in input order."""
        return self._held.document_vectors(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._held.query_vector(text)


class GgrankReranker(BaseDocumentCompressor):
    """The ``top_n`` best documents, best first, as copies with ``metadata["rerank_score"]``.

    ``score_threshold`` keeps scores of at least that, on the scale of ``score``, both as in `Llama.rank`.

    Example:
        >>> documents = [Document("Paris is a city."), Document("Llamas live in the Andes.")]
        >>> GgrankReranker(top_n=1).compress_documents(documents, "Where do llamas live?")[0].page_content
        'Llamas live in the Andes.'
    """

    model: Any = BUNDLED_RERANKER
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    top_n: int | None = 3
    score_threshold: float | None = None
    score: ScoreScale = "auto"
    model_config = ConfigDict(extra="forbid", protected_namespaces=())
    _held: HeldModel = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Loads the model; the field keeps its name."""
        self._held = HeldModel(self.model, self.model_kwargs)
        self._held.load()
        self.model = self._held.name

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best of the documents; those that are passed in stay as they are."""
        texts = [document.page_content for document in documents]
        ranking = self._held.load().rank(
            query, texts, top_n=self.top_n, threshold=self.score_threshold, score=self.score
        )
        return [_with_score(documents[hit.index], hit.score) for hit in ranking]


class GgrankCrossEncoder(BaseCrossEncoder):
    """Scores pairs of texts by `Llama.score_pairs`: logits, in input order."""

    def __init__(self, model: ModelLike = BUNDLED_RERANKER, *, model_kwargs: Options = None) -> None:
        self._held = HeldModel(model, model_kwargs)
        self._held.load()

    def score(self, text_pairs: list[tuple[str, str]]) -> list[float]:
        """A score for each (query, document)."""
        scores: list[float] = self._held.load().score_pairs(text_pairs).tolist()
        return scores


def _with_score(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "rerank_score": score}})
