"""`Llama`: a loaded model that embeds, reranks and ranks.

    text -> token ids -> (pair) sequences -> micro-batches -> engine -> vectors | logits -> ranking

The way is in `Llama._vectors`, `Llama._logits` and the methods after them; each step is a file of ``text/``,
``engine/`` and ``scoring.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputTypeError, ModelModeError
from ggrank.hub.matryoshka import Matryoshka
from ggrank.loading.heads import logit_column, own_scale, pair_format, text_frame
from ggrank.loading.model import LoadedModel, identity, load_model
from ggrank.loading.params import DEFAULT_CACHE_LIMIT, LlamaParams
from ggrank.scoring import choose_scale, cosine, l2_normalize, ranking_of
from ggrank.text.inputs import (
    Distinct,
    check_pairs,
    check_text,
    check_texts,
    check_threshold,
    check_top_n,
    check_truncate,
    windows,
)
from ggrank.text.languages import Readability
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

    Safe to call from several threads; results equal those of one thread. A context manager.

    Attributes:
        query_prefix, document_prefix: what `rank` sets before texts in embedding mode.

    Example:
        >>> from ggrank import Llama
        >>> with Llama.load("all-minilm-l6-v2") as llama:
        ...     ranking = llama.rank("Where do llamas live?", ["Paris is a city", "Llamas live in Peru"])
        >>> ranking[0].index
        1
    """

    def __init__(self, model: LoadedModel, *, cache: ResultCache | None = None) -> None:
        """Not for users, who call `Llama.load`."""
        self._model = model
        self._engine = model.engine
        self._cache = cache
        readability = Readability(
            model.file.path.name,
            languages=model.languages,
            unknown_id=model.file.unknown_id,
            reranker=self.mode is Mode.RERANK,
        )
        self._tokenizer = Tokenizer(model.engine, model.file, readability)
        self._frame = text_frame(model.file, model.engine.special)
        self.query_prefix = model.query_prefix
        self.document_prefix = model.document_prefix
        self._last_query: tuple[tuple[str, str, Truncate], _Results] | None = None
        if self.mode is Mode.RERANK:
            self._column = logit_column(model.file, model.engine.n_outputs)
            self._builder = PairBuilder(
                format=pair_format(model.file, model.engine),
                n_ctx=self.n_ctx,
                tokenize=self._tokenizer.tokenize,
                detokenize=model.engine.detokenize,
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
        options = {name: value for name, value in locals().items() if name in LlamaParams.names()}
        params = LlamaParams.from_options(options)
        loaded = load_model(params)
        if params.cache is None:
            return cls(loaded)
        from ggrank.loading.cache import ResultCache  # it imports sqlite3: 12 ms that most loads can save

        results = ResultCache(Path(params.cache), limit=params.cache_limit, context=identity(loaded))
        return cls(loaded, cache=results)

    @property
    def mode(self) -> Mode:
        """What it is loaded for: "embedding" or "rerank"."""
        return Mode.RERANK if self.pooling_type is PoolingType.RANK else Mode.EMBEDDING

    @property
    def model_path(self) -> Path:
        """The file."""
        return self._model.file.path

    @property
    def pooling_type(self) -> PoolingType:
        """How token vectors become one result."""
        return self._model.settings.pooling_type

    @property
    def n_ctx(self) -> int:
        """Longest sequence in tokens, special tokens included; more is cut."""
        return self._model.settings.n_ctx

    @property
    def n_embd(self) -> int:
        """Width of a vector."""
        return self._engine.n_embd

    @property
    def blend(self) -> float:
        """Of a reranker: the weight of the first stage where two stages order (`ggrank.scoring.blend`)."""
        return self._model.blend

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it was trained for: codes ("en") or how many ("100+"); empty if not known."""
        return self._model.languages

    @property
    def matryoshka(self) -> Matryoshka | None:
        """The widths to which its vectors may be cut; None if it was not trained for that."""
        return self._model.matryoshka

    @property
    def quantization(self) -> str:
        """How the file's weights are stored, such as "q4_k_m"."""
        return self._model.file.quantization

    @property
    def engine(self) -> str:
        """The library that computes: "llama.cpp" or "openvino"."""
        return self._engine.name

    @property
    def device(self) -> str:
        """The device that computes: "CPU", or a GPU's backend and name."""
        return self._engine.device

    @property
    def cache_counts(self) -> CacheCounts | None:
        """How many results were requested from the ``cache``, and how many found; None without one."""
        return None if self._cache is None else self._cache.counts

    @property
    def score_scale(self) -> Scale:
        """The scale of ``rank(score="auto")``: "cosine" for an embedder; "logit" for a reranker, or
        "probability" if the model's own head ends in a softmax.
        """
        return "cosine" if self.mode is Mode.EMBEDDING else own_scale(self._model.file)

    def embed(
        self, text: str, *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vector of one text.

        Args:
            text: any string; one of more than ``n_ctx`` tokens is cut at its end.
            prefix: set before the text, such as ``llama.query_prefix``.
            normalize: give the vector length 1.
            truncate: "end", or "error" to refuse a text that is too long.

        Returns:
            Shape (n_embd,), float32.

        Raises:
            ModelModeError: the model is loaded to rerank, or without pooling.
            InputError: not a string, or too long with ``truncate="error"``.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.embed("a text").shape
            (384,)
        """
        vector: NDArray[np.float32] = self.embed_many(
            [check_text(text, "the text")], prefix=prefix, normalize=normalize, truncate=truncate
        )[0]
        return vector

    def embed_many(
        self, texts: Iterable[str], *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vectors of many texts, in input order: shape (n, n_embd), float32.

        The texts may come from a generator. Arguments and errors are those of `embed`.

        Example:
            >>> from ggrank import Llama
            >>> with Llama.load("all-minilm-l6-v2") as llama:
            ...     llama.embed_many(["one", "two", "three"]).shape
            (3, 384)
        """
        vectors = self._vectors(check_texts(texts, "text"), prefix=prefix, truncate=truncate).values
        return l2_normalize(vectors) if normalize else vectors

    def embed_tokens(self, text: str, *, prefix: str = "", truncate: Truncate = "end") -> NDArray[np.float32]:
        """The vector of every token, from a model loaded with ``pooling_type=PoolingType.NONE``.

        Returns:
            Shape (n_tokens, n_embd), float32, special tokens included, not normalised.

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
        check_truncate(truncate, allow_chunk=False)
        sequence = self._sequence(check_text(text, "the text"), "the text", truncate, prefix)
        return self._engine.run_tokens(sequence.tokens)

    def rerank(
        self, query: str, documents: Iterable[str], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores each document against the query with the cross-encoder.

        Args:
            query: cut only past three quarters of ``n_ctx``.
            documents: any number, also from a generator.
            truncate: "end" cuts a document at its end; "chunk" scores overlapping windows of it and
                keeps the best; "error" refuses a pair that is too long.

        Returns:
            Shape (n,), float32, in input order: raw logits, any real number, higher is better;
            from a softmax head (``score_scale`` "probability") values of 0..1.

        Raises:
            ModelModeError: the model is loaded to embed.
            InputError: not strings, or too long with ``truncate="error"``.
        """
        text = check_text(query, "the query")
        pairs = ((text, document) for document in check_texts(documents, "document"))
        return self._logits(pairs, truncate=truncate).values

    def score_pairs(
        self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores (query, document) pairs of any kind: shape (n,), float32, as `rerank` does."""
        return self._logits(check_pairs(pairs), truncate=truncate).values

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
            query: the question; gets ``query_prefix``, documents get ``document_prefix``, in
                embedding mode.
            documents: any number of strings.
            top_n: keep this many at most.
            threshold: keep scores of at least this, on the scale of ``score``.
            score: "logit" or "sigmoid" for a reranker, "cosine" for an embedder, "auto" for the
                model's own. The order is always that of the raw values. A softmax head's
                probability is never squashed again.
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
        check_top_n(top_n)
        check_threshold(threshold)
        scale = choose_scale(score, own=self.score_scale, model=self.model_path.name)
        query = check_text(query, "the query")
        texts = list(check_texts(documents, "document"))
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
        return self._tokenizer.tokenize(check_text(text, "the text"))

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise InputTypeError(
            f"{self!r} cannot be pickled or copied: its memory and threads belong to this process. Send the "
            "model's name or its LlamaParams, and load it where it is used."
        )

    def __repr__(self) -> str:
        return (
            f"Llama({self.model_path.name!r}, mode={self.mode.value!r}, "
            f"pooling_type={self.pooling_type.name}, n_ctx={self.n_ctx}, engine={self.engine!r}, "
            f"device={self.device!r})"
        )

    def _require(self, mode: Mode) -> None:
        if self.mode is mode:
            return
        name, pooling = self.model_path.name, self.pooling_type.name
        if mode is Mode.RERANK:
            raise ModelModeError(
                f"{name} is loaded to embed (pooling {pooling}), so it has no logits: embed or rank with it, "
                "or load a reranker with pooling_type rank, such as 'bge-reranker-base'"
            )
        raise ModelModeError(
            f"{name} is loaded to rerank (pooling {pooling}), so it has no vectors: rank with it, or load "
            "an embedding model, such as 'all-minilm-l6-v2'"
        )

    def _cosines(self, query: str, texts: list[str], truncate: Truncate) -> _Results:
        first = self._query_vector(query, truncate)
        rest = self._vectors(texts, prefix=self.document_prefix, truncate=truncate)
        return _Results(
            values=cosine(l2_normalize(first.values[0]), l2_normalize(rest.values)),
            truncated=[cut or first.truncated[0] for cut in rest.truncated],
            n_tokens=first.n_tokens + rest.n_tokens,
        )

    def _query_vector(self, query: str, truncate: Truncate) -> _Results:
        """Keeps the last query's vector, because callers rank a long list in steps; a hit counts 0 tokens."""
        asked = (query, self.query_prefix, truncate)
        last = self._last_query
        if last is not None and last[0] == asked:
            return replace(last[1], n_tokens=0)
        found = self._vectors([query], prefix=self.query_prefix, truncate=truncate)
        self._last_query = (asked, found)
        return found

    def _vectors(self, texts: Iterable[str], *, prefix: str, truncate: Truncate) -> _Results:
        """The vectors of texts, (n, n_embd), not normalised."""
        self._require(Mode.EMBEDDING)
        check_truncate(truncate, allow_chunk=False)
        if self.pooling_type is PoolingType.NONE:
            raise ModelModeError(
                f"{self.model_path.name} is loaded without pooling, so a text has a vector for each token: "
                "embed_tokens gives them, or load it with another pooling_type"
            )

        def sequences(text: str, i: int) -> list[TokenSequence]:
            return [self._sequence(text, f"text {i}", truncate, prefix)]

        return self._compute_distinct(texts, sequences)

    def _logits(self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate) -> _Results:
        """The logits of pairs, (n,). A query is tokenised once for all its documents in a row."""
        self._require(Mode.RERANK)
        check_truncate(truncate, allow_chunk=True)
        query_part = lru_cache(maxsize=1)(partial(self._builder.query_part, truncate=truncate))

        def sequences(pair: tuple[str, str], i: int) -> list[TokenSequence]:
            query, document = pair
            return self._builder.pairs(query_part(query), document, name=f"document {i}", truncate=truncate)

        results = self._compute_distinct(pairs, sequences)
        return replace(results, values=np.ascontiguousarray(results.values[:, self._column]))

    def _sequence(self, text: str, name: str, truncate: Truncate, prefix: str = "") -> TokenSequence:
        tokens = self._tokenizer.tokenize(text, prefix=prefix)
        return single_sequence(tokens, self._frame, n_ctx=self.n_ctx, name=name, truncate=truncate)

    def _compute_distinct(
        self, items: Iterable[Item], sequences_of: Callable[[Item, int], list[TokenSequence]]
    ) -> _Results:
        """Texts or pairs to rows of outputs, (n, n_outputs); of several sequences of one item the best.

        What is equal is computed once.
        """
        distinct, n_tokens = Distinct(), 0
        rows = [np.empty((0, self._engine.n_outputs), np.float32)]
        truncated: list[bool] = []
        for window in windows(items, WINDOW):
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
        return _Results(
            values=values if len(values) == len(positions) else values[positions],
            truncated=[truncated[position] for position in positions],
            n_tokens=n_tokens,
        )

    def _run(self, sequences: Sequence[TokenSequence]) -> NDArray[np.float32]:
        """The outputs of sequences, (n, n_outputs), in input order; from the cache if they are there."""
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
        """Sequences to micro-batches, and these to (n, n_outputs), in input order."""
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
            out[list(batch.indices)] = engine.run([sequences[i] for i in batch.indices])
        return out


@dataclass(frozen=True)
class _Results:
    """Values of a list of texts or pairs, whether each was cut, and the tokens computed for all."""

    values: NDArray[np.float32]
    truncated: list[bool]
    n_tokens: int
