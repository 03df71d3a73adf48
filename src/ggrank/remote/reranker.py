"""`RemoteReranker`: `Llama`'s calls for scores, answered by a server.

Knows the calls and their order; not how a server is found, asked or read.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ModelModeError
from ggrank.remote.arguments import check_batch_size, check_can_truncate, check_dialect, check_model
from ggrank.remote.connection import CONNECT_TIMEOUT, READ_TIMEOUT, RETRIES, Connection
from ggrank.remote.dialects import HUGGING_FACE, RERANK, RerankCall, RerankDialectName
from ggrank.remote.finding import RerankTarget, find_reranker
from ggrank.remote.ranking import ranking_of
from ggrank.remote.reading import Results, check_probabilities, read_scores
from ggrank.scoring import choose_scale
from ggrank.text.inputs import (
    check_pairs,
    check_text,
    check_texts,
    check_threshold,
    check_top_n,
    check_truncate,
    windows,
)
from ggrank.types import Mode, Ranking, Scale, ScoreScale, Truncate


class RemoteReranker:
    """A cross-encoder on a server, with the calls of a `Llama` that is loaded to rerank.

    Nothing is asked before the first call. Safe to use from several threads; a context manager.

    Args:
        base_url: the server's address, with or without ``/v1``; Hugging Face's hosted inference by default.
        api_key: sent as ``Authorization: Bearer``; no error, log or repr shows it.
        model: the server's name for it. None: the one that the server has (ggrank, TEI, llama-server), else
            ``BAAI/bge-reranker-v2-m3``.
        dialect: "auto" asks the server, once; or "ggrank", "tei", "cohere" (v2), "cohere-v1", "jina",
            "jina-logits", "llama-server", "huggingface".
        batch_size: documents of one request; more are sent in several, one after the other. None: what the
            server or its dialect allows.
        connect_timeout: seconds for a connection to stand.
        read_timeout: seconds of silence while the server computes.
        retries: further attempts after 429, 502, 503, 504 or a lost connection, with growing pauses; a
            ``Retry-After`` of up to a minute is kept.

    Raises:
        InputError: an argument that cannot be used, or httpx is not installed.

    Example:
        >>> from ggrank import RemoteReranker
        >>> with RemoteReranker("http://localhost:8080", api_key="secret") as reranker:
        ...     reranker
        RemoteReranker('http://localhost:8080', model=None, dialect='auto')
    """

    mode = Mode.RERANK

    def __init__(
        self,
        base_url: str = HUGGING_FACE,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Literal["auto"] | RerankDialectName = "auto",
        batch_size: int | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        check_dialect(dialect, RERANK)
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
        self._found: RerankTarget | None = None

    @property
    def dialect(self) -> str:
        """The dialect that is spoken; asks the server where it is not known yet."""
        return self._target().dialect.name

    @property
    def model(self) -> str:
        """The model's name at the server; "" where it has one and need not be told. May ask the server."""
        return self._target().model

    @property
    def score_scale(self) -> Scale:
        """What scores are: "logit" from ggrank, TEI, llama-server and "jina-logits" (a ggrank server may say
        "probability"); "probability", 0 to 1, from Cohere, Jina and Hugging Face. May ask the server.
        """
        return self._target().scale

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
        return self._scores(
            check_text(query, "the query"), check_texts(documents, "document"), truncate
        ).values

    def score_pairs(
        self, pairs: Iterable[tuple[str, str]], *, truncate: Truncate = "end"
    ) -> NDArray[np.float32]:
        """Scores (query, document) pairs of any kind: shape (n,), float32, as `rerank` does.

        The pairs of one query go together, so many queries are many requests.
        """
        found = list(check_pairs(pairs))
        places: dict[str, list[int]] = {}
        for i, (query, _) in enumerate(found):
            places.setdefault(query, []).append(i)
        scores = np.empty(len(found), np.float32)
        for query, indices in places.items():
            scores[indices] = self._scores(query, (found[i][1] for i in indices), truncate).values
        return scores

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
        """Documents in order, best first; arguments and errors are those of `Llama.rank` and `rerank`.

        Args:
            score: "logit" or "sigmoid" where the server gives logits; "sigmoid" where it gives 0..1, which
                then stay as they are; "auto" for the server's own.

        Returns:
            ``logit`` is None where the server gives none; ``truncated`` is True only where a ggrank server
            says so, and ``n_tokens`` is 0 where the server does not count.
        """
        check_top_n(top_n)
        check_threshold(threshold)
        query = check_text(query, "the query")
        texts = list(check_texts(documents, "document"))
        own = self.score_scale
        scale = self._choose(score, own)
        results = self._scores(query, texts, truncate)
        return ranking_of(texts, results, own=own, scale=scale, top_n=top_n, threshold=threshold)

    def close(self) -> None:
        """Closes the connections. Any later call raises `ClosedError`; closing twice is fine."""
        self._connection.close()

    def __enter__(self) -> RemoteReranker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"RemoteReranker({self._connection.base_url!r}, model={self._model!r}, dialect={self._dialect!r})"
        )

    def _target(self) -> RerankTarget:
        """Found once: the first caller asks, the others wait for it."""
        with self._lock, self._connection.key_hidden():
            if self._found is None:
                self._found = find_reranker(
                    self._connection, self._dialect, model=self._model, batch_size=self._batch_size
                )
            return self._found

    def _choose(self, score: ScoreScale, own: Scale) -> Scale:
        if score == "logit" and own != "logit":
            raise ModelModeError(
                f"score='logit' is not what {self._connection.base_url} gives: its scores are {own} already, "
                "0 to 1; use 'auto'"
            )
        with self._connection.key_hidden():
            return choose_scale(score, own=own, model=self.model or self._connection.base_url)

    def _scores(self, query: str, documents: Iterable[str], truncate: Truncate) -> Results:
        """documents -> requests of ``batch_size`` -> scores in input order."""
        check_truncate(truncate, allow_chunk=True)
        target = self._target()
        dialect = target.dialect
        check_can_truncate(truncate, dialect.truncate, dialect.name)
        results = Results([np.empty(0, np.float32)])
        for batch in windows(documents, target.batch_size):
            call = RerankCall(target.model, query, batch, truncate)
            with self._connection.key_hidden():
                answer = self._connection.post(target.path, dialect.body(call))
                read_scores(answer, len(batch), results=dialect.results, score=dialect.score, into=results)
            if target.scale == "probability":
                check_probabilities(results.parts[-1], dialect.name)
        return results
