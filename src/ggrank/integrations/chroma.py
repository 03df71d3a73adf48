"""Chroma: an embedding function that a collection remembers, so that it reopens with the same model."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, InputTypeError
from ggrank.integrations.held_model import BUNDLED_EMBEDDER, HeldModel, Options

try:
    from chromadb.api.types import EmbeddingFunction
    from chromadb.utils.embedding_functions import register_embedding_function
except ImportError as error:
    raise InputError("ggrank for Chroma needs chromadb: pip install 'ggrank[chroma]'") from error


@register_embedding_function
class GgrankEmbeddingFunction(EmbeddingFunction):
    """Vectors of length 1 for a Chroma collection; queries and documents each get the model's own prefix.

    The model is loaded at the first text, once for all collections of one model. A new process that opens
    such a collection has to import this module first.

    Args:
        model: a preset, path or repo id that `ggrank.Llama.load` takes.
        model_kwargs: its options, such as ``{"n_ctx": 128}``; values that JSON can hold.

    Raises:
        InputError: what a collection cannot or must not keep, such as a loaded model or a token.

    Example:
        >>> embed = GgrankEmbeddingFunction()
        >>> embed(["Llamas live in the Andes."])[0].shape, embed.default_space()
        ((384,), 'cosine')
    """

    def __init__(
        self, model: str | os.PathLike[str] = BUNDLED_EMBEDDER, *, model_kwargs: Options = None
    ) -> None:
        try:
            self._config = {"model": os.fspath(model), "model_kwargs": dict(model_kwargs or {})}
            self._model = _held(json.dumps(self._config, sort_keys=True))
        except TypeError as error:
            raise InputTypeError(
                f"Chroma keeps the model's name or path and options as JSON: {error}"
            ) from error

    def __call__(self, input: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector of each document, shape (n_embd,)."""
        return list(np.array(self._model.document_vectors(input), np.float32))

    def embed_query(self, input: Sequence[str]) -> list[NDArray[np.float32]]:
        """The vector of each query."""
        return [np.array(self._model.query_vector(text), np.float32) for text in input]

    @staticmethod
    def name() -> str:
        """How a collection names it."""
        return "ggrank"

    def get_config(self) -> dict[str, Any]:
        """The model's name and options, which a collection keeps."""
        return self._config

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> GgrankEmbeddingFunction:
        """The function from what a collection kept."""
        return GgrankEmbeddingFunction(config["model"], model_kwargs=config["model_kwargs"])

    def default_space(self) -> str:
        """How a new collection compares vectors."""
        return "cosine"

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Raises InputError for another model, whose vectors would not fit; a file may have moved."""
        old, new = (PurePath(config["model"]).name for config in (old_config, new_config))
        if old != new:
            raise InputError(f"this collection's vectors are of {old}, not of {new}: make a new collection")


@lru_cache(maxsize=4)
def _held(config: str) -> HeldModel:
    """Shared, because Chroma makes a new function each time that a collection is opened."""
    facts = json.loads(config)
    return HeldModel(facts["model"], facts["model_kwargs"])
