"""`SharedLlama`: a `Llama` whose micro-batches are filled by all who use it at the same time.

Knows which steps of `Llama` a server does otherwise; no HTTP. Everything here waits: call it in threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.hub.matryoshka import cut
from ggrank.llama import Llama
from ggrank.loading.model import LoadedModel
from ggrank.scoring import l2_normalize
from ggrank.server.worker import Worker
from ggrank.text.inputs import check_text, check_truncate
from ggrank.text.pairing import single_sequence
from ggrank.types import Mode, TokenIds, Truncate


@dataclass(frozen=True)
class Vectors:
    """Vectors of texts in input order, shape (n, n_embd), their tokens, and which texts were cut."""

    values: NDArray[np.float32]
    n_tokens: int
    truncated: list[bool]


class SharedLlama(Llama):
    """A loaded model with a worker; everything that `Llama` computes goes through it.

    Example:
        >>> from ggrank.loading.model import load_model
        >>> from ggrank.loading.params import LlamaParams
        >>> with SharedLlama(load_model(LlamaParams("all-minilm-l6-v2"))) as llama:
        ...     llama.embed("a text").shape
        (384,)
    """

    def __init__(self, model: LoadedModel) -> None:
        super().__init__(model)
        self.worker = Worker(model.engine, model.settings, name=model.file.path.stem)

    def vectors(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        prefix: str,
        normalize: bool,
        truncate: Truncate,
        dimensions: int | None = None,
    ) -> Vectors:
        """As `embed_many`, with tokens counted; a text may be a list of token ids.

        Args:
            dimensions: a width that `ggrank.hub.presets.check_dimensions` allows.

        Raises:
            InputError: an id is not in the vocabulary; strings and lists of ids together.
        """
        if all(isinstance(text, str) for text in texts):
            strings = [check_text(text, f"text {i}") for i, text in enumerate(texts)]
            results = self._vectors(strings, prefix=prefix, truncate=truncate)
            found = Vectors(results.values, results.n_tokens, results.truncated)
        else:
            found = self._vectors_of_ids(texts, truncate)
        values = cut(found.values, dimensions, self.matryoshka)
        return Vectors(l2_normalize(values) if normalize else values, found.n_tokens, found.truncated)

    def framed(self, text: str) -> TokenIds:
        """Token ids of a text between its special tokens, not cut."""
        frame = self._frame
        return np.concatenate([_ids(frame.head), self.tokenize(text), _ids(frame.tail)])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens left out.

        Raises:
            InputError: an id is not in the vocabulary.
        """
        return self._engine.detokenize(self._checked(tokens, "tokens"))

    def close(self) -> None:
        """Ends the worker and frees the model; twice is fine."""
        self.worker.close()
        super().close()

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        return self.worker.compute(sequences)

    def _vectors_of_ids(self, texts: Sequence[str | Sequence[int]], truncate: Truncate) -> Vectors:
        self._require(Mode.EMBEDDING)
        check_truncate(truncate, allow_chunk=False)
        sequences = [
            single_sequence(
                self._framed_ids(text, f"text {i}"),
                self._frame,
                n_ctx=self.n_ctx,
                name=f"text {i}",
                truncate=truncate,
            )
            for i, text in enumerate(texts)
        ]
        values = self._run(sequences)
        n_tokens = sum(len(sequence.tokens) for sequence in sequences)
        return Vectors(values, n_tokens, [sequence.truncated for sequence in sequences])

    def _checked(self, tokens: Sequence[int] | str, name: str) -> TokenIds:
        if isinstance(tokens, str):
            raise InputError(f"{name} is a string among lists of token ids; send one or the other")
        # A list of Python's numbers may hold one that no array can.
        if tokens and (min(tokens) < 0 or max(tokens) >= self._n_vocab):
            raise InputError(
                f"{name} must hold token ids of {self.model_path.stem}, 0 to {self._n_vocab - 1}"
            )
        return _ids(tokens)

    def _framed_ids(self, tokens: Sequence[int] | str, name: str) -> TokenIds:
        """Ids without the special tokens around them, by which they are known to be this model's."""
        ids, head, tail = self._checked(tokens, name), list(self._frame.head), list(self._frame.tail)
        inner = ids[len(head) : len(ids) - len(tail)]
        if not (head or tail) or [*head, *inner.tolist(), *tail] != ids.tolist():
            expected = " ... ".join(filter(None, (" ".join(map(str, head)), " ".join(map(str, tail)))))
            raise InputError(
                f"{name} may be another tokenizer's ids: those of {self.model_path.stem} begin and end with "
                f"its special tokens ({expected or 'it has none, so its ids cannot be known'}). Send "
                "strings; in LangChain OpenAIEmbeddings(check_embedding_ctx_length=False) does"
            )
        return inner

    @cached_property
    def _n_vocab(self) -> int:
        return len(self._model.file.strings("tokenizer.ggml.tokens"))


def _ids(tokens: Sequence[int]) -> TokenIds:
    return np.array(tokens, dtype=np.int32)
