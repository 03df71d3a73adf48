"""`CorpusModel`: a `Llama` that also tells how many tokens it read and which texts it cut.

Knows what a job needs of a model beside its numbers; no rows, no files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ModelModeError
from ggrank.hub.checksums import Expected, check
from ggrank.llama import Llama
from ggrank.loading.model import identity, load_model
from ggrank.loading.params import LlamaParams
from ggrank.types import Mode, PoolingType, Truncate


@dataclass(frozen=True)
class Raw:
    """A model's numbers in input order, which inputs were cut, and the tokens of all."""

    values: NDArray[np.float32]
    truncated: NDArray[np.bool_]
    n_tokens: int


class CorpusModel(Llama):
    """A model loaded for a job.

    Example:
        >>> from ggrank.loading.params import LlamaParams
        >>> with CorpusModel.open(LlamaParams("all-minilm-l6-v2")) as model:
        ...     model.vectors(["a text", "word " * 300], prefix="").truncated.tolist()
        [False, True]
    """

    @classmethod
    def open(cls, params: LlamaParams) -> CorpusModel:
        """Loads it. Raises what `Llama.load` raises."""
        return cls(load_model(params))

    def vectors(self, texts: Sequence[str], *, prefix: str) -> Raw:
        """Vectors as the model gives them, shape (n, n_embd); a long text is cut at its end."""
        found = self._vectors(texts, prefix=prefix, truncate="end")
        return Raw(found.values, np.array(found.truncated, bool), found.n_tokens)

    def logits(self, pairs: Sequence[tuple[str, str]], *, truncate: Truncate) -> Raw:
        """Logits, shape (n,)."""
        found = self._logits(pairs, truncate=truncate)
        return Raw(found.values, np.array(found.truncated, bool), found.n_tokens)

    def check_mode(self, mode: Mode) -> None:
        """Raises ModelModeError where it does not do this."""
        self._require(mode)
        if self.pooling_type is PoolingType.NONE:
            raise ModelModeError(
                f"{self.model_path.name} is loaded without pooling, so a text has a vector for each token; "
                "load it with another pooling_type"
            )

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, but for the processor, which moves no more than their last digits."""
        facts: dict[str, Any] = json.loads(identity(self._model))
        return {
            "sha256": facts["model"],
            "engine": facts["engine"],
            "device": facts["device"][0],
            "n_ctx": self.n_ctx,
            "settings": facts["settings"],
        }

    def origin(self) -> dict[str, Any]:
        """What whoever reads a column later should know of the model that computed it."""
        return {
            "model": self.model_path.name,
            "model_sha256": check(self.model_path, Expected()),
            "pooling_type": self.pooling_type.name,
            "n_embd": self.n_embd,
            "n_ctx": self.n_ctx,
        }
