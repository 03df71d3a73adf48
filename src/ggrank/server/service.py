"""`Service`: the models by name, and what can be asked of them. No HTTP and no dialect.

Its questions wait for the answer: `Service.in_thread` is how an event loop asks them. Each model computes in
a thread of its own (`ggrank.server.worker`).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelModeError
from ggrank.hub.presets import check_dimensions
from ggrank.loading.params import LlamaParams
from ggrank.server.errors import RefusedError, naming
from ggrank.server.settings import ServerSettings
from ggrank.server.worker import CURRENT, Request, SharedLlama
from ggrank.types import Mode, PoolingType, Ranking, Scale, ScoreScale, Truncate

T = TypeVar("T")

Role = Literal["query", "document", "neither"]
"""What texts are to a model that sets another prefix before a query than before a document."""

LOADING_SECONDS = 2
"""When to ask again while models are loaded."""

MOST_RETRY_SECONDS = 60
"""A caller is never asked to wait longer than this."""

MOST_SCORE = 3e38
"""No float32 is larger, and a threshold beyond it could not be compared with one."""

N_PROBES = 4
"""Health checks that may wait at the same time, should a model hang."""


@dataclass(frozen=True)
class ModelFacts:
    """What callers may know of a model; ``n_ctx`` is its longest text, or query and document, in tokens."""

    mode: Mode
    pooling: str
    n_ctx: int
    n_embd: int
    score_scale: Scale
    engine: str
    device: str
    file: str
    quantization: str


class ServedModel:
    """A model under the name that callers use, loaded or not; without ``load`` it stays loaded.

    Attributes:
        written: when its file was, in Unix seconds.
    """

    def __init__(self, name: str, llama: SharedLlama, load: Callable[[], SharedLlama] | None) -> None:
        self.name = name
        self.llama: SharedLlama | None = llama
        self.matryoshka = llama.matryoshka
        self.written = int(llama.model_path.stat().st_mtime)
        own = ("mode", "n_ctx", "n_embd", "score_scale", "engine", "device", "quantization")
        self.facts = ModelFacts(
            **{name: getattr(llama, name) for name in own},
            pooling=llama.pooling_type.name.lower(),
            file=llama.model_path.name,
        )
        self._load = load
        self._lock = threading.Lock()
        self._n_users = 0
        self._last_use = time.monotonic()

    @contextmanager
    def using(self) -> Iterator[SharedLlama]:
        """The model, loaded for this use if it has to be."""
        with self._lock:
            if self.llama is None and self._load is not None:
                self.llama = self._load()
            assert self.llama is not None  # what cannot be loaded again is never unloaded
            llama = self.llama
            self._n_users += 1
        try:
            yield llama
        finally:
            with self._lock:
                self._n_users -= 1
                self._last_use = time.monotonic()

    def unload_after(self, seconds: float) -> None:
        """Frees the model if its last use ended so long ago, and nothing uses it."""
        with self._lock:
            is_idle = self._n_users == 0 and time.monotonic() - self._last_use >= seconds
            if is_idle and self.llama is not None and self._load is not None:
                self.llama.close()
                self.llama = None


@dataclass(frozen=True)
class Reranked:
    """A ranking, and the name of the model that computed it."""

    model: str
    ranking: Ranking


@dataclass(frozen=True)
class Embedded:
    """Vectors in input order, shape (n, n_embd), float32, and the name of the model that computed them."""

    model: str
    vectors: NDArray[np.float32]
    n_tokens: int
    truncated: list[bool]


class Service:
    """The models of one server.

    Not ready until `load` has ended; until then, and after `close`, every question raises `RefusedError`.

    A name that is not served means the default model, unless `ServerSettings.strict_models`: clients of other
    services insist on sending the names of those.

    Example:
        >>> service = Service()
        >>> service.load([LlamaParams("all-minilm-l6-v2")])
        >>> embedded = service.embed(["a text"])
        >>> embedded.model, embedded.vectors.shape, embedded.n_tokens
        ('all-minilm-l6-v2', (1, 384), 4)
        >>> service.close()
    """

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self.is_ready = False
        self._served: dict[str, ServedModel] = {}
        self.on_loaded: Callable[[str, SharedLlama], None] = lambda name, llama: None
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
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"two models are named {twice!r}; leave one out, or give each file a name of its own"
            )
        for name, params in zip(names, models, strict=True):
            load = partial(self._load, name, params)
            self._served[name] = ServedModel(name, load(), load)
        for served in self._served.values():
            with served.using() as llama:
                llama.rank("warm", ["up"])
        self.is_ready = True

    def add(self, name: str, llama: SharedLlama) -> None:
        """Serves a loaded model, which cannot be unloaded; the service closes it."""
        self.on_loaded(name, llama)
        self._served[name] = ServedModel(name, llama, None)

    def _load(self, name: str, params: LlamaParams) -> SharedLlama:
        llama = cast(SharedLlama, SharedLlama.load(params))
        if llama.pooling_type is PoolingType.NONE:
            raise ModelModeError(f"{name} does not pool, so a text has no one vector; it cannot be served")
        self.on_loaded(name, llama)
        return llama

    def models(self) -> tuple[ServedModel, ...]:
        """All models, in the order in which they were given.

        Raises:
            RefusedError: they are still being loaded.
        """
        if not self.is_ready:
            message = "the models are not ready; ask again in a few seconds, or ask /health"
            raise RefusedError(message, status=503, retry_after=LOADING_SECONDS)
        return tuple(self._served.values())

    def llamas(self) -> dict[str, SharedLlama]:
        """The models that are loaded now, by name."""
        return {name: one.llama for name, one in self._served.items() if one.llama is not None}

    def unload_idle(self) -> None:
        """Frees the models without a request for `ServerSettings.idle_unload` minutes."""
        if self.is_ready and self.settings.idle_unload is not None:
            for served in self._served.values():
                served.unload_after(60 * self.settings.idle_unload)

    @property
    def n_requests(self) -> int:
        """Requests that are at work or wait."""
        return self._n_requests

    def rerank(
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
            model: an embedder ranks by cosine whatever ``score`` is.
            top_n: 0 and less is all of them, as vLLM has it.
            name: what the caller calls the documents, for errors.
        """
        served = self._choose(model, Mode.RERANK, Mode.EMBEDDING)
        if top_n is not None:
            # Python's own tools refuse numbers of more than 63 bits.
            top_n = None if top_n <= 0 else min(top_n, max(1, len(documents)))
        if threshold is not None and abs(threshold) > MOST_SCORE:
            threshold = math.copysign(MOST_SCORE, threshold)
        with naming(name), self._admitted(served, truncate) as llama:
            ranking = llama.rank(
                query,
                documents,
                top_n=top_n,
                threshold=threshold,
                score="auto" if served.facts.mode is Mode.EMBEDDING else score,
                truncate=truncate,
            )
        return Reranked(served.name, ranking)

    def embed(
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
            role: the model's own prefix of that name is set before each text, unless ``prefix`` is.
            dimensions: cut the vectors to one of the widths that the model was trained with.
            name: what the caller calls the texts, for errors.
        """
        served = self._choose(model, Mode.EMBEDDING)
        if dimensions is not None:
            with naming("dimensions"):
                check_dimensions(
                    dimensions, model=served.name, n_embd=served.facts.n_embd, trained=served.matryoshka
                )
        with naming(name), self._admitted(served, truncate) as llama:
            own = {"query": llama.query_prefix, "document": llama.document_prefix}.get(role, "")
            found = llama.vectors(
                texts, prefix=prefix or own, dimensions=dimensions, normalize=normalize, truncate=truncate
            )
        return Embedded(served.name, *found)

    def tokenize(
        self, texts: Sequence[str], *, model: str | None = None, add_special: bool = True, name: str
    ) -> list[list[int]]:
        """Token ids of each text, not cut; by default with the special tokens of a single text."""
        lists: list[list[int]] = []
        n_tokens = 0
        with self._admitted(self._choose(model, Mode.RERANK, Mode.EMBEDDING)) as llama:
            tokens_of = llama.framed if add_special else llama.tokenize
            for text in texts:
                lists.append(tokens_of(text).tolist())
                n_tokens += len(lists[-1])
                self._check_tokens(n_tokens, name)
        return lists

    def detokenize(self, lists: Sequence[Sequence[int]], *, model: str | None = None, name: str) -> list[str]:
        """The text of each list of token ids, special tokens left out."""
        self._check_tokens(sum(map(len, lists)), name)
        with naming(name), self._admitted(self._choose(model, Mode.RERANK, Mode.EMBEDDING)) as llama:
            return [llama.detokenize(tokens) for tokens in lists]

    def _check_tokens(self, n_tokens: int, name: str) -> None:
        most = self.settings.max_tokens
        if n_tokens > most:
            raise RefusedError(
                f"{name}: more than {most:,} tokens in one request; send fewer at a time, or start the "
                "server with a larger --max-tokens",
                status=413,
                field=name,
            )

    def _choose(self, model: str | None, *modes: Mode) -> ServedModel:
        """The model of that name if it does one of the jobs, else the first that does the first of them."""
        self.models()  # raises until they are ready
        served = self._served
        if self.settings.strict_models and model is not None and model not in served:
            message = f"no model {model[:100]!r} is served here, only {', '.join(served)}"
            raise RefusedError(message, field="model")
        if model in served and served[model].facts.mode in modes:
            return served[model]
        for mode in modes:
            for one in served.values():
                if one.facts.mode is mode:
                    return one
        kind = "reranker" if modes[0] is Mode.RERANK else "embedder"
        raise ModelModeError(f"no {kind} is served here; start the server with --{kind}")

    @contextmanager
    def _admitted(self, served: ServedModel, truncate: Truncate = "end") -> Iterator[SharedLlama]:
        if truncate == "chunk" and served.facts.mode is Mode.EMBEDDING:
            message = f"truncate 'chunk' is for rerankers; {served.name} is an embedding model"
            raise RefusedError(message, field="truncate")
        with served.using() as llama:
            if llama.worker.n_waiting_tokens >= self.settings.max_queue_tokens:
                raise self._overloaded()
            yield llama

    def check_queue(self) -> None:
        """Raises RefusedError (429) where as many requests are in as may be."""
        if self._n_requests >= self.settings.max_queue:
            raise self._overloaded()

    def _overloaded(self) -> RefusedError:
        seconds = self._retry_after()
        return RefusedError(
            f"{self._n_requests} requests are at work or waiting, as many as may (--max-queue, "
            f"--max-queue-tokens); ask again in {seconds} s",
            status=429,
            retry_after=seconds,
        )

    def _retry_after(self) -> int:
        """Seconds until what waits now is computed."""
        workers = [llama.worker for llama in self.llamas().values()]
        seconds = max((w.n_waiting_tokens / w.tokens_per_second for w in workers), default=0)
        return min(MOST_RETRY_SECONDS, 1 + int(seconds))

    async def in_thread(self, call: Callable[[], T]) -> T:
        """What a question gives, asked in a thread; when the caller's task is cancelled, it is dropped.

        Raises:
            RefusedError: as many requests are in as may be; it took longer than a request may.
        """
        self.check_queue()
        request = Request(max_tokens=self.settings.max_tokens)
        future = self._submit(request, call)
        with self._lock:
            self._n_requests += 1
        future.add_done_callback(self._count_down)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.settings.timeout)
        except (TimeoutError, asyncio.TimeoutError):
            raise RefusedError(
                f"the request was not done after {self.settings.timeout:g} s; send less, ask again later, or "
                "start the server with a longer --timeout",
                status=503,
                retry_after=self._retry_after(),
            ) from None
        finally:
            request.cancel()  # Nothing waits for it any more, however this ended.

    async def probe(self, llama: SharedLlama) -> None:
        """Computes two lines before everything that waits, and raises what goes wrong in it; no use of it."""
        request = Request(is_urgent=True)
        await asyncio.wrap_future(self._submit(request, lambda: llama.rank("Is it well?", ["It is."])))

    def _submit(self, request: Request, call: Callable[[], T]) -> Future[T]:
        context = copy_context()
        context.run(CURRENT.set, request)
        try:
            return self._pool.submit(context.run, call)
        except RuntimeError:
            message = "the server is stopping; ask another, or again in a few seconds"
            raise RefusedError(message, status=503) from None

    def _count_down(self, future: Future[T]) -> None:
        with self._lock:
            self._n_requests -= 1

    def close(self) -> None:
        """Frees the models; requests that still wait get an error. Twice is fine."""
        self.is_ready = False
        for llama in self.llamas().values():
            llama.close()
        self._pool.shutdown(wait=True, cancel_futures=True)


def _name(params: LlamaParams) -> str:
    """A file's own name without its ending; a preset's or a repo's as it was given."""
    given = str(params.model)
    return Path(given).name.removesuffix(".gguf") if given.endswith(".gguf") else given
