"""`RemoteReranker` and `RemoteEmbedder`: the calls of `Llama`, answered by a server."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelModeError
from ggrank.remote.dialects import (
    DIALECTS,
    HUGGING_FACE,
    Dialect,
    Results,
    check_widths,
    embed_body,
    find_dialect,
    read_answer,
    rerank_body,
)
from ggrank.scoring import choose_scale, cosine, l2_normalize, ranking_of
from ggrank.text.inputs import (
    check_count,
    check_pairs,
    check_text,
    check_texts,
    check_threshold,
    check_top_n,
    check_truncate,
    windows,
)
from ggrank.types import Mode, Ranking, Scale, ScoreScale, Truncate

if TYPE_CHECKING:
    from typing_extensions import Self


class _RemoteModel:
    """A server, its dialect once it is known, and requests of some texts each."""

    mode: ClassVar[Mode]

    def __init__(
        self,
        base_url: str = HUGGING_FACE,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: str = "auto",
        path: str | None = None,
        batch_size: int | None = None,
        timeout: float = 120.0,
        retries: int = 3,
    ) -> None:
        from ggrank.remote.connection import Connection  # httpx, which a search by words alone never loads

        names = ("auto", *DIALECTS[self.mode])
        if dialect not in names:
            raise InputError(f"dialect must be one of {', '.join(map(repr, names))}; found {dialect!r}")
        for name, text in (("model", model), ("path", path)):
            if text is not None and not (isinstance(text, str) and text.strip()):
                raise InputError(f"{name} must be a string that is not empty, or None; found {text!r}")
        check_count(1 if batch_size is None else batch_size, "batch_size")
        check_count(retries, "retries", least=0)
        is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not is_number or not 0 < timeout < float("inf"):
            raise InputError(f"timeout must be a number of seconds above 0, found {timeout!r}")
        self._model, self._dialect, self._path, self._batch_size = model, dialect, path, batch_size
        self._connection = Connection(base_url, api_key, timeout=timeout, retries=retries)
        self._lock = threading.Lock()
        self._found: Dialect | None = None

    @property
    def dialect(self) -> str:
        """The dialect that is spoken; asks the server where it is not known yet."""
        return self._target().name

    @property
    def model(self) -> str:
        """The model's name at the server; "" where it has only one. May ask the server."""
        return self._target().model

    @property
    def score_scale(self) -> Scale:
        """The scale of scores: "cosine" of an embedder. Of a reranker "logit" from ggrank, TEI, llama-server
        and "jina-logits" (a ggrank server may say "probability"), and "probability", 0 to 1, from Cohere,
        Jina and Hugging Face. May ask the server.
        """
        return "cosine" if self.mode is Mode.EMBEDDING else self._target().scale

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
        """Documents in order, best first; arguments and errors are those of `Llama.rank`.

        Args:
            score: "cosine" of an embedder. Of a reranker "logit" or "sigmoid" where the server gives logits;
                "sigmoid" where it gives 0..1, which then stay as they are. "auto" is the server's own.
            truncate: as for `RemoteReranker.rerank` and `RemoteEmbedder.embed_many`.

        Returns:
            ``logit`` is None where the server gives none; ``truncated`` is True only where a ggrank server
            says so, and ``n_tokens`` is 0 where the server does not count.
        """
        check_top_n(top_n)
        check_threshold(threshold)
        query = check_text(query, "the query")
        texts = list(check_texts(documents, "document"))
        own = self.score_scale
        if score == "logit" and own == "probability":
            raise ModelModeError("score='logit' cannot be had: the server's scores are 0 to 1 already")
        with self._connection.tidy_errors():
            scale = choose_scale(score, own=own, model=f"the model at {self._connection.base_url}")
        results = self._scores(query, texts, truncate)
        return ranking_of(
            texts,
            results.values,
            truncated=results.truncated,
            scale=scale,
            has_logits=own == "logit",
            top_n=top_n,
            threshold=threshold,
            n_tokens=results.n_tokens,
        )

    def close(self) -> None:
        """Closes the connections. Any later call raises `ClosedError`; closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        options = f"model={self._model!r}, dialect={self._dialect!r}"
        return f"{type(self).__name__}({self._connection.base_url!r}, {options})"

    def _target(self) -> Dialect:
        """Found once: the first caller asks, the others wait for it."""
        with self._lock, self._connection.tidy_errors():
            if self._found is None:
                found = find_dialect(
                    self._connection, self._dialect, self.mode, model=self._model, path=self._path
                )
                self._found = replace(found, batch_size=self._batch_size or found.batch_size)
            return self._found

    def _ask(
        self, texts: Iterable[str], *, query: str = "", normalize: bool = True, truncate: Truncate
    ) -> Results:
        """texts -> requests of ``batch_size`` -> scores or vectors in input order."""
        check_truncate(truncate, allow_chunk=self.mode is Mode.RERANK)
        target = self._target()
        if truncate not in target.truncate:
            raise ModelModeError(
                f"a server of dialect {target.name!r} cannot be asked for truncate={truncate!r}; use "
                f"{' or '.join(map(repr, target.truncate))}"
            )
        values: list[NDArray[np.float32]] = []
        truncated: list[bool] = []
        n_tokens = 0
        for batch in windows(texts, target.batch_size):
            if self.mode is Mode.RERANK:
                body = rerank_body(target, query, batch, truncate)
            else:
                body = embed_body(target, batch, normalize=normalize, truncate=truncate)
            with self._connection.tidy_errors():
                part = read_answer(self._connection.ask(target.url, body), len(batch), target)
            values.append(part.values)
            truncated += part.truncated
            n_tokens += part.n_tokens
        check_widths([part.shape[1] for part in values if part.ndim == 2])
        return Results(np.concatenate(values) if values else np.empty(0, np.float32), truncated, n_tokens)

    def _scores(self, query: str, texts: list[str], truncate: Truncate) -> Results:
        """What `rank` orders by: logits, probabilities or cosines of checked texts, shape (n,)."""
        raise NotImplementedError


class RemoteReranker(_RemoteModel):
    """A cross-encoder on a server, with the calls of a `Llama` that is loaded to rerank.

    Nothing is asked before the first call. Safe to use from several threads; a context manager.

    Args:
        base_url: the server's address, with or without ``/v1``; Hugging Face's hosted inference by default.
        api_key: sent as ``Authorization: Bearer``; no error, log or repr shows it.
        model: the server's name for it, sent as it stands. Cohere's and Jina's dialects need one; else None
            is the one that the server has, and ``BAAI/bge-reranker-v2-m3`` of Hugging Face's.
        dialect: "auto" goes by the host's name, else asks the server, once; or "ggrank", "tei", "cohere",
            "jina", "jina-logits", "llama-server", "huggingface".
        path: replaces the dialect's path after ``base_url``; ``{model}`` in it becomes the model's name.
        batch_size: documents of one request; more are sent in several, one after the other. None: what the
            server or its dialect allows.
        timeout: seconds that the server may compute without an answer.
        retries: further attempts after 429, 502, 503, 504 or a lost connection, with growing pauses; a
            ``Retry-After`` of up to a minute is followed.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> from ggrank import RemoteReranker
        >>> with RemoteReranker("http://localhost:8080", api_key="secret") as reranker:
        ...     reranker
        RemoteReranker('http://localhost:8080', model=None, dialect='auto')
    """

    mode = Mode.RERANK

    def rerank(
        self, query: str, documents: Iterable[str], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores each document against the query.

        Args:
            query: any string.
            documents: any number, also from a generator.
            truncate: "end" cuts a document that is too long; "error" refuses it (ggrank, TEI, llama-server,
                which always does); "chunk" keeps the best window of it (ggrank).

        Returns:
            Shape (n,), float32, in input order, on the scale that ``score_scale`` says.

        Raises:
            RemoteError: no answer, a refusal, or scores that are missing, too many, no numbers, or not on the
                scale of the dialect.
            InputError: not strings; `RemoteInputError` where the server refuses the texts.
            ModelModeError: the server's model makes vectors, or it cannot truncate like that.
        """
        texts = check_texts(documents, "document")
        return self._scores(check_text(query, "the query"), texts, truncate).values

    def score_pairs(
        self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores (query, document) pairs of any kind: shape (n,), float32, as `rerank` does.

        The pairs of one query go together, so many queries are many requests.
        """
        found = list(check_pairs(pairs))
        positions: dict[str, list[int]] = {}
        for i, (query, _) in enumerate(found):
            positions.setdefault(query, []).append(i)
        scores = np.empty(len(found), np.float32)
        for query, indices in positions.items():
            scores[indices] = self._scores(query, (found[i][1] for i in indices), truncate).values
        return scores

    def _scores(self, query: str, texts: Iterable[str], truncate: Truncate) -> Results:
        return self._ask(texts, query=query, truncate=truncate)


class RemoteEmbedder(_RemoteModel):
    """An embedding model on a server, with the calls of a `Llama` that is loaded to embed.

    Nothing is asked before the first call. Safe to use from several threads; a context manager.

    Args:
        base_url: the server's address, with or without ``/v1``.
        model: the server's name for it, sent as it stands; dialects "openai" and "huggingface" need one.
        dialect: "auto" goes by the host's name, else asks the server, once; or "ggrank", "tei", "openai"
            (Jina's and Cohere's too), "llama-server", "huggingface".
        query_prefix, document_prefix: what `rank` and a `Pipeline` put before texts; no server reports them.
        api_key, path, batch_size, timeout, retries: as for `RemoteReranker`.

    Raises:
        InputError: an argument that cannot be used.

    Example:
        >>> from ggrank import RemoteEmbedder
        >>> RemoteEmbedder("https://api.openai.com/v1", api_key="secret", model="text-embedding-3-small")
        RemoteEmbedder('https://api.openai.com/v1', model='text-embedding-3-small', dialect='auto')
    """

    mode = Mode.EMBEDDING

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: str = "auto",
        path: str | None = None,
        query_prefix: str = "",
        document_prefix: str = "",
        batch_size: int | None = None,
        timeout: float = 120.0,
        retries: int = 3,
    ) -> None:
        self.query_prefix = check_text(query_prefix, "query_prefix")
        self.document_prefix = check_text(document_prefix, "document_prefix")
        self._n_embd: int | None = None
        super().__init__(
            base_url,
            api_key=api_key,
            model=model,
            dialect=dialect,
            path=path,
            batch_size=batch_size,
            timeout=timeout,
            retries=retries,
        )

    @property
    def n_embd(self) -> int:
        """Width of a vector; before the first vector came, the server is asked for one."""
        if self._n_embd is None:
            self._n_embd = int(self.embed("a").shape[0])
        return self._n_embd

    def embed(
        self, text: str, *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vector of one text: shape (n_embd,), float32. Arguments and errors: as `embed_many`."""
        texts = [check_text(text, "the text")]
        vector: NDArray[np.float32] = self.embed_many(
            texts, prefix=prefix, normalize=normalize, truncate=truncate
        )[0]
        return vector

    def embed_many(
        self, texts: Iterable[str], *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vectors of many texts, in input order.

        Args:
            texts: any number, also from a generator.
            prefix: put before each text.
            normalize: give the vectors length 1; otherwise they are as the server sends them, which from
                "openai" may be normalised all the same.
            truncate: "end", or "error" to refuse a text that is too long (not for "openai").

        Returns:
            Shape (n, n_embd), float32.

        Raises:
            RemoteError: no answer, a refusal, or vectors that are missing, too many, or no numbers.
            InputError: not strings; `RemoteInputError` where the server refuses the texts.
            ModelModeError: the server's model reranks, or it cannot truncate like that.
        """
        checked = (prefix + text for text in check_texts(texts, "text"))
        return self._vectors(checked, normalize=normalize, truncate=truncate).values

    def _scores(self, query: str, texts: list[str], truncate: Truncate) -> Results:
        first = self._vectors([self.query_prefix + query], truncate=truncate)
        if not texts:
            return Results(np.empty(0, np.float32), [], first.n_tokens)
        rest = self._vectors([self.document_prefix + text for text in texts], truncate=truncate)
        truncated = [first.truncated[0] or one for one in rest.truncated]
        return Results(cosine(first.values[0], rest.values), truncated, first.n_tokens + rest.n_tokens)

    def _vectors(self, texts: Iterable[str], *, normalize: bool = True, truncate: Truncate) -> Results:
        results = self._ask(texts, normalize=normalize, truncate=truncate)
        if not results.truncated:
            return Results(np.empty((0, self.n_embd), np.float32), [], 0)
        self._n_embd = results.values.shape[1]
        # Also where the server did, or cannot be asked to: twice changes nothing.
        return replace(results, values=l2_normalize(results.values)) if normalize else results
