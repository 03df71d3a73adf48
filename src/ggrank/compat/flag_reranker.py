"""`FlagReranker` as in FlagEmbedding 1.4: https://github.com/FlagOpen/FlagEmbedding."""

from __future__ import annotations

import os
from functools import lru_cache, partial
from typing import Any

from ggrank import Llama
from ggrank.compat.model import Model, Pairs, check_options, listed, logits, open_reranker
from ggrank.scoring import sigmoid


class FlagReranker:
    """Scores (query, passage) pairs as ``FlagEmbedding.FlagReranker`` does, from a GGUF file.

    Args:
        model_name_or_path, filename, devices, max_length: as for `CrossEncoder`.
        use_fp16: no effect; the file says how its weights are stored.
        cache_dir: where downloads are kept.
        normalize: squash scores with the sigmoid, for calls that do not say.
        options: those that change no score, such as ``batch_size``, have no effect; others raise.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.

    Raises:
        GgrankError: as `CrossEncoder`.

    Example:
        >>> from ggrank.compat import FlagReranker
        >>> reranker = FlagReranker("ggrank-reranker-mini", use_fp16=True)
        >>> scores = reranker.compute_score([["Who lives in Peru?", "Llamas."]], normalize=True)
        >>> len(scores), 0.0 < scores[0] < 1.0
        (1, True)
    """

    def __init__(
        self,
        model_name_or_path: Model,
        use_fp16: bool = False,
        *,
        filename: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        devices: object = None,
        max_length: int | None = None,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        check_options("FlagReranker", options)
        load = partial(
            open_reranker, model_name_or_path, device=devices, filename=filename, cache_dir=cache_dir
        )
        self.llama: Llama = load(n_ctx=max_length)
        self._load = lru_cache(maxsize=1)(load)
        self.normalize = normalize

    def compute_score(
        self,
        sentence_pairs: Pairs,
        *,
        max_length: int | None = None,
        normalize: bool | None = None,
        **options: Any,
    ) -> list[float]:
        """Scores of pairs, in input order.

        Args:
            sentence_pairs: (query, passage) pairs, or one pair; a NumPy array or a generator too.
            max_length: another one than the model was loaded with loads it a second time, and keeps that
                until a third one is asked for.
            normalize: else what the reranker was made with.
            options: as for the class.

        Returns:
            A list of floats, of one pair too, as in FlagEmbedding since 1.2: logits, or 0 to 1 with
            ``normalize=True``.

        Raises:
            InputError: not pairs of strings, or a ``max_length`` that the model does not have.
        """
        check_options("compute_score", options)
        llama = self.llama if max_length in (None, self.llama.n_ctx) else self._load(n_ctx=max_length)
        values = logits(llama, listed(sentence_pairs)[0])
        wants_sigmoid = self.normalize if normalize is None else normalize
        scores: list[float] = (sigmoid(values) if wants_sigmoid else values).tolist()
        return scores
