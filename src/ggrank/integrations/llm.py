"""Plugin for the command line tool ``llm``: the embedders on this machine as ``ggrank/NAME``.

llm imports all plugins whenever it starts, so llama.cpp is loaded only when a model is asked to embed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from ggrank.errors import InputError

try:
    from llm import EmbeddingModel, hookimpl
except ImportError as error:
    raise InputError("ggrank's plugin for llm needs llm: pip install 'ggrank[llm]'") from error

if TYPE_CHECKING:
    from ggrank import Llama


@hookimpl
def register_embedding_models(register: Callable[[EmbeddingModel], None]) -> None:
    """Registers the bundled embedder and those that ``ggrank models download`` fetched."""
    from ggrank.hub import list_models

    for status in list_models():
        if status.path is not None and not status.preset.is_reranker:
            register(GgrankEmbeddingModel(status.preset.name))


class GgrankEmbeddingModel(EmbeddingModel):
    """One preset. llm does not say which text is a query, so each gets the prefix of a document.

    Example:
        >>> len(GgrankEmbeddingModel("all-minilm-l6-v2").embed("Llamas live in the Andes."))
        384
    """

    def __init__(self, preset: str) -> None:
        self.model_id = f"ggrank/{preset}"
        self._preset = preset

    def embed_batch(self, items: Iterable[str], *, key: str | None = None) -> Iterator[list[float]]:
        """The vector of each text, of length 1."""
        for vector in self._llama.embed_many(items, prefix=self._llama.document_prefix):
            yield vector.tolist()

    @cached_property
    def _llama(self) -> Llama:
        from ggrank import Llama

        return Llama.load(self._preset, local_files_only=True)
