"""Haystack: a ranker, and embedders of texts and of documents, for pipelines."""

# No postponed annotations: Haystack reads those of `run`.
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

from ggrank.errors import InputError
from ggrank.integrations.held_model import BUNDLED_EMBEDDER, BUNDLED_RERANKER, HeldModel, ModelLike
from ggrank.types import ScoreScale

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError as error:
    raise InputError("ggrank for Haystack needs haystack-ai: pip install 'ggrank[haystack]'") from error


@dataclass(eq=False, kw_only=True)
class _Component:
    model: ModelLike
    model_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._held = HeldModel(self.model, self.model_kwargs)
        self.model = self._held.name

    def warm_up(self) -> None:
        """Loads the model; a pipeline does it before it runs, otherwise `run` does."""
        self._held.load()

    def to_dict(self) -> Any:
        """What a pipeline saves. Raises InputTypeError where the model was not given by name."""
        self._held.check_portable()
        return default_to_dict(self, **{each.name: getattr(self, each.name) for each in fields(self)})

    from_dict: ClassVar[Any] = classmethod(default_from_dict)


@dataclass(eq=False, kw_only=True)
class _DocumentComponent(_Component):
    meta_fields_to_embed: list[str] = field(default_factory=list)
    embedding_separator: str = "\n"

    def _text(self, document: Document) -> str:
        found = [document.meta.get(name) for name in self.meta_fields_to_embed]
        parts = [str(value) for value in found if value is not None]
        return self.embedding_separator.join([*parts, document.content or ""])


@component
@dataclass(eq=False, kw_only=True)
class GgrankRanker(_DocumentComponent):
    """The ``top_k`` best documents, best first, as copies with scores: 0..1, raw without ``scale_score``."""

    model: ModelLike = BUNDLED_RERANKER
    top_k: int = 10
    scale_score: bool = True
    score_threshold: float | None = None

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Ranks documents; of several with the same id, one."""
        unique = list({document.id: document for document in documents}.values())
        texts = [self._text(document) for document in unique]
        score: ScoreScale = "sigmoid" if self.scale_score else "auto"
        top_n = self.top_k if top_k is None else top_k
        ranking = self._held.load().rank(
            query, texts, top_n=top_n, threshold=self.score_threshold, score=score
        )
        return {"documents": [replace(unique[hit.index], score=hit.score) for hit in ranking]}


@component
@dataclass(eq=False, kw_only=True)
class GgrankTextEmbedder(_Component):
    """The vector of a query, of length 1, with the model's own prefix."""

    model: ModelLike = BUNDLED_EMBEDDER

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Embeds one text."""
        return {"embedding": self._held.query_vector(text)}


@component
@dataclass(eq=False, kw_only=True)
class GgrankDocumentEmbedder(_DocumentComponent):
    """Documents as copies with vectors of length 1; each text gets the model's own prefix."""

    model: ModelLike = BUNDLED_EMBEDDER

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Embeds the contents, after the values of ``meta_fields_to_embed``."""
        vectors = self._held.document_vectors([self._text(document) for document in documents])
        return {"documents": [replace(d, embedding=v) for d, v in zip(documents, vectors, strict=True)]}
