"""LlamaIndex: a node postprocessor that reranks, and an embedding model for an index."""

from asyncio import to_thread
from typing import Any

from ggrank.errors import InputError
from ggrank.integrations.held_model import BUNDLED_EMBEDDER, BUNDLED_RERANKER, HeldModel
from ggrank.types import ScoreScale

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import BaseComponent, MetadataMode, NodeWithScore, QueryBundle
except ImportError as error:
    raise InputError("ggrank needs llama-index-core here: pip install 'ggrank[llama-index]'") from error


class _WithModel(BaseComponent):
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    _held: HeldModel = PrivateAttr()

    @classmethod
    def class_name(cls) -> str:
        return cls.__name__

    def model_post_init(self, context: Any) -> None:
        field = "model_name" if isinstance(self, BaseEmbedding) else "model"
        self._held = HeldModel(getattr(self, field), self.model_kwargs)
        self._held.load()
        setattr(self, field, self._held.name)

    def __getstate__(self) -> Any:
        self._held.check_portable()  # LlamaIndex leaves out what cannot be pickled, and goes on
        return super().__getstate__()


class GgrankRerank(_WithModel, BaseNodePostprocessor):
    """The ``top_n`` best nodes, best first, scored by `Llama.rank`; those passed in stay as they are.

    ``keep_retrieval_score`` gives a node's copy ``metadata["retrieval_score"]``, which no model reads.
    """

    model: Any = BUNDLED_RERANKER
    top_n: int = 2
    keep_retrieval_score: bool = False
    score: ScoreScale = "auto"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("no query to rerank for; pass postprocess_nodes() query_str or query_bundle")
        event = {"query": query_bundle, "nodes": nodes, "top_n": self.top_n, "model_name": self.model}
        get_dispatcher(__name__).event(ReRankStartEvent(**event))
        texts = [each.node.get_content(metadata_mode=MetadataMode.EMBED) for each in nodes]
        ranking = self._held.load().rank(query_bundle.query_str, texts, top_n=self.top_n, score=self.score)
        ranked = [self._ranked(nodes[hit.index], hit.score) for hit in ranking]
        get_dispatcher(__name__).event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _ranked(self, found: NodeWithScore, score: float) -> NodeWithScore:
        node, key = found.node, "retrieval_score"
        if self.keep_retrieval_score:
            hidden = ("excluded_embed_metadata_keys", "excluded_llm_metadata_keys")
            update = {name: [*getattr(node, name), key] for name in hidden}
            node = node.model_copy(update={**update, "metadata": {**node.metadata, key: found.score}})
        return NodeWithScore(node=node, score=score)


class GgrankEmbedding(_WithModel, BaseEmbedding):
    """Vectors of length 1, of queries and of texts, each with the model's own prefix."""

    model_name: Any = BUNDLED_EMBEDDER
    embed_batch_size: int = Field(default=128, gt=0, le=2048)  # LlamaIndex's own is 10

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._held.query_vector(query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._held.document_vectors([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._held.document_vectors(texts)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await to_thread(self._get_text_embeddings, texts)
