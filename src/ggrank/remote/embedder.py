"""`RemoteEmbedder`: `Llama`'s calls for vectors, answered by a server.

Knows the calls and their order; not how a server is found, asked or read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ggrank.remote.arguments import check_batch_size, check_can_truncate, check_dialect, check_model
from ggrank.remote.connection import CONNECT_TIMEOUT, READ_TIMEOUT, RETRIES, Connection
from ggrank.remote.dialects import EMBED, EmbedCall, EmbedDialectName
from ggrank.remote.finding import EmbedTarget, find_embedder
from ggrank.remote.ranking import ranking_of
from ggrank.remote.reading import Results, read_vectors
from ggrank.scoring import choose_scale, cosine, l2_normalize
from ggrank.text.inputs import check_text, check_texts, check_threshold, check_top_n, check_truncate, windows
from ggrank.types import Mode, Ranking, Scale, ScoreScale, Truncate


class RemoteEmbedder:
    """An embedding model on a server, with the calls of a `Llama` that is loaded to embed.

    Nothing is asked before the first call. Safe to use from several threads; a context manager.

    Args:
        base_url: the server's address, with or without ``/v1``.
        model: the server's name for it; needed where the dialect is "openai" or "huggingface".
        dialect: "auto" asks the server, once; or "ggrank", "tei", "openai" (Jina's too), "llama-server",
            "huggingface".
        query_prefix, document_prefix: what `rank`, and a `Pipeline`, set before texts; no server tells them.
        api_key, batch_size, connect_timeout, read_timeout, retries: as for `RemoteReranker`.

    Raises:
        InputError: an argument that cannot be used, or httpx is not installed.

    Example:
        >>> from ggrank import RemoteEmbedder
        >>> RemoteEmbedder("https://api.openai.com/v1", api_key="secret", model="text-embedding-3-small")
        RemoteEmbedder('https://api.openai.com/v1', model='text-embedding-3-small', dialect='auto')
    """

    mode = Mode.EMBEDDING
    score_scale: Scale = "cosine"

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Literal["auto"] | EmbedDialectName = "auto",
        query_prefix: str = "",
        document_prefix: str = "",
        batch_size: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        check_dialect(dialect, EMBED)
        self.query_prefix = check_text(query_prefix, "query_prefix")
        self.document_prefix = check_text(document_prefix, "document_prefix")
        self._model = check_model(model)
        self._batch_size = check_batch_size(batch_size)
        self._dialect = dialect
        self._connection = Connection(
            base_url,
            api_key=api_key,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            retries=retries,
        )
        self._lock = threading.Lock()
        self._found: EmbedTarget | None = None
        self._n_embd: int | None = None

    @property
    def dialect(self) -> str:
        """The dialect that is spoken; asks the server where it is not known yet."""
        return self._target().dialect.name

    @property
    def model(self) -> str:
        """The model's name at the server; "" where it has one and need not be told. May ask the server."""
        return self._target().model

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
        vector: NDArray[np.float32] = self.embed_many(
            [check_text(text, "the text")], prefix=prefix, normalize=normalize, truncate=truncate
        )[0]
        return vector

    def embed_many(
        self, texts: Iterable[str], *, prefix: str = "", normalize: bool = True, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """The vectors of many texts, in input order.

        Args:
            texts: any number, also from a generator.
            prefix: set before each text.
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
        """Documents in order of their cosine with the query; arguments and errors: as `Llama.rank`."""
        check_top_n(top_n)
        check_threshold(threshold)
        with self._connection.key_hidden():
            scale = choose_scale(score, own="cosine", model=self._model or self._connection.base_url)
        query = check_text(query, "the query")
        texts = list(check_texts(documents, "document"))
        first = self._vectors([self.query_prefix + query], normalize=True, truncate=truncate)
        rest = Results([np.empty(0, np.float32)])
        if texts:
            found = self._vectors(
                (self.document_prefix + text for text in texts), normalize=True, truncate=truncate
            )
            cut = [one or first.truncated[0] for one in found.truncated]
            rest = Results([cosine(first.values[0], found.values)], cut, found.n_tokens)
        rest.n_tokens += first.n_tokens
        return ranking_of(texts, rest, own="cosine", scale=scale, top_n=top_n, threshold=threshold)

    def close(self) -> None:
        """Closes the connections. Any later call raises `ClosedError`; closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> RemoteEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"RemoteEmbedder({self._connection.base_url!r}, model={self._model!r}, dialect={self._dialect!r})"
        )

    def _target(self) -> EmbedTarget:
        """Found once: the first caller asks, the others wait for it."""
        with self._lock, self._connection.key_hidden():
            if self._found is None:
                self._found = find_embedder(
                    self._connection, self._dialect, model=self._model, batch_size=self._batch_size
                )
            return self._found

    def _vectors(self, texts: Iterable[str], *, normalize: bool, truncate: Truncate) -> Results:
        """texts -> requests of ``batch_size`` -> vectors in input order."""
        check_truncate(truncate, allow_chunk=False)
        target = self._target()
        dialect = target.dialect
        check_can_truncate(truncate, dialect.truncate, dialect.name)
        results = Results()
        for batch in windows(texts, target.batch_size):
            call = EmbedCall(target.model, batch, normalize, truncate)
            with self._connection.key_hidden():
                answer = self._connection.post(target.path, dialect.body(call))
                read_vectors(answer, len(batch), rows=dialect.rows, into=results)
        if not results.parts:
            return Results([np.empty((0, self.n_embd), np.float32)])
        if normalize:  # also where the server did, or was not asked to: twice changes nothing
            results.parts = [l2_normalize(part) for part in results.parts]
        self._n_embd = results.parts[0].shape[1]
        return results
