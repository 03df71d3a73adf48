"""`Service`: the models by name, the index, and how many requests may be in. No HTTP and no dialect.

Each model computes in a thread of its own (`ggrank.server.worker`), and each request waits in one
(`Service.in_thread`), so that the event loop only moves bytes.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

from ggrank.errors import InputError, ModelModeError, SearchIndexError
from ggrank.loading.params import LlamaParams
from ggrank.search.index import Index
from ggrank.server.errors import RefusedError
from ggrank.server.settings import ServerSettings
from ggrank.server.worker import CURRENT, Request, SharedLlama
from ggrank.types import Mode, PoolingType, Scale

T = TypeVar("T")

LOADING_SECONDS = 2
"""When to ask again while models are loaded."""

MOST_RETRY_SECONDS = 60
"""A caller is never asked to wait longer than this."""

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
    """A model under the name that callers use, loaded or not; ``load`` loads it again."""

    def __init__(self, name: str, llama: SharedLlama, load: Callable[[], SharedLlama]) -> None:
        self.name = name
        self.llama: SharedLlama | None = llama
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
            llama = self.llama = self.llama or self._load()
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
            if is_idle and self.llama is not None:
                self.llama.close()
                self.llama = None


class Service:
    """The models of one server; until `load` has ended, and after `close`, it refuses every request.

    Example:
        >>> from ggrank.types import Mode
        >>> service = Service()
        >>> service.load([LlamaParams("all-minilm-l6-v2")])
        >>> with service.model(None, Mode.EMBEDDING) as (name, llama):
        ...     name, llama.embed("a text").shape
        ('all-minilm-l6-v2', (384,))
        >>> service.close()
    """

    def __init__(self, settings: ServerSettings | None = None) -> None:
        self.settings = settings or ServerSettings()
        self.is_ready = False
        self.on_loaded: Callable[[str, SharedLlama], None] = lambda name, llama: None
        self.n_requests = 0  # at work or waiting
        self._served: dict[str, ServedModel] = {}
        self._index: Index | None = None
        self._index_model = ""
        self._lock = threading.Lock()
        # A thread for each request that may be in, and for the health check.
        n_threads = self.settings.max_queue + N_PROBES
        self._pool = ThreadPoolExecutor(n_threads, thread_name_prefix="ggrank-request")

    # -- what is served

    def load(self, models: Sequence[LlamaParams]) -> None:
        """Loads and warms the models, the first of each kind as that kind's default, and opens the index.

        Raises:
            GgrankError: what `Llama.load` and `Index.open` raise; two models of one name; a model without
                pooling; an index of a model that is not served.
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
        if self.settings.index is not None:
            self._open_index(self.settings.index)
        self.is_ready = True

    def _load(self, name: str, params: LlamaParams) -> SharedLlama:
        llama = cast(SharedLlama, SharedLlama.load(params))
        if llama.pooling_type is PoolingType.NONE:
            raise ModelModeError(f"{name} does not pool, so a text has no one vector; it cannot be served")
        self.on_loaded(name, llama)
        return llama

    def _open_index(self, folder: Path) -> None:
        with Index.open(folder) as index:
            made = index.settings
        for served in self._served.values():
            if served.facts.mode is Mode.EMBEDDING:
                with served.using() as llama, suppress(SearchIndexError):
                    self._index, self._index_model = Index.open(folder, embedder=llama), served.name
                    return
        pooling = made.pooling_type.lower()
        raise InputError(
            f"the index in {folder} was made with {Path(made.model).name}, and no such embedder is served; "
            f"start the server with --embedder {made.model}{pooling and f',pooling_type={pooling}'}"
        )

    def models(self) -> tuple[ServedModel, ...]:
        """All models, in the order in which they were given. Raises RefusedError while they are loaded."""
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

    def close(self) -> None:
        """Frees the models; requests that still wait get an error. Twice is fine."""
        self.is_ready = False
        for llama in self.llamas().values():
            llama.close()
        if self._index is not None:
            self._index.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    # -- for the thread of a request

    @contextmanager
    def model(self, name: str | None, *modes: Mode) -> Iterator[tuple[str, SharedLlama]]:
        """The model that answers a request for ``name``, and its own name; loaded if it has to be.

        It is that of the name if it has one of the modes, else the first that has the first of them: clients
        of other services insist on sending the names of those.

        Raises:
            RefusedError: too much waits for it; with `ServerSettings.strict_models`, no such name.
            ModelModeError: no model has one of the modes.
        """
        served = self._choose(name, *modes)
        with served.using() as llama:
            if llama.worker.n_waiting_tokens >= self.settings.max_queue_tokens:
                raise self._overloaded()
            yield served.name, llama

    def _choose(self, name: str | None, *modes: Mode) -> ServedModel:
        served = {one.name: one for one in self.models()}
        if self.settings.strict_models and name is not None and name not in served:
            message = f"model: {name[:100]!r} is not served here, only {', '.join(served)}"
            raise RefusedError(message, field="model")
        if name in served and served[name].facts.mode in modes:
            return served[name]
        for mode in modes:
            for one in served.values():
                if one.facts.mode is mode:
                    return one
        kind = "reranker" if modes[0] is Mode.RERANK else "embedder"
        raise ModelModeError(f"no {kind} is served here; start the server with --{kind}")

    @contextmanager
    def index(self) -> Iterator[Index]:
        """The server's index with its model, for `ServerSettings.index`."""
        with self.model(self._index_model, Mode.EMBEDDING) as (_, llama):
            if self._index is None or self._index.embedder is not llama:  # it was unloaded meanwhile
                self._index = Index.open(cast(Path, self.settings.index), embedder=llama)
            yield self._index

    # -- for the event loop

    def check_queue(self) -> None:
        """Raises RefusedError (429) where as many requests are in as may be."""
        if self.n_requests >= self.settings.max_queue:
            raise self._overloaded()

    def _overloaded(self) -> RefusedError:
        seconds = self._retry_after()
        return RefusedError(
            f"{self.n_requests} requests are at work or waiting, as many as may (--max-queue, "
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
        """What a call gives, made in a thread; when the caller's task is cancelled, its work is dropped.

        Raises:
            RefusedError: as many requests are in as may be; it took longer than a request may.
        """
        self.check_queue()
        request = Request(max_tokens=self.settings.max_tokens)
        future = self._submit(request, call)
        self._count(1)
        future.add_done_callback(lambda _: self._count(-1))
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

    def _count(self, n: int) -> None:
        with self._lock:
            self.n_requests += n

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


def _name(params: LlamaParams) -> str:
    """A file's own name without its ending; a preset's or a repo's as it was given."""
    given = str(params.model)
    return Path(given).name.removesuffix(".gguf") if given.endswith(".gguf") else given
