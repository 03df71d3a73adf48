"""`Service`: the models by name, and what can be asked of them from an event loop.

Knows models and texts; no HTTP and no dialect. Whatever takes time runs in threads: texts become tokens in
one thread a request, and each model computes in one of its own (`ggrank.server.worker`).
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Literal, TypeVar

from ggrank.errors import InputError, ModelModeError
from ggrank.hub.presets import check_dimensions
from ggrank.loading.model import load_model
from ggrank.loading.params import LlamaParams
from ggrank.server.errors import FieldError, NotReadyError, OverloadedError, TooLongError, naming
from ggrank.server.limits import check_number, check_tokens
from ggrank.server.served import Embedded as Embedded
from ggrank.server.served import Reranked as Reranked
from ggrank.server.served import ServedModel as ServedModel
from ggrank.server.served import served_model
from ggrank.server.settings import ServerSettings
from ggrank.server.shared import SharedLlama
from ggrank.server.worker import CURRENT, Request
from ggrank.types import Mode, PoolingType, ScoreScale, Truncate

T = TypeVar("T")

Role = Literal["query", "document", "neither"]
"""What texts are to a model that sets another prefix before a query than before a document."""

MOST_RETRY_SECONDS = 60
"""A caller is never told to wait longer than this."""

MOST_SCORE = 3e38
"""No float32 is larger, and a threshold beyond it could not be compared with one."""

N_PROBES = 4
"""Health checks that may wait at the same time, should a model hang."""


class Service:
    """The models of one server.

    Not ready until `load` has ended; until then, and after `close`, every question raises `NotReadyError`.

    Every question may raise `OverloadedError`, `TooLargeError` (413), `InputError`, `ModelModeError` and
    `EngineError`. A name that is not served means the default model: clients of other servers insist on
    sending the names of those. When the caller's task is cancelled, what waits for it is dropped.

    Example:
        >>> import asyncio
        >>> service = Service()
        >>> service.load([LlamaParams("all-minilm-l6-v2")])
        >>> embedded = asyncio.run(service.embed(["a text"]))
        >>> embedded.model.name, embedded.vectors.shape, embedded.n_tokens
        ('all-minilm-l6-v2', (1, 384), 4)
        >>> service.close()
    """

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self.is_ready = False
        self.on_added: Callable[[str, SharedLlama], None] = lambda name, llama: None
        self._llamas: dict[str, SharedLlama] = {}
        self._models: dict[str, ServedModel] = {}
        self._n_requests = 0
        self._lock = threading.Lock()
        # A thread for each request that may be in, and for the health check.
        n_threads = self.settings.max_queue + N_PROBES
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="ggrank-request")

    def load(self, models: Sequence[LlamaParams]) -> None:
        """Loads and warms the models; the first of each kind is that kind's default.

        Raises:
            GgrankError: what `Llama.load` raises; two models of one name; a model without pooling.
        """
        names = [_name(params) for params in models]
        for name in names:
            if names.count(name) > 1:
                raise _two_of(name)
        for name, params in zip(names, models, strict=True):
            self.add(name, SharedLlama(load_model(params)))
        for llama in self._llamas.values():
            llama.rank("warm", ["up"])
        self.is_ready = True

    def add(self, name: str, llama: SharedLlama) -> None:
        """Serves a loaded model; the service closes it."""
        if name in self._llamas:
            raise _two_of(name)
        if llama.pooling_type is PoolingType.NONE:
            raise ModelModeError(f"{name} does not pool, so a text has no one vector; it cannot be served")
        self._llamas[name] = llama
        self._models[name] = served_model(name, llama)
        self.on_added(name, llama)

    def models(self) -> tuple[ServedModel, ...]:
        """All models, in the order in which they were given.

        Raises:
            NotReadyError: they are still being loaded.
        """
        if not self.is_ready:
            raise NotReadyError("the models are not ready; ask again in a few seconds, or ask /health")
        return tuple(self._models.values())

    def llamas(self) -> dict[str, SharedLlama]:
        """The loaded models by name: for metrics and the health check."""
        return dict(self._llamas)

    @property
    def n_requests(self) -> int:
        """Requests that are at work or wait."""
        return self._n_requests

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        model: str | None = None,
        top_n: int | None = None,
        threshold: float | None = None,
        score: ScoreScale = "auto",
        truncate: Truncate = "end",
        name: str = "documents",
    ) -> Reranked:
        """Documents in order, best first; arguments as for `Llama.rank`.

        Args:
            model: a reranker's name, or an embedder's, which ranks by cosine; anything else is the default
                reranker, or the default embedder where no reranker is served.
            name: what the caller calls the documents, for errors.
        """
        chosen = self._choose(model, Mode.RERANK, Mode.EMBEDDING)
        check_number(self.settings, documents, name)
        llama = self._llamas[chosen]
        _check_chunk(truncate, llama, chosen)
        if top_n is not None and top_n > len(documents):
            top_n = max(1, len(documents))  # Python's own tools refuse numbers of more than 63 bits.
        if threshold is not None and abs(threshold) > MOST_SCORE:
            threshold = math.copysign(MOST_SCORE, threshold)
        with naming(name):
            ranking = await self._ask(
                llama,
                lambda: llama.rank(
                    query, documents, top_n=top_n, threshold=threshold, score=score, truncate=truncate
                ),
            )
        return Reranked(self._models[chosen], ranking)

    async def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        model: str | None = None,
        normalize: bool = True,
        truncate: Truncate = "end",
        prefix: str = "",
        role: Role = "neither",
        dimensions: int | None = None,
        name: str = "texts",
    ) -> Embedded:
        """A vector for each text; arguments as for `Llama.embed`.

        Args:
            texts: strings, or lists of the model's own token ids between its special tokens.
            prefix: set before each text; comes before the one of ``role``.
            role: "query" or "document": the model's own prefix of that name is set before each text.
            dimensions: cut the vectors to one of the widths that the model was trained with.
            name: what the caller calls the texts, for errors.
        """
        chosen = self._choose(model, Mode.EMBEDDING)
        check_number(self.settings, texts, name)
        llama = self._llamas[chosen]
        _check_chunk(truncate, llama, chosen)
        if dimensions is not None:
            with naming("dimensions"):
                check_dimensions(dimensions, model=chosen, n_embd=llama.n_embd, trained=llama.matryoshka)
        own = {"query": llama.query_prefix, "document": llama.document_prefix}.get(role, "")
        with naming(name):
            found = await self._ask(
                llama,
                lambda: llama.vectors(
                    texts, prefix=prefix or own, dimensions=dimensions, normalize=normalize, truncate=truncate
                ),
            )
        return Embedded(self._models[chosen], found.values, found.n_tokens, found.truncated)

    async def tokenize(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        add_special: bool = True,
        name: str = "texts",
    ) -> list[list[int]]:
        """Token ids of each text, not cut; by default with the special tokens of a single text."""
        llama = self._llamas[self._choose(model, Mode.RERANK, Mode.EMBEDDING)]
        check_number(self.settings, texts, name)
        tokens_of = llama.framed if add_special else llama.tokenize

        def tokenize() -> list[list[int]]:
            lists: list[list[int]] = []
            n_tokens = 0
            for text in texts:
                lists.append(tokens_of(text).tolist())
                n_tokens += len(lists[-1])
                check_tokens(self.settings, n_tokens, name)
            return lists

        return await self._ask(llama, tokenize)

    async def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        """The text of token ids, special tokens left out."""
        [text] = await self.detokenize_many([tokens], model=model)
        return text

    async def detokenize_many(
        self, lists: Sequence[Sequence[int]], *, model: str | None = None, name: str = "tokens"
    ) -> list[str]:
        """The text of each list of token ids, special tokens left out."""
        llama = self._llamas[self._choose(model, Mode.RERANK, Mode.EMBEDDING)]
        check_tokens(self.settings, sum(map(len, lists)), name)
        with naming(name):
            return await self._ask(llama, lambda: [llama.detokenize(tokens) for tokens in lists])

    async def probe(self, name: str) -> None:
        """Computes two lines before everything that waits, and raises what goes wrong in it."""
        llama = self._llamas[name]
        await self._in_thread(llama, Request(is_urgent=True), lambda: llama.rank("Is it well?", ["It is."]))

    def close(self) -> None:
        """Frees the models; whoever still waits gets an error. Twice is fine."""
        self.is_ready = False
        for llama in self._llamas.values():
            llama.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _choose(self, model: str | None, *modes: Mode) -> str:
        """The model of that name if it does one of the jobs, else the first that does the first of them."""
        self.models()  # raises until they are ready
        if self.settings.strict_models and model is not None and model not in self._models:
            names = ", ".join(self._models)
            raise FieldError(f"no model {model[:100]!r} is served here, only {names}", field="model")
        if model in self._models and self._models[model].mode in modes:
            return model
        for mode in modes:
            for name, served in self._models.items():
                if served.mode is mode:
                    return name
        kind = "reranker" if modes[0] is Mode.RERANK else "embedder"
        raise ModelModeError(f"no {kind} is served here; start the server with --{kind}")

    async def _ask(self, llama: SharedLlama, call: Callable[[], T]) -> T:
        self._admit(llama)
        return await self._in_thread(llama, Request(max_tokens=self.settings.max_tokens), call)

    def _admit(self, llama: SharedLlama) -> None:
        waiting, most = llama.worker.n_waiting_tokens, self.settings.max_queue_tokens
        if self._n_requests < self.settings.max_queue and waiting < most:
            return
        seconds = _retry_after(llama)
        raise OverloadedError(
            f"{self._n_requests} requests with {waiting:,} tokens are waiting, as many as may (--max-queue, "
            f"--max-queue-tokens); ask again in {seconds} s",
            retry_after=seconds,
        )

    async def _in_thread(self, llama: SharedLlama, request: Request, call: Callable[[], T]) -> T:
        context = copy_context()
        context.run(CURRENT.set, request)
        try:
            future = self._pool.submit(context.run, call)
        except RuntimeError:
            raise NotReadyError("the server is stopping; ask another, or again in a few seconds") from None
        with self._lock:
            self._n_requests += 1
        future.add_done_callback(self._count_down)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise TooLongError(
                f"the request was not done after {self.settings.timeout:g} s; send less, ask again later, or "
                "start the server with a longer --timeout",
                retry_after=_retry_after(llama),
            ) from None
        finally:
            request.cancel()  # Nothing waits for it any more, however this ended.

    def _count_down(self, future: Future[T]) -> None:
        with self._lock:
            self._n_requests -= 1


def _two_of(name: str) -> InputError:
    return InputError(f"two models are named {name!r}; leave one out, or give each file a name of its own")


def _check_chunk(truncate: Truncate, llama: SharedLlama, name: str) -> None:
    if truncate == "chunk" and llama.mode is Mode.EMBEDDING:
        raise FieldError(f"truncate 'chunk' is for rerankers; {name} is an embedding model", field="truncate")


def _retry_after(llama: SharedLlama) -> int:
    """Seconds until what waits for the model is computed."""
    return min(MOST_RETRY_SECONDS, 1 + int(llama.worker.n_waiting_tokens / llama.worker.tokens_per_second))


def _name(params: LlamaParams) -> str:
    """A file's own name without its ending; a preset's or a repo's as it was given."""
    given = str(params.model)
    return Path(given).name.removesuffix(".gguf") if given.endswith(".gguf") else given
