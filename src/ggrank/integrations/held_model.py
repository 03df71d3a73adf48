"""The model of an adapter: loaded once, shared by copies, and loaded again from a pickle.

Frameworks copy their components, send them to other processes and call them from several threads; a loaded
`Llama` is large and belongs to one process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, TypeAlias, cast

from ggrank import Llama, RemoteEmbedder, RemoteReranker
from ggrank.errors import InputError, InputTypeError

ModelLike: TypeAlias = str | os.PathLike[str] | Llama | RemoteReranker | RemoteEmbedder
"""A name or path for `Llama.load`, or a loaded or remote model."""

Options: TypeAlias = Mapping[str, Any] | None
"""Options of `Llama.load`, such as ``{"n_ctx": 1024}``."""

BUNDLED_EMBEDDER = "all-minilm-l6-v2"
BUNDLED_RERANKER = "ggrank-reranker-mini"


class HeldModel:
    """A model that is loaded once, however many threads ask; a pickle carries its name and options.

    Example:
        >>> held = HeldModel("all-minilm-l6-v2", {"n_ctx": 128})
        >>> with held.load() as llama:
        ...     llama.n_ctx, llama is held.load()
        (128, True)
    """

    def __init__(self, model: ModelLike, options: Options = None) -> None:
        self._by_name = isinstance(model, (str, os.PathLike))
        if not self._by_name and not hasattr(model, "rank"):
            found = type(model).__name__
            raise InputTypeError(f"model must be a preset's name, a path or a loaded Llama; found {found}")
        if options and not self._by_name:
            raise InputError("model_kwargs go with a model's name or path; this model is loaded already")
        if "token" in (options or {}):
            raise InputError("a token among model_kwargs would be saved with them; set HF_TOKEN instead")
        self._model = model
        self.options = dict(options or {})
        self._loaded = None if self._by_name else model
        self._lock = Lock()

    @property
    def name(self) -> str:
        """The name or path; of a loaded model its file, of a remote one its repr."""
        return str(getattr(self._model, "model_path", self._model))

    def load(self) -> Llama:
        """The model; a remote one has the same methods."""
        with self._lock:
            if self._loaded is None:
                self._loaded = Llama.load(cast(str, self._model), **self.options)
            return cast(Llama, self._loaded)

    def query_vector(self, text: str) -> list[float]:
        """The vector of a query, of length 1, with the model's own prefix."""
        return cast("list[float]", self.load().embed(text, prefix=self.load().query_prefix).tolist())

    def document_vectors(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of documents, of length 1, each with the model's own prefix."""
        vectors = self.load().embed_many(texts, prefix=self.load().document_prefix)
        return cast("list[list[float]]", vectors.tolist())

    def check_portable(self) -> None:
        """Raises InputTypeError unless the model was given by name, which can be saved or sent."""
        if not self._by_name:
            raise InputTypeError(
                f"a component with a loaded {type(self._model).__name__} can be neither saved nor sent to "
                "another process; give it the model's name or path, and options as model_kwargs"
            )

    def __deepcopy__(self, memo: dict[int, object]) -> HeldModel:
        return self

    def __reduce__(self) -> tuple[type[HeldModel], tuple[ModelLike, dict[str, Any]]]:
        self.check_portable()
        return HeldModel, (self._model, self.options)
