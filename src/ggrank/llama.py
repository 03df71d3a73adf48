"""`Llama`: a loaded model that embeds, reranks and ranks.

    text -> token ids -> (pair) sequences -> micro-batches -> engine -> vectors | logits -> ranking

The way is in `Llama._vectors`, `Llama._logits` and the methods after them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputTypeError, ModelModeError
from ggrank.loading.heads import logit_column, own_scale, pair_format, text_frame
from ggrank.loading.model import LoadedModel, load_model, open_cache
from ggrank.loading.params import DEFAULT_CACHE_LIMIT, LlamaParams
from ggrank.scoring import choose_scale, cosine, l2_normalize, ranking_of
from ggrank.text import inputs
from ggrank.text.packing import plan_micro_batches
from ggrank.text.pairing import PairBuilder, single_sequence
from ggrank.text.tokenizer import Tokenizer
from ggrank.types import Mode, PoolingType, Ranking, Scale, ScoreScale, TokenIds, TokenSequence, Truncate

if TYPE_CHECKING:
    from ggrank.loading.cache import CacheCounts, ResultCache

Item = TypeVar("Item", str, tuple[str, str])

WINDOW = 1024
"""Texts that are tokenised and packed together, so that memory does not grow with the length of a list."""


class Llama:
    """A GGUF model, loaded to embed (bi-encoder) or to rerank (cross-encoder).

    Safe to call from several threads. A context manager.

    Attributes:
        mode: what it is loaded for: "embedding" or "rerank".
        model_path: the file.
        pooling_type: how token vectors become one result.
        n_ctx: longest sequence in tokens, special tokens included; more is cut.
        n_embd: width of a vector.
        engine: the library that computes: "llama.cpp" or "openvino".
        quantization: how the file's weights are stored, such as "q4_k_m".
        score_scale: the scale of ``rank(score="auto")``: "cosine" for an embedder; "logit" for a reranker, or
            "probability" if the model's own head ends in a softmax.
        query_prefix, document_prefix: what `rank` sets before texts in embedding mode.
        languages: that it was trained for: codes ("en") or how many ("100+"); empty if not known.
        matryoshka: the widths to which its vectors may be cut; None if it was not trained for that.
        blend: of a reranker: the weight of the first stage where two stages order (`ggrank.scoring.blend`).

    Example:
        >>> from ggrank import Llama
        >>> with Llama.load("all-minilm-l6-v2") as llama:
        ...     ranking = llama.rank("Where do llamas live?", ["Paris is a city", "Llamas live in Peru"])
        >>> ranking[0].index
        1
    """

    def __init__(self, model: LoadedModel, *, cache: ResultCache | None = None) -> None:
        file, engine, settings = model.file, model.engine, model.settings
        self._model, self._engine, self._cache = model, engine, cache
        is_reranker = settings.pooling_type is PoolingType.RANK
        self.mode = Mode.RERANK if is_reranker else Mode.EMBEDDING
        self.model_path, self.quantization = file.path, file.quantization
        self.pooling_type, self.n_ctx = settings.pooling_type, settings.n_ctx
        self.n_embd, self.engine = engine.n_embd, engine.name
        self.score_scale: Scale = own_scale(file) if is_reranker else "cosine"
        self.query_prefix, self.document_prefix = model.query_prefix, model.document_prefix
        self.languages, self.matryoshka, self.blend = model.languages, model.matryoshka, model.blend
        self._tokenizer = Tokenizer(engine, file, languages=model.languages, reranker=is_reranker)
        self._frame = text_frame(file, engine.special)
        self._last_query: tuple[tuple[str, str, Truncate], _Results] | None = None
        if is_reranker:
            self._column = logit_column(file, engine.n_outputs)
            self._builder = PairBuilder(
                format=pair_format(file, engine),
                n_ctx=self.n_ctx,
                tokenize=self._tokenizer.tokenize,
                detokenize=engine.detokenize,
            )

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | LlamaParams,
        *,
        filename: str | None = None,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        endpoint: str | None = None,
        local_files_only: bool = False,
        pooling_type: PoolingType | None = None,
        n_ctx: int | None = None,
        n_batch: int | None = None,
        n_ubatch: int | None = None,
        n_seq_max: int | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int = -1,
        use_mmap: bool = True,
        flash_attn: bool | None = None,
        use_extra_bufts: bool | None = None,
        engine: Literal["auto", "llama.cpp", "openvino"] = "auto",
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        cache_limit: int = DEFAULT_CACHE_LIMIT,
    ) -> Llama:
        """Loads a model; every option is described at `LlamaParams`, which may be passed instead.

        The first use of a llama.cpp build on a machine, and of a file, is tried out in a child
        process (about half a second); the verdict is remembered.

        Raises:
            ModelNotFoundError: no such preset, path or repo.
            ModelFileError: the file is not a GGUF that can be loaded.
            ModelModeError: the file cannot do what ``pooling_type`` asks, or its pooling is not known.
            DownloadError: the hub could not be reached, or refused.
            InputError: an option is out of its range.
            EngineError: llama.cpp does not compute on this machine.

        Example:
            >>> from ggrank import Llama, LlamaParams
            >>> with Llama.load(LlamaParams("all-minilm-l6-v2", n_ctx=128)) as llama:
            ...     llama.mode.value, llama.n_ctx, llama.n_embd
            ('embedding', 128, 384)
        """
        params = LlamaParams.from_options({name: value for name, value in locals().items() if name != "cls"})
        loaded = load_model(params)
        return cls(loaded, cache=open_cache(params, loaded))

    @property
    def device(self) -> str:
        """The device that computes: "CPU", or a GPU's backend and name."""
        return self._engine.device

    @property
    def cache_counts(self) -> CacheCounts | None:
        """How many results were requested from the ``cache``, and how many found; None without one."""
        return None if self._cache is None else self._cache.counts

    def embed(
        self, text: str, *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vector of one text: shape (n_embd,), float32.

        Args:
            text: any string; one of more than ``n_ctx`` tokens is cut at its end.
            prefix: set before the text, such as ``llama.query_prefix``.
            normalize: give the vector length 1.
            truncate: "end", or "error" to refuse a text that is too long.

        Raises:
            ModelModeError: the model is loaded to rerank, or without pooling.
            InputError: not a string, or too long with ``truncate="error"``.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.embed("a text").shape
            (384,)
        """
        texts = [inputs.check_text(text, "the text")]
        vectors = self.embed_many(texts, prefix=prefix, normalize=normalize, truncate=truncate)
        return vectors.reshape(-1)

    def embed_many(
        self, texts: Iterable[str], *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vectors of texts, also from a generator: shape (n, n_embd), float32; otherwise as `embed`.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.embed_many(["one", "two", "three"]).shape
            (3, 384)
        """
        vectors = self._vectors(inputs.check_texts(texts, "text"), prefix=prefix, truncate=truncate).values
        return l2_normalize(vectors) if normalize else vectors

    def embed_tokens(self, text: str, *, prefix: str = "", truncate: Truncate = "end") -> NDArray[np.float32]:
        """The vector of every token, special tokens included, not normalised: (n_tokens, n_embd), float32.

        Raises:
            ModelModeError: the model pools; load it with ``PoolingType.NONE``.
            InputError: not a string, or too long with ``truncate="error"``.

        Example:
            >>> from ggrank import Llama, PoolingType
            >>> with Llama.load("all-minilm-l6-v2", pooling_type=PoolingType.NONE) as llama:
            ...     llama.embed_tokens("hello world").shape
            (4, 384)
        """
        if self.pooling_type is not PoolingType.NONE:
            raise ModelModeError(
                f"embed_tokens needs a model loaded with pooling_type none; this one has "
                f"{self.pooling_type.name}"
            )
        inputs.check_truncate(truncate, allow_chunk=False)
        sequence = self._sequence(inputs.check_text(text, "the text"), "the text", truncate, prefix)
        return self._engine.run_tokens(sequence.tokens)

    def rerank(
        self, query: str, documents: Iterable[str], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores each document against the query with the cross-encoder.

        Args:
            query: cut only past three quarters of ``n_ctx``.
            documents: any number, also from a generator.
            truncate: "end" cuts a document at its end; "chunk" scores overlapping windows of it and keeps the
                best; "error" refuses a pair that is too long.

        Returns:
            Shape (n,), float32, in input order: raw logits, any real number, higher is better;
            from a softmax head (``score_scale`` "probability") values of 0..1.

        Raises:
            ModelModeError: the model is loaded to embed.
            InputError: not strings, or too long with ``truncate="error"``.
        """
        query = inputs.check_text(query, "the query")
        pairs = ((query, document) for document in inputs.check_texts(documents, "document"))
        return self._logits(pairs, truncate=truncate).values

    def score_pairs(
        self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores (query, document) pairs of any kind: shape (n,), float32, as `rerank` does."""
        return self._logits(inputs.check_pairs(pairs), truncate=truncate).values

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_n: int | None = None,
        threshold: float | None = None,
        score: ScoreScale = "auto",
        truncate: Truncate = "end",
    ) -> Ranking:
        """Documents in order, best first: by logit from a reranker, by cosine from an embedder.

        Args:
            query, documents: an embedder sets ``query_prefix`` and ``document_prefix`` before them.
            top_n: keep this many at most.
            threshold: keep scores of at least this, on the scale of ``score``.
            score: "logit" or "sigmoid" for a reranker, "cosine" for an embedder, "auto" for the model's own.
                The order is that of the raw values. A softmax head's probability is never squashed again.
            truncate: as for `rerank` and `embed`.

        Raises:
            ModelModeError: the model cannot give that score.
            InputError: an argument that cannot be used.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     best = llama.rank("fruit", ["a car", "an apple", "a tree"], top_n=1)[0]
            >>> best.index, best.document, best.truncated
            (1, 'an apple', False)
        """
        inputs.check_top_n(top_n)
        inputs.check_threshold(threshold)
        scale = choose_scale(score, own=self.score_scale, model=self.model_path.name)
        query = inputs.check_text(query, "the query")
        texts = list(inputs.check_texts(documents, "document"))
        if self.mode is Mode.RERANK:
            results = self._logits(((query, text) for text in texts), truncate=truncate)
        else:
            results = self._cosines(query, texts, truncate)
        return ranking_of(
            texts,
            results.values,
            truncated=results.truncated,
            scale=scale,
            has_logits=self.mode is Mode.RERANK,
            top_n=top_n,
            threshold=threshold,
            n_tokens=results.n_tokens,
        )

    def tokenize(self, text: str) -> TokenIds:
        """Token ids of a text as the original tokenizer gives them: shape (n_tokens,), int32.

        No special token is added, and the text of one (``[SEP]``) is plain text.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.tokenize("hello world").tolist()
            [7592, 2088]
        """
        return self._tokenizer.tokenize(inputs.check_text(text, "the text"))

    def count_tokens(self, text: str) -> int:
        """Tokens of a text as a sequence of its own, special tokens included, before any cutting.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.count_tokens("hello world")
            4
        """
        return len(self._frame.head) + len(self.tokenize(text)) + len(self._frame.tail)

    def close(self) -> None:
        """Frees the model. Any later call raises `ClosedError`; closing twice is fine."""
        self._engine.close()
        if self._cache is not None:
            self._cache.close()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise InputTypeError(
            f"{self!r} cannot be pickled or copied: send its LlamaParams, and load it where it is used."
        )

    def __repr__(self) -> str:
        return f"Llama({self.model_path.name!r}, mode={self.mode.value!r}, engine={self.engine!r})"

    def _require(self, mode: Mode) -> None:
        if self.mode is mode:
            return
        other, lacks = "an embedding model, such as 'all-minilm-l6-v2'", "vectors"
        if mode is Mode.RERANK:
            other, lacks = "a reranker, such as 'ggrank-reranker-mini'", "logits"
        raise ModelModeError(
            f"{self.model_path.name} is loaded with pooling {self.pooling_type.name}, so it has no {lacks}; "
            f"rank with it, or load {other}"
        )

    def _cosines(self, query: str, texts: list[str], truncate: Truncate) -> _Results:
        asked = (query, self.query_prefix, truncate)
        last, n_tokens = self._last_query, 0
        if last is None or last[0] != asked:  # Callers rank a long list in steps, with one query.
            last = (asked, self._vectors([query], prefix=self.query_prefix, truncate=truncate))
            self._last_query, n_tokens = last, last[1].n_tokens
        first, rest = last[1], self._vectors(texts, prefix=self.document_prefix, truncate=truncate)
        cosines = cosine(l2_normalize(first.values[0]), l2_normalize(rest.values))
        truncated = [cut or first.truncated[0] for cut in rest.truncated]
        return _Results(cosines, truncated, n_tokens + rest.n_tokens)

    def _vectors(self, texts: Iterable[str], *, prefix: str, truncate: Truncate) -> _Results:
        """The vectors of texts, (n, n_embd), not normalised."""
        self._require(Mode.EMBEDDING)
        inputs.check_truncate(truncate, allow_chunk=False)
        if self.pooling_type is PoolingType.NONE:
            raise ModelModeError(
                f"{self.model_path.name} is loaded without pooling, so a text has a vector for each token: "
                "embed_tokens gives them, or load it with another pooling_type"
            )
        return self._distinct(texts, lambda text, i: [self._sequence(text, f"text {i}", truncate, prefix)])

    def _logits(self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate) -> _Results:
        """The logits of pairs, (n,). A query is tokenised once for all its documents in a row."""
        self._require(Mode.RERANK)
        inputs.check_truncate(truncate, allow_chunk=True)
        query_part = lru_cache(maxsize=1)(partial(self._builder.query_part, truncate=truncate))

        def sequences(pair: tuple[str, str], i: int) -> list[TokenSequence]:
            query, document = pair
            return self._builder.pairs(query_part(query), document, name=f"document {i}", truncate=truncate)

        results = self._distinct(pairs, sequences)
        return replace(results, values=np.ascontiguousarray(results.values[:, self._column]))

    def _sequence(self, text: str, name: str, truncate: Truncate, prefix: str = "") -> TokenSequence:
        tokens = self._tokenizer.tokenize(text, prefix=prefix)
        return single_sequence(tokens, self._frame, n_ctx=self.n_ctx, name=name, truncate=truncate)

    def _distinct(
        self, items: Iterable[Item], sequences_of: Callable[[Item, int], list[TokenSequence]]
    ) -> _Results:
        """The outputs of texts or pairs, (n, n_outputs): equal items are computed once, and of an item's
        sequences the best counts.
        """
        distinct, n_tokens = inputs.Distinct(), 0
        rows = [np.empty((0, self._engine.n_outputs), np.float32)]
        truncated: list[bool] = []
        for window in inputs.windows(items, WINDOW):
            start = len(distinct.positions)
            new = distinct.add(window)
            groups: list[list[TokenSequence]] = [sequences_of(window[i], start + i) for i in new]
            sequences = list(chain.from_iterable(groups))
            if sequences:
                starts = np.cumsum([0, *map(len, groups[:-1])])
                rows.append(np.maximum.reduceat(self._run(sequences), starts, axis=0))
            truncated += [group[0].truncated for group in groups]
            n_tokens += sum(len(sequence.tokens) for sequence in sequences)
        values, positions = np.concatenate(rows), distinct.positions
        if len(values) != len(positions):
            values, truncated = values[positions], [truncated[position] for position in positions]
        return _Results(values, truncated, n_tokens)

    def _run(self, sequences: Sequence[TokenSequence]) -> NDArray[np.float32]:
        """The outputs of sequences, (n, n_outputs); from the cache if they are there."""
        tokens = [sequence.tokens for sequence in sequences]
        if self._cache is None:
            return self._compute(tokens)
        keys = self._cache.keys(ids.tobytes() for ids in tokens)
        out = self._cache.get_many(keys, width=self._engine.n_outputs)
        missing = np.flatnonzero(np.isnan(out[:, 0])).tolist()
        if missing:
            out[missing] = self._compute([tokens[i] for i in missing])
            self._cache.put_many([keys[i] for i in missing], out[missing])
        return out

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """The outputs of sequences, (n, n_outputs), by micro-batches."""
        settings, engine = self._model.settings, self._engine
        out = np.empty((len(sequences), engine.n_outputs), dtype=np.float32)
        batches = plan_micro_batches(
            list(map(len, sequences)),
            max_tokens=settings.n_ubatch,
            max_sequences=settings.n_seq_max,
            attention=engine.attention,
            n_embd=engine.n_embd,
        )
        for batch in batches:
            out[batch] = engine.run([sequences[i] for i in batch])
        return out


@dataclass(frozen=True)
class _Results:
    """Values of a list of texts or pairs, whether each was cut, and the tokens computed for all."""

    values: NDArray[np.float32]
    truncated: list[bool]
    n_tokens: int
