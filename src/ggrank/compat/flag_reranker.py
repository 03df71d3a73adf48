"""`FlagReranker` as in FlagEmbedding: ``compute_score``.

The original: https://github.com/FlagOpen/FlagEmbedding, version 1.4, ``inference/reranker/encoder_only``.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import lru_cache, partial
from typing import Any

from ggrank import Llama
from ggrank.compat.model import Model, Pairs, check_options, listed, logits, open_reranker
from ggrank.scoring import sigmoid
from ggrank.text.inputs import check_pairs


class FlagReranker:
    """Scores (query, passage) pairs as ``FlagEmbedding.FlagReranker`` does, from a GGUF file.

    Attributes:
        llama: the loaded model; ``llama.close()`` frees it.
        query_max_length, normalize: for calls that do not say.

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
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        """Loads the model.

        Args:
            model_name_or_path, filename, devices, max_length: as for `CrossEncoder`.
            use_fp16: accepted, without effect: the file says how its weights are stored.
            cache_dir: where downloads are kept.
            query_max_length: longest query in tokens; else, and at most, three quarters of ``max_length``.
            normalize: squash scores with the sigmoid.
            options: ``batch_size``, ``trust_remote_code`` and ``passage_max_length`` are accepted and have no
                effect; the last has none in the original either.

        Raises:
            GgrankError: as `CrossEncoder`.
        """
        check_options("FlagReranker", options)
        load = partial(
            open_reranker, model_name_or_path, device=devices, filename=filename, cache_dir=cache_dir
        )
        self.llama: Llama = load(n_ctx=max_length)
        self._load = lru_cache(maxsize=1)(load)
        self.query_max_length = query_max_length
        self.normalize = normalize

    def compute_score(
        self,
        sentence_pairs: Pairs,
        *,
        batch_size: int | None = None,
        query_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
    ) -> list[float]:
        """Scores of pairs, in input order.

        Args:
            sentence_pairs: (query, passage) pairs, or one pair; a NumPy array or a generator too.
            max_length: another one than the model was loaded with loads it a second time, and keeps that
                until a third one is asked for.
            query_max_length, normalize: else those that the reranker was made with.
            batch_size: accepted, without effect.

        Returns:
            A list of floats, of one pair too, as in FlagEmbedding since 1.2: logits, or 0 to 1 with
            ``normalize=True``.

        Raises:
            InputError: not pairs of strings, or a ``max_length`` that the model does not have.
        """
        llama = self.llama if max_length in (None, self.llama.n_ctx) else self._load(n_ctx=max_length)
        pairs = list(check_pairs(listed(sentence_pairs)[0]))
        limit = query_max_length or self.query_max_length
        if limit is not None:
            cut = {query: _cut(query, llama=llama, n_tokens=limit) for query in {pair[0] for pair in pairs}}
            pairs = [(cut[query], passage) for query, passage in pairs]
        values = logits(llama, pairs)
        wants_sigmoid = self.normalize if normalize is None else normalize
        scores: list[float] = (sigmoid(values) if wants_sigmoid else values).tolist()
        return scores


def _cut(query: str, *, llama: Llama, n_tokens: int) -> str:
    """The beginning of a query that is its first tokens; where none is, the longest with at most so many."""

    def tokens(end: int) -> list[int]:
        ids: list[int] = llama.tokenize(query[:end]).tolist()
        return ids

    first = tokens(len(query))
    if len(first) <= n_tokens:
        return query
    longest = bisect_right(range(len(query) + 1), n_tokens, key=lambda end: len(tokens(end))) - 1
    for end in range(longest, 0, -1):
        found = tokens(end)
        if found == first[:n_tokens]:
            return query[:end]
        if len(found) < n_tokens:
            break
    return query[:longest]
