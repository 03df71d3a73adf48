"""`FlagReranker` as in FlagEmbedding: ``compute_score``.

Knows the arguments and results of the original (FlagEmbedding 1.4,
https://github.com/FlagOpen/FlagEmbedding, ``inference/reranker/encoder_only``).
"""

from __future__ import annotations

import os
from bisect import bisect_right
from functools import lru_cache, partial

from ggrank import Llama
from ggrank.compat.model import Model, Pairs, is_gpu, listed, logits, open_reranker
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
        batch_size: int = 128,
        query_max_length: int | None = None,
        passage_max_length: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        """Loads the model.

        Args:
            model_name_or_path: an original's name (``BAAI/bge-reranker-base``), a preset, a path to a GGUF
                file, a Hugging Face repo with GGUF files, or a loaded `ggrank.Llama`.
            filename: which file of a repo, where it has several.
            cache_dir: where downloads are kept.
            devices: "cpu", else a GPU where llama.cpp was built for one.
            query_max_length: longest query in tokens; else, and at most, three quarters of ``max_length``.
            max_length: longest pair in tokens; else 512, or less where the model has less.
            normalize: squash scores with the sigmoid.
            use_fp16, batch_size, passage_max_length, trust_remote_code: accepted, without effect. The file
                says how its weights are stored, batches are made by tokens, and ``passage_max_length``
                has no effect in the original either.

        Raises:
            ModelNotFoundError, DownloadError: no such model; the message names those that are known.
            ModelModeError: an embedding model.
            InputError: a ``max_length`` that the model does not have.
        """
        on_gpu = is_gpu(devices)
        load = partial(
            open_reranker, model_name_or_path, filename=filename, cache_dir=cache_dir, on_gpu=on_gpu
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
        found = listed(sentence_pairs)
        is_one_pair = bool(found) and isinstance(found[0], str)
        pairs = list(check_pairs([found] if is_one_pair else found))
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
